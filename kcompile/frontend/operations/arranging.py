"""Operations of ``keras.ops`` that arrange elements: joins, diagonals, repeats, sorting, and lookups by places."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layers.categories import one_hot as coded
from kcompile.frontend.layers.writing import positions
from kcompile.frontend.operations.operation import Number, as_value, axis_of, one_axis, operation, promoted
from kcompile.frontend.operations.shaping import concatenate, flip, split
from kcompile.frontend.operations.statistics import known_extent
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value

# -- axes and joins ---------------------------------------------------------------------------------------------------


@operation("numpy", "Moveaxis")
def moveaxis(t: Trace, x: Value, *, source: Any, destination: Any) -> Value:
    """`x` with axes at other places."""
    moved, places = (
        [a % x.type.rank for a in ([given] if isinstance(given, int) else given)] for given in (source, destination)
    )
    order = [a for a in range(x.type.rank) if a not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return t(ops.Transpose(tuple(order)), x)


@operation("numpy", "Rot90")
def rot90(t: Trace, array: Value, *, k: int = 1, axes: Sequence[int] = (0, 1)) -> Value:
    """A plane of `array` turned by `k` right angles, from the first of `axes` towards the second."""
    first, second = (axis_of(array, axis) for axis in axes)
    order = list(range(array.type.rank))
    order[first], order[second] = second, first
    match k % 4:
        case 0:
            return array
        case 1:
            return t(ops.Transpose(tuple(order)), flip(t, array, axis=second))
        case 2:
            return flip(t, array, axis=(first, second))
        case _:
            return flip(t, t(ops.Transpose(tuple(order)), array), axis=second)


@operation("numpy", "Fliplr")
def fliplr(t: Trace, x: Value) -> Value:
    """`x` with the order along axis 1 reversed."""
    return flip(t, x, axis=1)


@operation("numpy", "Flipud")
def flipud(t: Trace, x: Value) -> Value:
    """`x` with the order along axis 0 reversed."""
    return flip(t, x, axis=0)


def _at_least(t: Trace, x: Value, rank: int, after: bool = False) -> Value:
    missing = (1,) * (rank - x.type.rank)
    return t(ops.Reshape((*x.type.shape, *missing) if after else (*missing, *x.type.shape)), x) if missing else x


@operation("numpy", "Append")
def append(t: Trace, x1: Value, x2: Value, *, axis: int | None = None) -> Value:
    """`x2` after `x1`."""
    return concatenate(t, [one_axis(t, x, None)[0] if axis is None else x for x in (x1, x2)], axis=axis or 0)


@operation("numpy", "Hstack")
def hstack(t: Trace, xs: Sequence[Value]) -> Value:
    """The tensors side by side along axis 1, or 0 where there is no other."""
    return concatenate(t, xs, axis=int(xs[0].type.rank > 1))


@operation("numpy", "Vstack")
def vstack(t: Trace, xs: Sequence[Value]) -> Value:
    """The tensors along axis 0; of one axis, as rows."""
    return concatenate(t, [_at_least(t, x, 2) for x in xs], axis=0)


@operation("numpy", "Dstack")
def dstack(t: Trace, xs: Sequence[Value]) -> Value:
    """The tensors along axis 2."""
    return concatenate(t, [_at_least(t, _at_least(t, x, 2), 3, after=True) for x in xs], axis=2)


def _splitting(axis: int) -> Any:
    def rule(t: Trace, x: Value, *, indices_or_sections: Any) -> list[Value]:
        return split(t, x, indices_or_sections=indices_or_sections, axis=axis)

    return rule


for _axis, _name in enumerate(("Vsplit", "Hsplit", "Dsplit")):
    operation("numpy", _name)(_splitting(_axis))


@operation("numpy", "ArraySplit")
def array_split(t: Trace, x: Value, *, indices_or_sections: Any, axis: int = 0) -> list[Value]:
    """`x` in parts as equal as can be, the longer ones first, or cut at indices."""
    if isinstance(indices_or_sections, int):
        extent = known_extent(x, axis_of(x, axis), "ArraySplit")
        base, longer = divmod(extent, indices_or_sections)
        sizes = [base + (i < longer) for i in range(indices_or_sections)]
        indices_or_sections = np.cumsum(sizes)[:-1].tolist()
    return split(t, x, indices_or_sections=indices_or_sections, axis=axis)


@operation("numpy", "Meshgrid")
def meshgrid(t: Trace, *x: Value, indexing: str = "xy") -> list[Value]:
    """The coordinates of a grid from those along its axes."""
    order = [1, 0, *range(2, len(x))] if indexing == "xy" and len(x) > 1 else list(range(len(x)))
    shape = tuple(dims.mul(*x[i].type.shape) for i in order)
    found: list[Value] = []
    for i, each in enumerate(x):
        place = order.index(i)
        (part,) = lift(t.b, each)
        found.append(part.reshape([shape[a] if a == place else 1 for a in range(len(x))]).broadcast_to(shape).value)
    return found


# -- repeats and shifts -----------------------------------------------------------------------------------------------


@operation("numpy", "Repeat")
def repeat(t: Trace, x: Value, *, repeats: Any, axis: int | None = None) -> Value:
    """Each element along an axis `repeats` times, after one another."""
    x, place = one_axis(t, x, axis)
    counts = np.asarray(repeats).reshape(-1)
    if counts.size > 1:
        indices = np.repeat(np.arange(known_extent(x, place, "Repeat"), dtype=np.int32), counts)
        return t(ops.Gather(place), x, t.constant(indices))
    (y,), shape, times = lift(t.b, x), x.type.shape, int(counts[0])
    apart = y.expand(place + 1).broadcast_to((*shape[: place + 1], times, *shape[place + 1 :]))
    return apart.reshape((*shape[:place], dims.mul(shape[place], times), *shape[place + 1 :])).value


@operation("numpy", "Roll")
def roll(t: Trace, x: Value, *, shift: Any, axis: Any = None) -> Value:
    """`x` with the elements moved along axes, and those that leave at the other end."""
    shape = x.type.shape
    if axis is None:
        flat, _ = one_axis(t, x, None)
        return t(ops.Reshape(shape), _rolled(t, flat, int(np.asarray(shift)), 0))
    axes, shifts = ([given] if isinstance(given, int) else list(given) for given in (axis, shift))
    for place, by in zip(axes, shifts * len(axes) if len(shifts) == 1 else shifts, strict=True):
        x = _rolled(t, x, by, axis_of(x, place))
    return x


def _rolled(t: Trace, x: Value, by: int, axis: int) -> Value:
    extent = x.type.shape[axis]
    by = by % extent if isinstance(extent, int) and extent else by
    if not by:
        return x
    cut: Dim = dims.sub(extent, by) if by > 0 else -by
    return t(ops.Concat(axis), t(ops.Slice(axis, cut, extent), x), t(ops.Slice(axis, 0, cut), x))


@operation("numpy", "Diff")
def diff(t: Trace, a: Value, *, n: int = 1, axis: int = -1) -> Value:
    """The differences of neighbours along an axis, `n` times."""
    (x,), place = lift(t.b, a), axis_of(a, axis)
    for _ in range(n):
        extent = x.shape[place]
        x = x.apply(ops.Slice(place, 1, extent)) - x.apply(ops.Slice(place, 0, dims.sub(extent, 1)))
    return x.value


# -- diagonals --------------------------------------------------------------------------------------------------------


def offsets(t: Trace, rows: Dim, columns: Dim) -> Expression:
    """How far each element of a matrix is to the right of its diagonal."""
    row, column = lift(t.b, positions(t, rows), positions(t, columns))
    return column.expand(0) - row.expand(1)


def _triangle(lower: bool) -> Any:
    def rule(t: Trace, x: Value, *, k: int = 0) -> Value:
        place = offsets(t, *x.type.shape[-2:])
        (y,) = lift(t.b, x)
        if x.type.dtype == "bool":
            return (y & (place <= k if lower else place >= k)).value
        return y.where(place <= k if lower else place >= k, 0).value

    return rule


operation("numpy", "Tril")(_triangle(lower=True))
operation("numpy", "Triu")(_triangle(lower=False))


@operation("numpy", "Diagonal")
def diagonal(t: Trace, x: Value, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """A diagonal of matrices along two axes, as the last axis."""
    moved = moveaxis(t, x, source=[axis1, axis2], destination=[-2, -1])
    rank = moved.type.rank
    rows, columns = (known_extent(moved, axis, "Diagonal") for axis in (rank - 2, rank - 1))
    count = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    first = max(-offset, 0) * columns + max(offset, 0)
    flat = t(ops.Reshape((*moved.type.shape[:-2], rows * columns)), moved)
    places = first + np.arange(count, dtype=np.int32) * (columns + 1)
    return t(ops.Gather(rank - 2), flat, t.constant(places.astype(np.int32)))


@operation("numpy", "Diag")
def diag(t: Trace, x: Value, *, k: int = 0) -> Value:
    """The diagonal of a matrix, or the matrix that has `x` as its diagonal."""
    return diagonal(t, x, offset=k) if x.type.rank == 2 else diagflat(t, x, k=k)


@operation("numpy", "Diagflat")
def diagflat(t: Trace, x: Value, *, k: int = 0) -> Value:
    """The matrix that has all elements of `x` as its diagonal."""
    flat, _ = one_axis(t, x, None)
    extent = dims.add(flat.type.shape[0], abs(k))
    # Along a column stands the same element, below the diagonal from the first column on.
    (row,) = lift(t.b, t(ops.Pad((max(k, 0),), (max(-k, 0),)), flat))
    return row.expand(0).broadcast_to((extent, extent)).where(offsets(t, extent, extent).equals(k), 0).value


# -- sorting ----------------------------------------------------------------------------------------------------------


@operation("numpy", "Sort")
def sort(t: Trace, x: Value, *, axis: int | None = -1) -> Value:
    """The elements along an axis in rising order."""
    x, place = one_axis(t, x, axis)
    return t(ops.Sort(place), x)


@operation("numpy", "Argsort", "Argpartition")
def argsort(t: Trace, x: Value, *, axis: int | None = -1, kth: Any = None) -> Value:
    """The places of the elements along an axis in rising order, equal ones in their order."""
    del kth  # a sorted order is a partition too
    x, place = one_axis(t, x, axis)
    length = known_extent(x, place, "Argsort")
    x = as_value(t, x, "int32") if x.type.dtype == "bool" else x
    (row,) = lift(t.b, moveaxis(t, x, source=place, destination=-1))
    own, other = row.expand(-1), row.expand(-2)
    earlier = lift(t.b, t.constant(np.tri(length, length, -1, dtype=bool)))[0]
    # How many elements stand before each one; then who stands at each place.
    rank = ((other < own) | (other.equals(own) & earlier)).cast("int32").sum((row.type.rank,))
    numbers = lift(t.b, t.constant(np.arange(length, dtype=np.int32)))[0]
    found = (rank.expand(-2).equals(numbers.expand(1)).cast("int32") * numbers).sum((row.type.rank,))
    return moveaxis(t, found.value, source=-1, destination=place)


@operation("math", "TopK", function="top_k")
def top_k(t: Trace, x: Value, *, k: int, sorted: bool = True) -> list[Value]:
    """The `k` largest elements along the last axis, falling, and their places."""
    del sorted  # falling order is as good as any
    (y,) = lift(t.b, x)
    numbers = lift(t.b, positions(t, x.type.shape[-1]))[0]
    free, places = lift(t.b, t(ops.Full(x.type.shape, 1, "bool")))[0], list[Expression]()
    lowest = -np.inf if x.type.is_float else int(np.iinfo(x.type.dtype).min)
    for _ in range(k):
        largest = y.where(free, lowest).max((-1,), keepdims=True)
        place = (free & (y >= largest)).cast("int32").apply(ops.ArgReduce(x.type.rank - 1))
        places.append(place.expand(-1))
        free = free & numbers.differs(place.expand(-1))
    values = t(ops.Slice(x.type.rank - 1, 0, k), t(ops.Sort(-1, descending=True), x))
    return [values, t(ops.Concat(x.type.rank - 1), *(place.value for place in places))]


@operation("math", "InTopK", function="in_top_k")
def in_top_k(t: Trace, targets: Value, predictions: Value, *, k: int) -> Value:
    """Whether fewer than `k` predictions are above that of the target."""
    (scores,) = lift(t.b, predictions)
    hit = lift(t.b, coded(t, targets, known_extent(predictions, 1, "InTopK"), scores.type.dtype))[0]
    own = (scores * hit).sum((1,), keepdims=True)
    return ((scores > own).cast("int32").sum((1,)) < k).value


@operation("numpy", "SearchSorted", function="searchsorted")
def search_sorted(t: Trace, sorted_sequence: Value, values: Number, *, side: str = "left") -> Value:
    """How many elements of a rising sequence stand before each value."""
    row, wanted = lift(t.b, *promoted(t, sorted_sequence, values))
    wanted = wanted.expand(-1)
    return (row < wanted if side == "left" else row <= wanted).cast("int32").sum((wanted.type.rank - 1,)).value


@operation("numpy", "Digitize")
def digitize(t: Trace, x: Value, bins: Any) -> Value:
    """The number of rising `bins` that are not above each element."""
    edges = bins if isinstance(bins, Value) else t.constant(np.asarray(bins, np.float32))
    return search_sorted(t, edges, x, side="right")


@operation("numpy", "IsIn", function="isin")
def isin(t: Trace, x1: Value, x2: Number, *, assume_unique: bool = False, invert: bool = False) -> Value:
    """Which elements of `x1` are among those of `x2`."""
    del assume_unique
    x, among = promoted(t, x1, x2 if isinstance(x2, Value) else np.asarray(x2))
    own, others = lift(t.b, x, one_axis(t, among, None)[0])
    found = own.expand(-1).equals(others).any((own.type.rank,))
    return (~found if invert else found).value


# -- lookups ----------------------------------------------------------------------------------------------------------


@operation("numpy", "TakeAlongAxis")
def take_along_axis(t: Trace, x: Value, indices: Any, *, axis: int | None = None) -> Value:
    """For each place the element of `x` whose number along an axis `indices` gives."""
    given = indices if isinstance(indices, Value) else t.constant(np.asarray(indices, np.int32))
    x, place = one_axis(t, x, axis)
    (number,) = lift(t.b, as_value(t, given, "int32"))
    extents = [extent if i != place else 1 for i, extent in enumerate(x.type.shape)]
    broadcast = [number.shape[i] if extent == 1 else extent for i, extent in enumerate(extents)]
    number = number.broadcast_to([*broadcast[:place], number.shape[place], *broadcast[place + 1 :]])
    length = known_extent(x, place, "TakeAlongAxis")
    number = (number + length).where(number < 0, number)
    flat = lift(t.b, positions(t, 1))[0]
    for i, extent in enumerate(x.type.shape):
        along = number if i == place else _along(t, number, i, extent)
        size = extent if isinstance(extent, int) or i == 0 else known_extent(x, i, "TakeAlongAxis")
        flat = along if i == 0 else flat * int(size) + along  # pyright: ignore[reportArgumentType]
    everything, _ = one_axis(t, x, None)
    return t(ops.Gather(), everything, flat.value)


def _along(t: Trace, beside: Expression, axis: int, extent: Dim) -> Expression:
    """The number of each place along an axis; 0 where the extent is 1."""
    shape = [extent if i == axis else 1 for i in range(beside.type.rank)]
    return lift(t.b, positions(t, extent))[0].reshape(shape)


@operation("nn", "OneHot")
def one_hot(
    t: Trace, x: Value, *, num_classes: int, axis: int = -1, dtype: str | None = None, sparse: bool = False
) -> Value:
    """1 at the number of the class along a new axis, else 0."""
    _refuse_sparse("OneHot", sparse)
    codes = coded(t, as_value(t, x, "int32"), num_classes, dtype or "float32")
    return codes if axis == -1 else moveaxis(t, codes, source=-1, destination=axis)


@operation("nn", "MultiHot")
def multi_hot(
    t: Trace, inputs: Value, *, num_classes: int, axis: int = -1, dtype: str | None = None, sparse: bool = False
) -> Value:
    """1 at the numbers of all classes of a sample, else 0."""
    codes = one_hot(t, inputs, num_classes=num_classes, axis=axis, dtype=dtype, sparse=sparse)
    return t(ops.ReduceMax((1 if inputs.type.rank > 1 else 0,)), codes)


def _refuse_sparse(name: str, sparse: bool) -> None:
    if sparse:
        raise ModelError(f"`sparse` of an operation {name} must be False: kcompile has dense tensors only.")


@operation("numpy", "Bincount")
def bincount(t: Trace, x: Value, *, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Value:
    """How often each number up to `minlength` stands in a sample, or the sum of its `weights`.

    Raises:
        ModelError: `minlength` is 0, so that the length of the result would depend on the data.
    """
    _refuse_sparse("Bincount", sparse)
    if not minlength:
        raise ModelError("`minlength` of an operation Bincount must be given, to know the shape of the result.")
    codes = lift(t.b, coded(t, as_value(t, x, "int32"), minlength, "int32"))[0]
    if weights is not None:
        codes = codes.cast("float32") * lift(t.b, as_value(t, weights, "float32"))[0].expand(-1)
    return codes.sum((x.type.rank - 1,)).value


@operation("numpy", "FullLike")
def full_like(t: Trace, x: Value, fill_value: Any, *, dtype: str | None = None) -> Value:
    """One value in the shape of `x`."""
    filled = as_value(t, fill_value, dtype or x.type.dtype)
    return lift(t.b, filled)[0].broadcast_to(x.type.shape).value


@operation("numpy", "EmptyLike")
def empty_like(t: Trace, x: Value, *, dtype: str | None = None) -> Value:
    """Zeros in the shape of `x`: Keras says nothing of what stands there."""
    return t(ops.Full(x.type.shape, 0, dtype or x.type.dtype))


@operation("numpy", "Select")
def select(t: Trace, condlist: Sequence[Value], choicelist: Sequence[Any], default: Any = 0) -> Value:
    """The choice beside the first condition that holds."""
    *choices, rest = promoted(t, *choicelist, default)
    (result,) = lift(t.b, rest)
    for condition, choice in zip(reversed(condlist), reversed(choices), strict=True):
        result = lift(t.b, choice)[0].where(lift(t.b, as_value(t, condition, "bool"))[0], result)
    return result.value
