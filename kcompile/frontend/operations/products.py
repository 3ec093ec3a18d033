"""Operations of ``keras.ops`` that sum products."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layers.einsum import einsum as contracted
from kcompile.frontend.operations.arranging import diagonal, moveaxis
from kcompile.frontend.operations.elementary import floats
from kcompile.frontend.operations.operation import Number, axis_of, operation, promoted
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.expression import Expression, lift
from kcompile.ir.graph import Value

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


# -- by letters -------------------------------------------------------------------------------------------------------


@operation("numpy", "Einsum", order=("subscripts", "operands"))
def einsum(t: Trace, *operands: Value, subscripts: str) -> Value:
    """Sums of products by the letters of their axes, as ``numpy.einsum``.

    Raises:
        ModelError: the letters do not fit the operands.
    """
    values = promoted(t, *operands)
    terms, result = _spelled(subscripts.replace(" ", ""), [x.type.rank for x in values])
    reduced = [_each_once(t, letters, x) for letters, x in zip(terms, values, strict=True)]
    letters, x = reduced[0]
    for i, (other, y) in enumerate(reduced[1:], 2):
        needed = result + "".join(later for later, _ in reduced[i:])
        kept = "".join(dict.fromkeys(a for a in letters + other if a in needed))
        x, letters = _pair(t, letters, other, kept, x, y), kept
    return _single(t, letters, result, x)


def _spelled(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with those that ``...`` stands for."""
    given, arrow, result = subscripts.partition("->")
    terms = given.split(",")
    if len(terms) != len(ranks) or not re.fullmatch(r"[a-zA-Z.,>-]*", subscripts):
        law = f"`subscripts` of an operation Einsum must name {len(ranks)} operands"
        raise ModelError(f"{law}. Received: {subscripts!r}.")
    spare = "".join(a for a in _LETTERS if a not in subscripts)
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    widest = max((n for n, term in zip(counts, terms, strict=True) if "..." in term), default=0)
    fits = all(n >= 0 if "..." in term else n == 0 for n, term in zip(counts, terms, strict=True))
    if not fits:
        raise ModelError(f"`subscripts` of an operation Einsum must fit ranks {list(ranks)}. Received: {subscripts!r}.")
    whole = spare[:widest]
    terms = [term.replace("...", whole[widest - n :]) for n, term in zip(counts, terms, strict=True)]
    if arrow:
        return terms, result.replace("...", whole)
    letters = "".join(terms)
    return terms, whole + "".join(sorted(a for a in set(letters) - set(whole) if letters.count(a) == 1))


def _each_once(t: Trace, letters: str, x: Value) -> tuple[str, Value]:
    """An operand without a letter that stands twice: of its axes, the diagonal."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            x = diagonal(t, x, axis1=first, axis2=second)
            letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + letter
    return letters, x


def _pair(t: Trace, a: str, b: str, kept: str, x: Value, y: Value) -> Value:
    """The product of two operands, whose axes of extent 1 stretch."""
    left, right = lift(t.b, x, y)
    for i, letter in enumerate(a):
        if letter in b and left.shape[i] != right.shape[b.index(letter)]:
            j = b.index(letter)
            shapes = [list(left.shape), list(right.shape)]
            shapes[0][i] = shapes[1][j] = right.shape[j] if left.shape[i] == 1 else left.shape[i]
            left, right = left.broadcast_to(shapes[0]), right.broadcast_to(shapes[1])
    return contracted(t, a, b, kept, left.value, right.value)


def _single(t: Trace, letters: str, result: str, x: Value) -> Value:
    """One operand summed over the letters that the result lacks, and transposed."""
    summed = tuple(i for i, a in enumerate(letters) if a not in result)
    kept = [a for a in letters if a in result]
    if set(result) - set(kept):
        raise ModelError(f"an operation Einsum has no operand for the letters {sorted(set(result) - set(kept))}.")
    x = t(ops.ReduceSum(summed), x) if summed else x
    return t(ops.Transpose(tuple(kept.index(a) for a in result)), x)


# -- by axes ----------------------------------------------------------------------------------------------------------


@operation("numpy", "Matmul")
def matmul(t: Trace, x1: Value, x2: Value) -> Value:
    """The matrix product over the last two axes; an operand of one axis is a row, or a column."""
    x, y = lift(t.b, *promoted(t, x1, x2))
    row, column = x.type.rank == 1, y.type.rank == 1
    product = (x.expand(0) if row else x).apply(ops.MatMul(), y.expand(1) if column else y)
    product = product.squeeze(product.type.rank - 1) if column else product
    return (product.squeeze(product.type.rank - 1 - (not column)) if row else product).value


@operation("numpy", "Dot")
def dot(t: Trace, x1: Number, x2: Number) -> Value:
    """Sums of products over the last axis of `x1` and the last but one of `x2`."""
    x, y = promoted(t, x1, x2)
    if 0 in (x.type.rank, y.type.rank):
        return t(ops.Mul(), x, y)
    return tensordot(t, x, y, axes=[[x.type.rank - 1], [max(y.type.rank - 2, 0)]])


@operation("numpy", "Tensordot")
def tensordot(t: Trace, x1: Value, x2: Value, *, axes: Any = 2) -> Value:
    """Sums of products over axes of both: the last and the first, or those that are named."""
    x, y = promoted(t, x1, x2)
    rank, other = x.type.rank, y.type.rank
    if isinstance(axes, int):
        axes = [list(range(rank - axes, rank)), list(range(axes))]
    pairs = [[given] if isinstance(given, int) else list(given) for given in axes]
    first, second = ([a % count for a in each] for count, each in zip((rank, other), pairs, strict=True))
    letters = _LETTERS[:rank]
    others = list(_LETTERS[rank : rank + other])
    for a, b in zip(first, second, strict=True):
        others[b] = letters[a]
    result = [a for a in letters if a not in others] + [b for b in others if b not in letters]
    return contracted(t, letters, "".join(others), "".join(result), x, y)


@operation("numpy", "Outer")
def outer(t: Trace, x1: Value, x2: Value) -> Value:
    """The products of each element of `x1` with each of `x2`."""
    x, y = (_flat(each) for each in lift(t.b, *promoted(t, x1, x2)))
    return (x.expand(1) * y.expand(0)).value


@operation("numpy", "Vdot")
def vdot(t: Trace, x1: Value, x2: Value) -> Value:
    """The sum of products of all elements."""
    x, y = (_flat(each) for each in lift(t.b, *promoted(t, x1, x2)))
    return (x * y).sum().value


@operation("numpy", "Inner")
def inner(t: Trace, x1: Value, x2: Value) -> Value:
    """Sums of products over the last axes of both."""
    x, y = promoted(t, x1, x2)
    if 0 in (x.type.rank, y.type.rank):
        return t(ops.Mul(), x, y)
    return tensordot(t, x, y, axes=[[x.type.rank - 1], [y.type.rank - 1]])


def _flat(x: Expression) -> Expression:
    return x.reshape((dims.mul(*x.shape),))


@operation("numpy", "Kron")
def kron(t: Trace, x1: Value, x2: Value) -> Value:
    """`x2` times each element of `x1`, in its place."""
    x, y = lift(t.b, *promoted(t, x1, x2))
    rank = max(x.type.rank, y.type.rank)
    x, y = (each.reshape(((1,) * (rank - each.type.rank)) + each.shape) for each in (x, y))
    apart, beside = (tuple(dims for pair in pairs for dims in pair) for pairs in _interleaved(x.shape, y.shape))
    whole = tuple(dims.mul(a, b) for a, b in zip(x.shape, y.shape, strict=True))
    return (x.reshape(apart) * y.reshape(beside)).reshape(whole).value


def _interleaved(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[tuple[Any, int]], list[tuple[int, Any]]]:
    return [(a, 1) for a in x], [(1, b) for b in y]


@operation("numpy", "Cross")
def cross(
    t: Trace, x1: Value, x2: Value, *, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Value:
    """The vectors at right angles to two, of three elements each.

    Raises:
        ModelError: the vectors have other lengths.
    """
    axes = (axis, axis, axis) if axis is not None else (axisa, axisb, axisc)
    x, y = (moveaxis(t, each, source=a, destination=-1) for each, a in zip(promoted(t, x1, x2), axes, strict=False))
    if x.type.shape[-1] != 3 or y.type.shape[-1] != 3:
        raise ModelError(f"an operation Cross takes vectors of 3 elements. Received: {x.type} and {y.type}.")
    a, b = ([v.apply(ops.Slice(v.type.rank - 1, i, i + 1)) for i in range(3)] for v in lift(t.b, x, y))
    parts = [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    whole = t(ops.Concat(parts[0].type.rank - 1), *(part.value for part in parts))
    return moveaxis(t, whole, source=-1, destination=axes[2])


@operation("numpy", "Trace")
def trace(t: Trace, x: Value, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The sum of a diagonal."""
    (found,) = lift(t.b, diagonal(t, x, offset=offset, axis1=axis1, axis2=axis2))
    return found.sum((found.type.rank - 1,)).value


@operation("math", "CDist", function="cdist")
def cdist(t: Trace, x: Value, y: Value) -> Value:
    """The distances of the rows of `x` and `y`."""
    left, right = floats(t, x, y)
    apart = left.expand(left.type.rank - 1) - right.expand(right.type.rank - 2)
    return apart.square().sum((apart.type.rank - 1,)).sqrt().value


@operation("math", "ExtractSequences")
def extract_sequences(t: Trace, x: Value, *, sequence_length: int, sequence_stride: int) -> Value:
    """Windows along the last axis: ``T[..., L] -> T[..., (L - length) // stride + 1, length]``."""
    axis = axis_of(x, -1)
    extent = x.type.shape[axis]
    if not isinstance(extent, int):
        raise ModelError(f"an operation ExtractSequences needs a known extent. Received: {x.type}.")
    starts = np.arange(0, extent - sequence_length + 1, sequence_stride)
    windows = (starts[:, None] + np.arange(sequence_length)).astype(np.int32)
    return t(ops.Gather(axis), x, t.constant(windows))


@operation("numpy", "Correlate")
def correlate(t: Trace, x1: Value, x2: Value, *, mode: str = "valid") -> Value:
    """Sums of products of a row with another one that slides along it."""
    x, y = floats(t, x1, x2)
    window = y.shape[0]
    if not isinstance(window, int):
        raise ModelError(f"an operation Correlate needs a known extent of `x2`. Received: {x2.type}.")
    sides = {"valid": (0, 0), "same": (window // 2, (window - 1) // 2), "full": (window - 1, window - 1)}
    row = x.reshape((1, *x.shape, 1))
    found = row.apply(ops.Conv((1,), (sides[mode],), (1,)), y.reshape((window, 1, 1)))
    return _flat(found).value
