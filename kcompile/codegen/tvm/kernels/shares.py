"""Shares of work whose units cost unequally much, or have much in common.

A thread's units are neighbours, as those of `Function.parallel` are. So that threads end together where there are few
units, their costs are weighed, and what has a part in common (an image's rows, whose filters are shared) is cut, too.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from kcompile.codegen.tvm.expr import Expr, Index, index, index_max, index_min, maximum, quotient, select
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.tir import Function, split

# What comes first on a thread, and by column the rows that are its: the first, and the one after the last.
Region: TypeAlias = tuple[Index, Callable[[Index], tuple[Index, Index]]]


@dataclass(frozen=True)
class Costs:
    """`periods` times, `many` units that each cost `dear` come before `few` that cost `cheap`, in any measure."""

    periods: Index
    many: Index
    dear: int
    few: Index
    cheap: int

    @classmethod
    def of_pieces(cls, periods: Index, extent: int, size: int, times: int) -> "Costs":
        """Of an extent that is cut into pieces of `size` and the rest, each of which is `times` units."""
        full, rest = divmod(extent, size)
        return cls(periods, full * times, size, times if rest else 0, rest)

    @property
    def units(self) -> Index:
        """How many there are."""
        return product([self.periods, self.many + self.few])


def share(f: Function, costs: Costs) -> tuple[Index, Index]:
    """The first of the thread's units, and how many it has."""
    if not f.shared or costs.dear == costs.cheap or 0 in (costs.many, costs.few):
        return f.share(costs.units)
    many, few, periods = (f.let(index(i).cast("int64")) for i in (costs.many, costs.few, costs.periods))
    dear = f.let(many * costs.dear)
    period = f.let(dear + few * costs.cheap)

    def unit(cost: Expr) -> Expr:
        """The number of the unit that begins nearest to a cost."""
        before = f.let(quotient(cost, f.let(maximum(period, 1))))
        rest = f.let(cost - before * period)
        among_dear = quotient(rest + costs.dear // 2, index(costs.dear).cast("int64"))
        among_cheap = many + quotient(rest - dear + costs.cheap // 2, index(costs.cheap).cast("int64"))
        return f.variable((before * (many + few) + select(rest < dear, among_dear, among_cheap)).cast("int32"))

    begin, end = map(unit, f.share_of(f.let(periods * period)))
    return begin, f.variable(end - begin)


@contextmanager
def parallel(f: Function, costs: Costs) -> Generator[Index]:
    """A loop over units that the threads share; every unit is computed whole by one thread."""
    begin, count = share(f, costs)
    with f.loop(count) as i:
        yield f.name_index(begin + i)


@contextmanager
def parallel_runs(f: Function, outer: Index, inner: int, costs: Costs | None = None) -> Generator[tuple[Index, ...]]:
    """A loop over the thread's part of `outer`, with the first and the end of `inner` that it has there.

    The units are pairs of both. Neighbours share what is done once per turn of the loop.

    Args:
        costs: of the units; they are equal unless given.
    """
    if not f.shared or inner == 1:
        with parallel(f, costs) if costs and f.shared else f.parallel(outer) as i:
            yield i, 0, inner
        return
    own = share(f, costs) if costs else f.share(product([outer, inner]))
    with _runs(f, own, inner) as run:
        yield run


@contextmanager
def _runs(f: Function, own: tuple[Index, Index], inner: Index) -> Generator[tuple[Index, ...]]:
    begin, count = own
    end, size = f.variable(begin + count), f.let(index(index_max(inner, 1)))
    first = f.variable(quotient(index(begin), size))
    turns = f.variable(select(index(count) > 0, quotient(end + (size - 1), size) - first, 0))
    with f.loop(turns) as turn:
        i = f.variable(first + turn)
        start = f.let(i * size)
        yield i, f.variable(index_max(begin - start, 0)), f.variable(index_min(end - start, size))


@contextmanager
def parallel_regions(f: Function, outer: Index, rows: Index, columns: int, costs: Costs) -> Generator[Region]:
    """A loop over the thread's part of `outer`, with its region of the rows and columns there: neighbouring rows whole.

    The units, which `costs` weighs, are those of all rows, column after column; but the region may be gone through
    column by column, so that what a column needs is used by all rows.
    """
    with _runs(f, share(f, costs), product([rows, columns])) as (i, begin, end):
        width = index(max(columns, 1))  # of no columns, nothing runs
        corners = [f.variable(quotient(index(corner), width)) for corner in (begin, end)]
        rests = [f.variable(index(corner) - row * columns) for corner, row in zip((begin, end), corners, strict=True)]

        def region(column: Index) -> tuple[Index, Index]:
            first, last = (f.let(select(rest > column, row + 1, row)) for rest, row in zip(rests, corners, strict=True))
            return first, last

        yield i, region


def vectors_between(f: Function, extent: int, first: Index, end: Index) -> Iterator[tuple[Index, int]]:
    """``(start, lanes)``, as of `Function.vectors`, of the vectors from number `first` on and before `end`."""
    if isinstance(first, int) and isinstance(end, int):
        yield from f.vectors(extent)
        return
    lanes = f.machine.lanes
    full, rest = divmod(extent, lanes)
    with f.loop(f.variable(index_max(index_min(end, full) - first, 0))) as i:
        yield f.variable((first + i) * lanes), lanes
    start = full * lanes
    for number, width in enumerate(split(rest, lanes), full):
        with f.when((index(first) <= number) & (index(end) > number)):
            yield start, width
        start += width
