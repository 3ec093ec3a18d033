"""Random numbers in what users write: in a traced step from the step's seed, elsewhere from NumPy.

Each call in a step draws other numbers than every other, and each step others than the one before. A compiled model
draws none, so that what asks for them where `training` is false cannot be compiled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.initializers import generator
from kcompile.frontend.operations.calling import call
from kcompile.frontend.tensor import Extent, Tensor, current, dim_of
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.types import Array


class SeedGenerator:
    """A source of random numbers; here a seed alone, since each call of a step draws numbers of its own."""

    def __init__(self, seed: int | None = None, **_: Any) -> None:
        self.seed = seed
        self._generator = np.random.default_rng(seed) if seed is not None else None

    def next(self) -> np.random.Generator:
        """What draws outside of steps."""
        return self._generator or generator()

    def get_config(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}


def _source(seed: Any) -> np.random.Generator:
    if isinstance(seed, SeedGenerator):
        return seed.next()
    return generator() if seed is None else np.random.default_rng(seed)


def _drawn(op: Any, shape: Sequence[Any], dtype: str, seed: Any, draw: Callable[[Any, Any], Array]) -> Any:
    t = current()
    extents = tuple(each if isinstance(each, Extent) else int(each) for each in shape)
    if t is not None:
        return _in_step(t, op, tuple(map(dim_of, extents)), dtype)
    return draw(_source(seed), extents).astype(dtype)


def _in_step(t: Trace, op: Any, shape: tuple[Any, ...], dtype: str) -> Tensor:
    if t.effects is not None:
        drawn = t.effects.normal if op is ops.RandomNormal else t.effects.uniform
        return Tensor(drawn(shape, dtype).value)
    if t.for_shapes:
        return Tensor(t(ops.Full(shape, 0.0, dtype)))
    law = "random numbers are drawn while a model trains or predicts here, but a compiled model draws none"
    raise ModelError(f"{law}. Draw them where `training` is true alone.")


def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: str | None = None, seed: Any = None) -> Any:
    """Normally distributed numbers."""
    drawn = _drawn(ops.RandomNormal, shape, dtype or "float32", seed, lambda g, s: g.standard_normal(s))
    return drawn * stddev + mean


def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: str | None = None, seed: Any = None) -> Any:
    """Numbers evenly distributed over ``[minval, maxval)``."""
    drawn = _drawn(ops.RandomUniform, shape, dtype or "float32", seed, lambda g, s: g.random(s))
    return drawn * (maxval - minval) + minval


def randint(shape: Any, minval: int, maxval: int, dtype: str = "int32", seed: Any = None) -> Any:
    """Integers evenly distributed over ``[minval, maxval)``."""
    return call("Cast", call("Floor", uniform(shape, minval, maxval, seed=seed)), dtype)


def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: str | None = None, seed: Any = None) -> Any:
    """Normally distributed numbers within two standard deviations, by the inverse of the distribution's function."""
    edge = 0.9544997361036416  # the share of a normal distribution within two standard deviations
    inside = uniform(shape, -edge, edge, dtype, seed)
    return call("Erfinv", inside) * (float(np.sqrt(2.0)) * stddev) + mean


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """`inputs` with elements set to 0 at a rate, and the others scaled so that the sum stays."""
    from kcompile.frontend.operations.functions import shape

    if rate == 0:
        return inputs
    drawn = uniform(noise_shape or shape(inputs), dtype=getattr(inputs, "dtype", None), seed=seed)
    return call("Where", drawn >= rate, inputs / (1.0 - rate), 0.0)


def categorical(logits: Any, num_samples: int, dtype: str = "int32", seed: Any = None) -> Any:
    """Numbers of classes, drawn with the odds that the logits give: ``T[N, C] -> i[N, num_samples]``."""
    from kcompile.frontend.operations.functions import shape

    rows, classes = shape(logits)
    drawn = uniform((rows, num_samples, classes), 1e-7, 1.0, seed=seed)
    noise = -call("Log", -call("Log", drawn))
    return call("Cast", call("Argmax", call("ExpandDims", logits, 1) + noise, axis=-1), dtype)
