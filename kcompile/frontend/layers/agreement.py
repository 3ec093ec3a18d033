"""Open extents that must be equal where tensors meet, though nothing says that they are.

A network that halves an open extent and doubles it again meets its own input with ``2 * (H // 2)`` against ``H``. Keras
asks at run time whether they are equal; here the longer tensor is cut to the shorter, which changes nothing where they
are, and makes the shorter extent that of the result.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Value

# Divisible by every number up to 16, so that extents agree there if they agree for any but odd inputs.
_EVEN = 720720
_SAMPLES = (*range(1, 130), 997, _EVEN)


def agreeing(t: Trace, values: Sequence[Value], axes: Iterable[int]) -> list[Value]:
    """`values`, of one rank, with the same extents along `axes` as far as they can be the same."""
    made = list(values)
    for axis in axes:
        extents = {v.type.shape[axis] for v in made} - {1}
        if len(extents) < 2:
            continue
        least = reduce(_shorter, extents)
        if least is None:
            continue
        made = [v if v.type.shape[axis] in (1, least) else t(ops.Slice(axis, 0, least), v) for v in made]
    return made


def _shorter(left: Dim | None, right: Dim | None) -> Dim | None:
    """The extent that is never above the other, where the two are equal for some inputs; else None."""
    if left is None or right is None or isinstance(left, int) or isinstance(right, int):
        return None
    symbols = sorted(dims.symbols(left, right))
    if dims.symbols(left) != dims.symbols(right):
        return None
    pairs = [(_at(left, symbols, value), _at(right, symbols, value)) for value in _SAMPLES]
    if pairs[-1][0] != pairs[-1][1]:
        return None
    if all(a <= b for a, b in pairs):
        return left
    return right if all(b <= a for a, b in pairs) else None


def _at(dim: Dim, symbols: Sequence[str], value: int) -> int:
    """The extent where the first symbol has this value, the second twice as much, and so on."""
    result = dims.substitute(dim, {symbol: value * (i + 1) for i, symbol in enumerate(symbols)})
    assert isinstance(result, int)
    return result
