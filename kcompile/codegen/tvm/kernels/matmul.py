"""Products of two computed matrices, over leading axes that broadcast."""

from collections.abc import Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm.epilogue import Epilogue, overwritable, strides
from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.kernels.tile import Panel, Rows, Tile, block, choose, row_pieces
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.ir.dims import Shape


@dataclass(frozen=True)
class MatMul(Kernel, family="matmul"):
    """``z = epilogue(x @ y)``.

    Arguments: x ``[…, M, K]``, y ``[…, K, P]``, the epilogue's operands, z ``[…, M, P]``.
    """

    dtype: str
    x: Shape
    y: Shape
    epilogue: Chain

    @property
    def overwritable(self) -> tuple[int, ...]:
        return overwritable(self.epilogue, 2)

    def build(self, f: Function) -> None:
        x, y = f.pointer("x", self.dtype), f.pointer("y", self.dtype)
        epilogue = Epilogue(f, self.epilogue)
        z = f.pointer("z", self.epilogue.result.dtype)
        shape = self.epilogue.result.shape
        extents = [f.extent(dim) for dim in shape]
        lead, rows, columns, length = extents[:-2], extents[-2], extents[-1], f.extent(self.x[-1])
        steps = [self._steps(f, operand, len(shape)) for operand in (self.x, self.y)]
        known = (dim if isinstance(dim, int) else None for dim in shape[-2:])
        size, width = choose(f.machine, *(n or 1024 for n in known))
        tiles = f.name_index((rows + (size - 1)) // size)
        with f.parallel(product([*lead, tiles])) as unit:
            *at, tile = f.unravel(unit, [*lead, tiles])
            x_at, y_at = (f.name_index(_offset(at, step)) for step in steps)
            number: Index = 0
            for i, extent in zip(at, lead, strict=True):
                number = number * extent + i
            for start, count in row_pieces(f, tile, rows, size):
                for column, part in f.tiles(columns, width):
                    sums = Tile(f, count, block(part, f.machine.lanes), self.dtype, length)
                    sums.start(None, 0)
                    sums.multiply(
                        Rows(x, f.name_index(x_at + start * length), length),
                        Panel(y, f.name_index(y_at + column), columns),
                        length,
                    )
                    here = [*at, start, column]
                    offset = f.name_index((number * rows + start) * columns + column)
                    sums.store(
                        z, offset, columns, epilogue, lambda i, c, here=here: [*here[:-2], here[-2] + i, here[-1] + c]
                    )

    @staticmethod
    def _steps(f: Function, operand: Shape, rank: int) -> list[Index]:
        """Distances between neighbours along the result's leading axes; 0 where the operand is stretched."""
        shape = (1,) * (rank - len(operand)) + operand
        return [0 if dim == 1 else f.extent(step) for dim, step in zip(shape[:-2], strides(shape), strict=False)]


def _offset(at: Sequence[Index], steps: Sequence[Index]) -> Index:
    offset: Index = 0
    for i, step in zip(at, steps, strict=True):
        offset = i * step + offset if not isinstance(step, int) or step else offset
    return offset
