"""Open extents that must be equal where tensors meet, though nothing says that they are.

A network that halves an open extent and doubles it again meets its own input with ``2 * (H // 2)`` against ``H``, and
an open number of steps may meet a fixed one. As Keras does, a model takes that for granted; whether it holds is asked
of the shapes of the inputs, before anything is computed.
"""

from collections.abc import Iterable, Sequence

from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value

# Large, so that extents do not agree there by being small; the first is divisible by every number up to 16, and by
# powers of two beyond any network's strides, and the others have all remainders that those leave with small numbers.
_SAMPLES = range(720720 << 8, (720720 << 8) + 64)


def agreeing(t: Trace, values: Sequence[Value], axes: Iterable[int]) -> list[Value]:
    """`values` with the same extents along `axes` as far as they can be the same; negative axes may be missing."""
    made = list(values)
    for axis in axes:
        extents = {v.type.shape[axis] for v in made if _has(v, axis)} - {1}
        if len(extents) < 2:
            continue
        chosen = min(extents, key=_plainness)
        if all(_may_equal(extent, chosen) for extent in extents):
            made = [_expecting(t, v, axis, chosen) for v in made]
    return made


def broadcasting(t: Trace, values: Sequence[Value]) -> list[Value]:
    """`values` with the same extents wherever they meet in numpy's broadcasting, as far as they can be the same."""
    rank = max((value.type.rank for value in values), default=0)
    return agreeing(t, values, range(-rank, 0))


def reshaped(t: Trace, x: Value, shape: Sequence[int | Dim], kept: int = 0) -> Value | None:
    """`x` under another shape behind its first `kept` axes, with -1 for what is left; None where it cannot fit."""
    lead, whole = x.type.shape[:kept], dims.mul(*x.type.shape[kept:])
    part = dims.mul(*(extent for extent in shape if extent != -1))
    target = [*lead, *(_share(whole, part) if extent == -1 else extent for extent in shape)]
    if any(extent == -1 for extent in target):
        return None
    total = dims.mul(*target[kept:])
    if total != whole:
        if not _may_equal(whole, total):
            return None
        x = t(ops.ExpectExtent(kept, total), t(ops.Reshape((*lead, whole)), x))
    return x if x.type.shape == tuple(target) else t(ops.Reshape(tuple(target)), x)


def _share(whole: Dim, part: Dim) -> Dim:
    """``whole / part``, rounded down where it is open whether that comes out even; -1 where there is no such extent."""
    exact = dims.exact_div(whole, part) if part else None
    if exact is None and isinstance(whole, str) and isinstance(part, int) and part > 0:
        return dims.floor_div(whole, part)
    return -1 if exact is None else exact


def _has(value: Value, axis: int) -> bool:
    return -value.type.rank <= axis < value.type.rank


def _plainness(extent: Dim) -> tuple[bool, int, str]:
    return isinstance(extent, str), len(str(extent)), str(extent)


def _expecting(t: Trace, value: Value, axis: int, extent: Dim) -> Value:
    if not _has(value, axis) or value.type.shape[axis] in (1, extent):
        return value
    return t(ops.ExpectExtent(axis % value.type.rank, extent), value)


def _may_equal(left: Dim, right: Dim) -> bool:
    """Whether the two are equal for some inputs; extents of different inputs are not taken for each other."""
    symbols = sorted(dims.symbols(left, right))
    if isinstance(left, str) and isinstance(right, str):
        same = dims.symbols(left) == dims.symbols(right)
        return same and any(_at(left, symbols, value) == _at(right, symbols, value) for value in _SAMPLES)
    if isinstance(left, str) or isinstance(right, str):
        fixed, dim = (left, right) if isinstance(left, int) else (right, left)
        return len(symbols) > 1 or dims.solve(dim, symbols[0], int(fixed)) is not None
    return left == right


def _at(dim: Dim, symbols: Sequence[str], value: int) -> Dim:
    """The extent where the first symbol has this value, the second twice as much, and so on."""
    return dims.substitute(dim, {symbol: value * (i + 1) for i, symbol in enumerate(symbols)})
