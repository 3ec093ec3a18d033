"""Where a graph starts: `Input` and the layer behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.errors import GraphError, ModelError, shown
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.tracing import Call, KerasTensor, Trace
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Value
from kcompile.ir.types import TensorType

# A shape as users write it: None for an open extent.
OpenShape = Sequence[int | None]

BATCH = "N"

# A model is tried once per way to group its inputs: 15 ways for 4.
_GROUPED = 4


@register_layer("keras>InputLayer")
@dataclass(eq=False)
class InputLayer(Layer):
    """The entry of a tensor into a model.

    Args:
        shape: of one sample; None for an open extent.
        batch_size: the first extent of a batch, open by default.
        batch_shape: the shape with the batch axis, in place of `shape` and `batch_size`.
        optional: whether a call of the model may pass None; kept for the config, never used.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"shape", "batch_size", "trainable"})
    autocast: ClassVar[bool] = False
    has_policy: ClassVar[bool] = False

    shape: OpenShape | None = None
    batch_size: int | None = None
    batch_shape: OpenShape | None = None
    sparse: bool = False
    ragged: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dtype = self.dtype or "float32"
        self.require(not self.sparse, "sparse", "False: kcompile has dense tensors only")
        self.require(not self.ragged, "ragged", "False: kcompile has dense tensors only")
        if (self.shape is None) == (self.batch_shape is None):
            received = f"shape={self.shape}, batch_shape={self.batch_shape}"
            raise ModelError(f"input `{self.name}` takes either `shape` or `batch_shape`. Received: {received}.")
        given = (self.batch_size, *_extents(self, "shape")) if self.shape is not None else _extents(self, "batch_shape")
        self.batch_shape = given
        try:
            type = TensorType(self.dtype, symbolic_shape(given))
        except GraphError as error:
            raise ModelError(f"input `{self.name}`: {error}") from error
        call = Call(self, (), {})
        call.outputs = KerasTensor(type, self.name, call)
        self.calls.append(call)
        self.built = True

    def call(self, t: Trace, x: Value) -> Value:
        """`x` itself, where an InputLayer is called like another layer."""
        del t
        return x


def _extents(layer: InputLayer, argument: str) -> tuple[int | None, ...]:
    value: Any = getattr(layer, argument)
    fits = isinstance(value, list | tuple) and all(
        d is None or (isinstance(d, int) and not isinstance(d, bool) and d >= 0)
        for d in value  # pyright: ignore[reportUnknownVariableType]
    )
    if not fits:
        law = f"`{argument}` of input `{layer.name}` must be a tuple of integers and Nones"
        raise ModelError(f"{law}. Received: {argument}={shown(value)}.")
    return tuple(value)


def Input(  # noqa: N802 - Keras's name
    shape: OpenShape | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
    batch_shape: OpenShape | None = None,
) -> KerasTensor:
    """A symbolic tensor that a model takes as an input.

    Args:
        shape: of one sample; None for an open extent.
        batch_size: the extent of the batch axis, open by default.
        batch_shape: the shape with the batch axis, in place of `shape` and `batch_size`.

    Raises:
        ModelError: both or neither of `shape` and `batch_shape` are given, or they hold no extents.
    """
    layer = InputLayer(
        shape=shape, batch_size=batch_size, batch_shape=batch_shape, dtype=dtype or "float32", name=name or ""
    )
    return layer.output


def is_input(tensor: KerasTensor) -> bool:
    """Whether the tensor comes from an InputLayer."""
    return tensor.call is None or (isinstance(tensor.call.layer, InputLayer) and not tensor.call.args)


def symbolic_shape(shape: OpenShape, suffix: str = "") -> Shape:
    """The shape with symbols for Nones: ``(None, None, 3)`` -> ``("N", "T", 3)``.

    The batch is ``N`` in all inputs. A single open axis is ``T`` (time), two are ``H`` and ``W``, three ``D``, ``H``
    and ``W``; more are numbered. `suffix` keeps the symbols of several inputs apart.
    """
    if not shape:
        return ()
    open_count = sum(extent is None for extent in shape[1:])
    known: dict[int, Sequence[str]] = {1: "T", 2: "HW", 3: "DHW"}
    names = iter(known.get(open_count, [f"X{i}_" for i in range(open_count)]))
    rest: list[Dim] = [extent if extent is not None else f"{next(names)}{suffix}" for extent in shape[1:]]
    return (BATCH if shape[0] is None else shape[0], *rest)


def sharings(shapes: Sequence[OpenShape]) -> list[tuple[str, ...]]:
    """Suffixes that keep symbols of inputs apart: first each input's from all others', last no input's from another's.

    Between are the ways in which some inputs share theirs, for up to `_GROUPED` inputs with open extents.
    """
    opened = [i for i, shape in enumerate(shapes) if None in shape[1:]]
    count = len(opened)
    groupings = _groupings(count) if count <= _GROUPED else [tuple(range(count)), (0,) * count]
    return [_suffixes(len(shapes), dict(zip(opened, groups, strict=True))) for groups in groupings]


def _groupings(count: int) -> list[tuple[int, ...]]:
    """All ways to put `count` things into groups, as the number of each thing's group; many groups come first."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(count):
        found = [(*groups, group) for groups in found for group in range(max(groups, default=-1) + 2)]
    return sorted(found, key=lambda groups: -max(groups, default=0))


def _suffixes(count: int, groups: Mapping[int, int]) -> tuple[str, ...]:
    """The number of the first input of each one's group, from 1 on; none where there is one group."""
    if len(set(groups.values())) < 2:
        return ("",) * count
    first: dict[int, int] = {}
    for i, group in groups.items():
        first.setdefault(group, i + 1)
    return tuple(str(first[groups[i]]) if i in groups else "" for i in range(count))
