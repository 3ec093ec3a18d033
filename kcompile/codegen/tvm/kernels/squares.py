"""Transposing in registers: squares of a few vectors, and blocks of any size cut into them."""

from collections.abc import Callable, Sequence

from kcompile.codegen.tvm.compiler import tirx
from kcompile.codegen.tvm.expr import Expr, Index
from kcompile.codegen.tvm.tir import Function

# The side of a square.
SIDE = 8


def transposed(f: Function, rows: Sequence[Expr]) -> list[Expr]:
    """A square of vectors, transposed by exchanging ever larger blocks (Eklundh 1972)."""
    result, distance = list(rows), 1
    while distance < len(rows):
        for i in range(len(rows)):
            if i & distance:
                continue
            x, y = result[i], result[i + distance]
            lanes = range(x.lanes)
            low = [j + x.lanes - distance if j & distance else j for j in lanes]
            high = [j + x.lanes if j & distance else j + distance for j in lanes]
            result[i], result[i + distance] = f.let(shuffled([x, y], low)), f.let(shuffled([x, y], high))
        distance *= 2
    return result


def shuffled(vectors: Sequence[Expr], lanes: Sequence[int]) -> Expr:
    """The vector of these lanes of all `vectors` side by side."""
    if vectors[0].lanes == 1:
        return vectors[0]
    numbers = [tirx.const(lane, "int32") for lane in lanes]
    return Expr(tirx.Shuffle([v.node for v in vectors], numbers), vectors[0].dtype, len(lanes))


def transpose_block(
    f: Function,
    rows: Index,
    columns: Index,
    load: Callable[[Index, Index, int], Expr],
    store: Callable[[Index, Index, Expr], None],
) -> None:
    """Move ``rows x columns`` elements: `load` reads neighbours of one row, `store` writes neighbours of one column.

    Args:
        load: takes a row, a column and the number of lanes.
        store: takes a row, a column and the elements of that column from the row on.
    """
    side = min(SIDE, f.machine.lanes)
    for row, height in f.tiles(rows, side):
        for column, width in f.tiles(columns, side):
            if height == width == side:
                square = transposed(f, [f.let(load(row + i, column, side)) for i in range(side)])
                for j, vector in enumerate(square):
                    store(row, column + j, vector)
                continue
            with f.loop(height) as i, f.loop(width) as j:
                at_row, at_column = f.name_index(row + i), f.name_index(column + j)
                store(at_row, at_column, load(at_row, at_column, 1))
