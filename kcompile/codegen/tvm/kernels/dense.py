"""Products of rows with a matrix of weights: dense layers, and convolutions that see one pixel at a time."""

from dataclasses import dataclass

from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Index, index_min
from kcompile.codegen.tvm.kernels.elementwise import regroup
from kcompile.codegen.tvm.kernels.matmul import MatMul
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.kernels.scaled import ScaledPanels
from kcompile.codegen.tvm.kernels.shares import Costs, parallel, parallel_regions, parallel_runs
from kcompile.codegen.tvm.kernels.tile import (
    LINE,
    Block,
    Panel,
    Panels,
    Rows,
    Tile,
    ahead,
    block,
    choose,
    pack,
    row_pieces,
    streamed,
)
from kcompile.codegen.tvm.plan import TVM, Argument, Packed, Plan, Tail, Temporary, Upcoming
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import Chain
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node, Value
from kcompile.ir.passes.matching import constant_array
from kcompile.ir.types import Array, TensorType, dtype_of

# Weights of at most this many bytes stay in the second-level cache, so that each row tile may run through all of them.
_SMALL_WEIGHTS = 64_000
# Rows of one element of the batch from which they are tiled for themselves.
_ENOUGH_ROWS = 16
# Bytes of weights that stay in the second-level cache beside the rows of an image.
_CACHED_WEIGHTS = 512_000
# Bytes of weights up to which their kernels have time to fetch those of later kernels, too.
_BUSY_WEIGHTS = 1_000_000
# Row tiles that are enough to share among threads.
_MANY_TILES = 8


@dataclass(frozen=True)
class Matrix(Kernel, family="matrix"):
    """``y[o, r, :] = epilogue(x[o, r, :] @ w + bias)``.

    Arguments: x ``[outer, rows, K]``, w packed, the bias ``[M]`` if `bias`, the epilogue's operands,
    y ``[outer, rows, M]``, the weights to fetch if `fetched`. The epilogue's result has these three axes.

    Attributes:
        fetched: cache lines of later stages' weights to fetch meanwhile, one per step of a tile's sum.
        chains: the fewest parts of a sum.
        own: whether each of the outer ones has a w of its own, one after another.
    """

    dtype: str
    outer: Dim
    rows: Dim
    length: int
    columns: int
    tile: tuple[int, int]
    grid: bool
    bias: bool
    epilogue: Chain
    fetched: int = 0
    chains: int = 1
    own: bool = False

    @property
    def overwritable(self) -> tuple[int, ...]:
        return overwritable(self.epilogue, 2 + self.bias)

    def build(self, f: Function) -> None:
        _MatrixFunction(f, self).write()


class _MatrixFunction:
    def __init__(self, f: Function, spec: Matrix) -> None:
        self._f = f
        self._spec = spec
        self._x = f.pointer("x", spec.dtype)
        self._w = f.pointer("w", spec.dtype)
        self._bias = f.pointer("bias", spec.dtype) if spec.bias else None
        self._epilogue = Epilogue(f, spec.epilogue)
        self._y = f.pointer("y", spec.epilogue.result.dtype)
        self._upcoming = f.pointer("upcoming") if spec.fetched else None
        self._outer, self._rows = f.extent(spec.outer), f.extent(spec.rows)
        panels, narrow = divmod(spec.columns, spec.tile[1])
        self._panels = Panels(panels, block(spec.tile[1], f.machine.lanes), block(narrow, f.machine.lanes))

    def write(self) -> None:
        """Threads share tiles: rows of them, unless the weights are so many that columns are better."""
        tiles = self._f.name_index((self._rows + (self._spec.tile[0] - 1)) // self._spec.tile[0])
        cached = self._spec.length * self._spec.columns * 4 <= _CACHED_WEIGHTS
        if not self._spec.grid:
            self._row_after_row(tiles)
        elif cached and self._f.shared:
            self._image_after_image(tiles)
        else:  # the shortest code, too
            self._panel_after_panel(tiles)

    def _row_after_row(self, tiles: Index) -> None:
        """All panels for a row tile."""
        f, count, size = self._f, self._panels.count, self._spec.tile[0]
        costs = Costs.of_pieces(self._outer, self._rows, size, count) if isinstance(self._rows, int) else None
        with parallel_runs(f, product([self._outer, tiles]), count, costs) as (row, *share):
            outer, tile = f.unravel(row, [self._outer, tiles])
            for panel, columns in self._panels.between(f, *share):
                self._row_tile(outer, tile, panel, columns, row * count + panel)

    def _image_after_image(self, tiles: Index) -> None:
        """All row tiles of an image, which stays in the cache as the weights do, for a panel."""
        f, panels = self._f, self._panels
        costs = panels.costs(product([self._outer, tiles]), 1)
        with parallel_regions(f, self._outer, tiles, panels.count, costs) as (outer, region):
            for panel, columns in panels.all(f):
                first, end = region(panel)
                with f.loop(end - first) as use:
                    tile = f.variable(first + use)
                    number = (outer * tiles + tile) * panels.count + panel
                    self._row_tile(outer, tile, panel, columns, number, use)

    def _panel_after_panel(self, tiles: Index) -> None:
        """All row tiles of all images for a panel."""
        f, panels = self._f, self._panels
        extents = [panels.count, self._outer, tiles]
        with parallel(f, panels.costs(1, product(extents[1:]))) as unit:
            panel, outer, tile = f.unravel(unit, extents)
            for columns in panels.one(f, panel):
                self._row_tile(outer, tile, panel, columns, unit, tile)

    def _row_tile(
        self, outer: Index, tile: Index, panel: Index, columns: Block, number: Index, use: Index | None = None
    ) -> None:
        for start, rows in row_pieces(self._f, tile, self._rows, self._spec.tile[0]):
            weights = self._panel(outer, panel, columns, number, use)
            self._tile(outer, start, rows, panel, columns, weights)

    def _panel(self, outer: Index, panel: Index, columns: Block, number: Index, use: Index | None = None) -> Panel:
        """A panel for the tile numbered `number`, which is number `use` of those that read it one after another."""
        f, spec = self._f, self._spec
        size, count = spec.length * spec.tile[1], self._panels.count
        at = f.name_index(panel * size + (outer * (spec.length * spec.columns) if spec.own else 0))
        following = None if use is None else ahead(use, spec.length, size, count, at)
        upcoming = None
        if self._upcoming:
            # Images after the first come to nothing new.
            fetched = index_min(number, spec.fetched // spec.length - 1) * (spec.length * LINE)
            upcoming = (self._upcoming, f.name_index(fetched))
        return Panel(self._w, at, columns.columns, following, streamed(size, count), upcoming)

    def _tile(self, outer: Index, start: Index, count: int, panel: Index, columns: Block, weights: Panel) -> None:
        f, spec = self._f, self._spec
        row = f.name_index(outer * self._rows + start)
        first = panel * spec.tile[1]
        tile = Tile(f, count, columns, spec.dtype, spec.length, chains=spec.chains)
        tile.start(self._bias, first)
        tile.multiply(Rows(self._x, f.name_index(row * spec.length), spec.length), weights, spec.length)

        def position(i: Index, column: Index) -> list[Index]:
            return [outer, start + i, first + column]

        tile.store(self._y, f.name_index(row * spec.columns + first), spec.columns, self._epilogue, position)


@TVM.register(ops.Dense)
def dense(plan: Plan, node: Node) -> None:
    """``x @ kernel + bias``."""
    x, kernel, *bias = node.inputs
    if kernel.constant is None:
        emit_product(plan, node)
    else:
        emit_matrix(plan, node, outer_axes_of(x.type.shape[:-1]), kernel.constant, bias[0] if bias else None)


def outer_axes_of(lead: Shape) -> int:
    """The fewest leading axes behind which enough rows, of a known number, are left to fill tiles; 0 if there are none.

    Tiles then fit those rows, whatever the batch.
    """
    rows = [dims.mul(*lead[axis:]) for axis in range(len(lead))]
    return next((axis for axis, count in enumerate(rows) if isinstance(count, int) and count >= _ENOUGH_ROWS), 0)


@TVM.register(ops.MatMul)
def matmul(plan: Plan, node: Node) -> None:
    """Matrices that the model computes."""
    emit_product(plan, node)


def emit_product(plan: Plan, node: Node) -> None:
    """The product of the first two operands, and the sum with a third, which is a bias."""
    x, y, *bias = node.inputs
    tail = plan.tail(node)
    chain, operands = tail.chain, tail.operands
    if bias:
        chain, operands = chain.after_sum(bias[0].type), (*operands, bias[0])
    plan.emit(MatMul(x.type.dtype, x.type.shape, y.type.shape, chain), x, y, *operands, tail.result)


def tail_of_rows(plan: Plan, node: Node, outer_axes: int) -> tuple[Tail, Chain]:
    """What follows a matrix product, and its chain with three axes: images, rows, columns.

    A chain that cannot be seen so is left to a kernel of its own.
    """
    result = node.outputs[0].type
    ends = [outer_axes, result.rank - 1, result.rank]
    tail = plan.tail(node)
    chain = regroup(tail.chain, ends)
    if chain is None:
        plan.tails[node] = tail
        tail = Tail(Chain((result,), result), (), node.outputs[0])
        chain = regroup(tail.chain, ends)
        assert chain
    return tail, chain


def emit_matrix(plan: Plan, node: Node, outer_axes: int, matrix: Array, bias: Value | None) -> None:
    """Rows of the first operand times `matrix`; the result has `outer_axes` axes of images, then rows, then columns."""
    (x, gates), (length, columns) = plan.scaled.get(node.inputs[0], (node.inputs[0], None)), matrix.shape
    tail, chain = tail_of_rows(plan, node, outer_axes)
    outer, rows, _ = chain.result.shape
    known, variant = rows if isinstance(rows, int) else None, plan.variant
    tile = choose(plan.machine, known, columns, length * x.type.itemsize, length, rank=variant.tile)
    small = length * columns * x.type.itemsize <= _SMALL_WEIGHTS
    grid = (not (small and known and known >= _MANY_TILES * tile[0])) != variant.turned
    # Tiles of several rows have time to fetch what comes after.
    fetched = 0
    if known and known > 1 and plan.fetches and length * columns * x.type.itemsize <= _BUSY_WEIGHTS:
        fetched = -(-known // tile[0]) * -(-columns // tile[1]) * length
    own, biased = gates is not None, bias is not None
    kernel = Matrix(x.type.dtype, outer, rows, length, columns, tile, grid, biased, chain, fetched, own=own)
    packed: Argument = Packed(TensorType(dtype_of(matrix), (matrix.size,)), lambda: pack(matrix, tile[1]))
    if gates:
        scaled = Temporary(TensorType("float32", (outer, matrix.size)))
        plan.emit(ScaledPanels(outer, length, columns, tile[1]), packed, gates, scaled)
        packed = scaled
    weights = [packed, *([bias] if bias else [])]
    upcoming = [Upcoming(fetched)] if fetched else []
    plan.emit(kernel, x, *weights, *tail.operands, tail.result, *upcoming)


def constant_of(value: Value, node: Node) -> Array:
    """The array of an operand that has to be known at compile time.

    Raises:
        UnsupportedOp: it is computed by the model.
    """
    array = constant_array(value)
    if array is None:
        raise UnsupportedOp(
            f"target 'tvm' needs weights that are known at compile time. Received: a computed operand of "
            f"`{node.op.op_name}` at {node.source or 'the graph itself'}."
        )
    return array
