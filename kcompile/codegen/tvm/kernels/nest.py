"""Loops over the axes of dense and strided arrays, for kernels of any rank.

A strided view has extents and, per array, distances between neighbours; `merged` joins axes that lie behind each other
in every array, so that most shapes end as one or two loops.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from kcompile.codegen.tvm.expr import Index, index
from kcompile.codegen.tvm.tir import Function
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape

# Elements that one unit of work should have at least: below that, finding the unit's place costs more than its work.
_UNIT_ELEMENTS = 1024
# The guess for an extent that is open until run time.
_OPEN_EXTENT = 64


def merged(extents: Shape, *strides: Shape) -> tuple[Shape, ...]:
    """The same elements in the same order with as few axes as possible: new extents, then new strides per array."""
    kept: list[list[Dim]] = []
    for extent, *distances in zip(extents, *strides, strict=True):
        if extent == 1:
            continue
        if kept and all(kept[-1][a] == dims.mul(distances[a - 1], extent) for a in range(1, len(strides) + 1)):
            kept[-1] = [dims.mul(kept[-1][0], extent), *distances]
        else:
            kept.append([extent, *distances])
    return tuple(tuple(axis[i] for axis in kept) for i in range(1 + len(strides)))


def product(factors: Sequence[Index]) -> Index:
    """The product of indices; of none, 1."""
    total: Index = 1
    for factor in factors:
        total = factor * total
    return total


@contextmanager
def units(f: Function, extents: Sequence[Index]) -> Generator[list[Index]]:
    """One loop over all positions of `extents`, shared by the threads."""
    with f.parallel(product(extents)) as number:
        # An axis without elements runs nothing, but must not be divided by.
        yield f.unravel(number, [extent if extent != 0 else 1 for extent in extents]) if extents else []


@contextmanager
def nest(f: Function, extents: Sequence[Index]) -> Generator[list[Index]]:
    """Nested loops over `extents`."""
    with ExitStack() as stack:
        yield [stack.enter_context(f.loop(extent)) for extent in extents]


@contextmanager
def shared_nest(f: Function, extents: Sequence[Index], inner: Index = 1) -> Generator[list[Index]]:
    """Nested loops over `extents`, the outer ones shared by the threads in units of enough elements.

    Args:
        inner: elements that the body handles.
    """
    size = inner if isinstance(inner, int) else _OPEN_EXTENT
    split = len(extents)
    while split and size < _UNIT_ELEMENTS:
        split -= 1
        extent = extents[split]
        size *= extent if isinstance(extent, int) else _OPEN_EXTENT
    with units(f, extents[:split]) as outer, nest(f, extents[split:]) as rest:
        yield [*outer, *rest]


def whole_or_rest(f: Function, number: Index, extent: int, size: int) -> Iterator[int]:
    """The length of piece `number` of an extent that is cut into pieces of `size` and the rest; a body for each."""
    full, rest = divmod(extent, size)
    if full:
        with f.when(index(number) < full):
            yield size
    if rest:
        with f.when(index(number).equals(full)):
            yield rest


def dot(position: Sequence[Index], strides: Sequence[Index], offset: Index = 0) -> Index:
    """``offset + sum of position[i] * strides[i]``."""
    for i, stride in zip(position, strides, strict=True):
        offset = _plus(offset, _times(i, stride))
    return offset


def _times(x: Index, y: Index) -> Index:
    return 0 if (isinstance(x, int) and x == 0) or (isinstance(y, int) and y == 0) else x * y


def _plus(x: Index, y: Index) -> Index:
    return y if isinstance(x, int) and x == 0 else x + y
