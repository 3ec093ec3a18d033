"""What values that no query of a tile sees still do to its results."""

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.expr import Index, constant
from kcompile.codegen.tvm.tir import Function

# Values whose additions need not wait for each other.
_CHAINS = 8


def times_zero(f: Function, values: Pointer, at: Index, line: Index, count: Index, depth: int) -> Pointer:
    """``0 * sum of count rows``, an array ``[depth]`` on the stack: 0, or NaN where one is infinite or NaN.

    That is what weights of 0 make of values, which need not be multiplied with them one query at a time. The rows lie
    `line` apart in `values`, the first at `at`.
    """
    result = f.stack(depth)
    for element, lanes in f.vectors(depth):
        sums = f.accumulators(_CHAINS, lanes)
        for chain in range(_CHAINS):
            sums[chain] = constant(0, "float32")
        for first, rows in f.tiles(count, _CHAINS):
            for row in range(rows):
                place = f.name_index(at + (first + row) * line)
                sums.add(row, values.load(place + element, lanes) * 0.0)
        total = sums[0]
        for chain in range(1, _CHAINS):
            total = f.let(total + sums[chain])
        result.store(element, total)
    return result
