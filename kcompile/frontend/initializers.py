"""Initializers: how new weights are filled, with the formulas of https://keras.io/api/layers/initializers/.

An initializer is a frozen dataclass whose fields are Keras's arguments; `get` finds one by name, config or object.
"""

import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from kcompile.errors import ModelError
from kcompile.ir.types import Array

# The standard deviation of a unit normal that is cut off at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


class _Source:
    """Where unseeded initializers draw from."""

    generator = np.random.default_rng()
    skip = False


def set_seed(seed: int) -> None:
    """Make every weight created from now on a function of `seed`."""
    _Source.generator = np.random.default_rng(seed)


def random_state() -> dict[str, Any]:
    """Where unseeded initializers are in their stream of random numbers, for `set_random_state`."""
    return dict(_Source.generator.bit_generator.state)


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let unseeded initializers go on drawing from where they were at `random_state`."""
    _Source.generator = np.random.default_rng()
    _Source.generator.bit_generator.state = state


def set_random_seed(seed: int) -> None:
    """Make all that is drawn from now on a function of `seed`: here, in NumPy and in Python.

    Raises:
        ModelError: it is no integer from 0 to 2**32 - 1.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ModelError(f"`seed` must be an integer from 0 to 2**32 - 1. Received: {seed!r}.")
    random.seed(seed)
    np.random.seed(seed)
    set_seed(seed)


def generator() -> np.random.Generator:
    """What unseeded initializers draw from."""
    return _Source.generator


def drawn_seed() -> int:
    """A seed from where unseeded initializers draw."""
    return int(_Source.generator.integers(2**62))


def shuffled(count: int) -> Array:
    """``0, 1, ..., count - 1`` in random order, from where unseeded initializers draw."""
    return _Source.generator.permutation(count)


@contextmanager
def skipped() -> Generator[None]:
    """New weights hold zeros inside: for layers whose weights a file brings."""
    outer, _Source.skip = _Source.skip, True
    try:
        yield
    finally:
        _Source.skip = outer


@dataclass(frozen=True)
class Initializer(ABC):
    """Base: called with a shape and a dtype, it returns a new array."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        """The values."""

    def __call__(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """A new array of `shape`; of zeros inside `skipped`."""
        if _Source.skip:
            return np.zeros(shape, dtype)
        seed = getattr(self, "seed", None)
        generator = np.random.default_rng(seed) if isinstance(seed, int) else _Source.generator
        return self.draw(shape, generator).astype(dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments, in Keras's words."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The initializer that `config` describes."""
        return cls(**config)


@dataclass(frozen=True)
class Zeros(Initializer):
    """Zeros."""

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return np.zeros(shape)


@dataclass(frozen=True)
class Ones(Initializer):
    """Ones."""

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return np.ones(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """`value` everywhere; an array must broadcast to the shape."""

    value: Any = 0.0

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return np.broadcast_to(np.asarray(self.value, float), shape)


@dataclass(frozen=True)
class Identity(Initializer):
    """`gain` on the diagonal of a matrix."""

    gain: float = 1.0

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ModelError(f"initializer Identity fills matrices only. Received: shape={shape}.")
        return self.gain * np.eye(*shape)


@dataclass(frozen=True)
class RandomNormal(Initializer):
    """Normally distributed around `mean`."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return generator.normal(self.mean, self.stddev, shape)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normally distributed, drawn again beyond two standard deviations."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return self.mean + self.stddev * _truncated_normal(shape, generator)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """Evenly distributed over ``[minval, maxval)``."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: Any = None

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return generator.uniform(self.minval, self.maxval, shape)


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Variance ``scale / n`` where n is the fan in, the fan out or their mean; He et al. 2015, arXiv:1502.01852."""

    scale: float = 1.0
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in"
    distribution: str = "truncated_normal"
    seed: Any = None
    input_axes: Any = None
    output_axes: Any = None

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        fan_in, fan_out = self._fans(shape)
        units = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, units)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return generator.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return generator.normal(0.0, math.sqrt(variance), shape)
        return _truncated_normal(shape, generator) * (math.sqrt(variance) / _TRUNCATED_STDDEV)

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if self.input_axes is not None and self.output_axes is not None:
            return math.prod(shape[a] for a in self.input_axes), math.prod(shape[a] for a in self.output_axes)
        if len(shape) < 2:
            return (shape[0], shape[0]) if shape else (1, 1)
        window = math.prod(shape[:-2])
        return window * shape[-2], window * shape[-1]


@dataclass(frozen=True)
class _Preset(VarianceScaling):
    """Base of the named cases of `VarianceScaling`, whose configs hold no more than the seed and the axes."""

    preset: ClassVar[tuple[float, Any, str]]

    def __post_init__(self) -> None:
        for name, value in zip(("scale", "mode", "distribution"), self.preset, strict=True):
            object.__setattr__(self, name, value)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "input_axes": self.input_axes, "output_axes": self.output_axes}


class GlorotUniform(_Preset):
    """Glorot and Bengio 2010, uniform."""

    preset = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Preset):
    """Glorot and Bengio 2010, normal."""

    preset = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Preset):
    """He et al. 2015, uniform."""

    preset = (2.0, "fan_in", "uniform")


class HeNormal(_Preset):
    """He et al. 2015, normal."""

    preset = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Preset):
    """LeCun et al. 1998, uniform."""

    preset = (1.0, "fan_in", "uniform")


class LecunNormal(_Preset):
    """LeCun et al. 1998, normal."""

    preset = (1.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """`gain` times orthonormal rows or columns, whichever are fewer; Saxe et al. 2014, arXiv:1312.6120."""

    gain: float = 1.0
    seed: Any = None

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ModelError(f"initializer Orthogonal needs at least two axes. Received: shape={shape}.")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # without it the matrices are not evenly distributed
        return self.gain * (q.T if rows < columns else q).reshape(shape)


def _truncated_normal(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    values = generator.normal(size=shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.normal(size=int(outside.sum()))
    return values


_CLASSES: tuple[type[Initializer], ...] = (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


_BY_NAME: dict[str, type[Initializer]] = {
    **{cls.__name__: cls for cls in _CLASSES},
    **{_snake_case(cls.__name__): cls for cls in _CLASSES},
    "normal": RandomNormal,
    "uniform": RandomUniform,
    "one": Ones,
    "zero": Zeros,
    "IdentityInitializer": Identity,
    "OrthogonalInitializer": Orthogonal,
}


def get(spec: Any) -> Callable[[tuple[int, ...], str], Array]:
    """The initializer that `spec` names, describes (``{"class_name": ..., "config": ...}``) or is.

    Inside `skipped`, whatever it says, so that a file may name an initializer that nobody here knows.

    Raises:
        ModelError: there is none of that name, or it does not take those arguments.
    """
    if _Source.skip:
        return Zeros()
    initializer: Any = spec if callable(spec) else _named(spec)
    return initializer


def _named(spec: Any) -> Initializer:
    name, config = (spec, {}) if isinstance(spec, str) else _parts(spec)
    cls = _BY_NAME.get(name) or _registered(name)
    if cls is not None and not isinstance(cls, type):
        return cls
    if cls is None:
        known = ", ".join(sorted(cls.__name__ for cls in _CLASSES))
        raise ModelError(f"an initializer must be one of {known}. Received: {name!r}.")
    try:
        # `dtype` stands in the configs of Keras 2 and is without effect there.
        return cls(**{key: value for key, value in config.items() if key != "dtype"})
    except TypeError:
        raise ModelError(f"initializer {cls.__name__} does not take these arguments: {config}.") from None


def _registered(name: str) -> Any:
    from kcompile.frontend import registry

    return registry.find(name)


def _parts(spec: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("class_name"), str):  # pyright: ignore[reportUnknownMemberType]
        raise ModelError(f"an initializer must be a name, a config or a function. Received: {spec!r}.")
    config: Any = spec.get("config") or {}  # pyright: ignore[reportUnknownMemberType]
    return str(spec["class_name"]), config  # pyright: ignore[reportUnknownArgumentType]


def serialize(spec: Any) -> Any:
    """`spec` as the config that Keras 3 writes; what is no initializer of Keras's stays as it is."""
    try:
        initializer = spec if isinstance(spec, Initializer) else _named(spec)
    except ModelError:
        return spec
    return {
        "module": "keras.initializers",
        "class_name": type(initializer).__name__,
        "config": initializer.get_config(),
        "registered_name": None,
    }
