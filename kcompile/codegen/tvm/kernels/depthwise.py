"""Depthwise convolutions: every channel by itself, so channels are the lanes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.epilogue import Epilogue, overwritable
from kcompile.codegen.tvm.expr import Expr, Index, constant, index
from kcompile.codegen.tvm.kernels.channelwise import ChannelwiseFunction
from kcompile.codegen.tvm.kernels.nest import whole_or_rest
from kcompile.codegen.tvm.kernels.shares import Costs, parallel_runs, vectors_between
from kcompile.codegen.tvm.kernels.tile import sum_dtype
from kcompile.codegen.tvm.plan import Plan
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.codegen.tvm.vector import Chain
from kcompile.codegen.tvm.windows import Piece, Row, Windows
from kcompile.ir.graph import Node, Value
from kcompile.ir.types import Array

# Of windows over an image's height and width with at most so many taps, tiles of results in several rows are made;
# without vectors of so many lanes, of fewer taps, since their code would be too long.
_MOST_TAPS, _MOST_TAPS_OF_NARROW = 25, 9
_WIDE = 8
# Taps whose weights stay in registers for a whole tile; of more, each line of x loads those that it needs.
_KEPT_TAPS = 9
# Rows and columns of those tiles, and what a search by measurement tries in their place.
PLANES = ((2, 4), (1, 8), (3, 4), (2, 6))


@dataclass(frozen=True)
class Depthwise(Kernel, family="depthwise"):
    """``y[n, o, c] = epilogue(sum over taps t of x[n, o * stride - low + t * rate, c] * w[t, c] + bias[c])``.

    Arguments: x ``[N, *spatial, C]``, w ``[*window, C]``, the bias ``[C]`` if `bias`, the epilogue's operands,
    y ``[N, *out, C]``. Taps outside the input are skipped.

    Attributes:
        plane: rows and columns of a tile's results, where tiles have several rows.
    """

    dtype: str
    windows: Windows
    bias: bool
    epilogue: Chain
    plane: tuple[int, int] = PLANES[0]

    @property
    def overwritable(self) -> tuple[int, ...]:
        return overwritable(self.epilogue, 2 + self.bias)

    def build(self, f: Function) -> None:
        (_PlaneFunction if _is_plane(f.machine, self.windows) else _DepthwiseFunction)(f, self).write()

    def source(self, f: Function) -> Pointer:
        """x, whose elements are read in `dtype`."""
        return f.pointer("x", self.dtype)

    def ending(self, f: Function) -> Callable[[Expr, Sequence[Index]], Expr]:
        """What makes of a sum what is stored."""
        return Epilogue(f, self.epilogue)


def plane_of(plan: Plan, windows: Windows) -> tuple[int, int]:
    """Rows and columns of the tiles of the kernel that comes next."""
    return PLANES[min(plan.variant.tile, len(PLANES) - 1) if _is_plane(plan.machine, windows) else 0]


def _is_plane(machine: Machine, windows: Windows) -> bool:
    """Whether images, their padding and a small window are known, so that all taps can be written out."""
    most_taps = _MOST_TAPS if machine.lanes >= _WIDE else _MOST_TAPS_OF_NARROW
    known = all(isinstance(extent, int) for extent in (*windows.spatial, *windows.out)) and windows.low is not None
    return not machine.compact and known and len(windows.size) == 2 and windows.size[0] * windows.size[1] <= most_taps


class _DepthwiseFunction(ChannelwiseFunction):
    def __init__(self, f: Function, spec: Depthwise) -> None:
        self._spec = spec
        x = spec.source(f)
        self._w = f.pointer("w", spec.dtype)
        self._bias = f.pointer("bias", spec.dtype) if spec.bias else None
        epilogue = spec.ending(f)
        y = f.pointer("y", spec.epilogue.result.dtype)
        super().__init__(f, spec.windows, sum_dtype(spec.dtype), x, y, epilogue)

    def start(self, c: Index, lanes: int) -> Expr:
        return self._bias.load(c, lanes).cast(self._dtype) if self._bias else constant(0, self._dtype)

    def line_of(self, taps: Sequence[Index], c: Index) -> Index:
        spec = self._windows
        number: Index = 0
        for tap, size in zip(taps, spec.size, strict=False):
            number = number * size + tap
        return self._f.name_index(number * (spec.size[-1] * spec.channels) + c)

    def weight(self, offset: Index, lanes: int) -> Expr:
        return self._f.let(self._w.load(offset, lanes).cast(self._dtype))

    def add(self, sums: Accumulators, i: int, x: Expr, weight: Expr | None) -> None:
        assert weight is not None
        sums.add(i, x * weight)


class _PlaneFunction(_DepthwiseFunction):
    """Tiles of results in neighbouring rows and columns: each element is loaded once and used by all that see it."""

    def write(self) -> None:
        """Threads share bands of rows of results, and the channels of a band."""
        f, windows, spec = self._f, self._open, self._windows
        rows, columns = self._spec.plane
        row = Row(f, windows, spec, columns)
        height, vectors = int(spec.out[0]), len(split(spec.channels, f.machine.lanes))
        bands, costs = -(-height // rows), Costs.of_pieces(windows.batch, height, rows, vectors)
        with parallel_runs(f, windows.batch * bands, vectors, costs) as (number, *share):
            n, band = f.unravel(number, [windows.batch, bands])
            top = f.name_index(band * rows)
            for count in whole_or_rest(f, band, height, rows):
                inside = self._inside(top, count)
                for piece in row.pieces():
                    for c, lanes in vectors_between(f, spec.channels, *share):
                        self._write_tile(n, top, inside, piece, c, lanes)

    def _inside(self, top: Index, count: int) -> dict[int, tuple[list[tuple[int, int]], Expr | None]]:
        """By line of x, counted from the first result's tap 0: ``(row, tap)`` of its uses, and whether it exists."""
        spec = self._windows
        lines: dict[int, list[tuple[int, int]]] = {}
        for row in range(count):
            for tap in range(spec.size[0]):
                lines.setdefault(row * spec.strides[0] + tap * spec.dilation[0], []).append((row, tap))
        if spec.inside(0):
            return {line: (uses, None) for line, uses in lines.items()}
        first = self._f.name_index(top * spec.strides[0] - self._open.low[0])
        extent = int(spec.spatial[0])
        exists = {line: (index(first) >= -line) & (index(first) < extent - line) for line in lines}
        return {line: (uses, self._f.let(exists[line])) for line, uses in lines.items()}

    def _write_tile(
        self,
        n: Index,
        top: Index,
        inside: dict[int, tuple[list[tuple[int, int]], Expr | None]],
        piece: Piece,
        c: Index,
        lanes: int,
    ) -> None:
        f, spec, windows = self._f, self._windows, self._open
        rows = max(row for uses, _ in inside.values() for row, _ in uses) + 1
        sums = f.accumulators(rows * piece.count, lanes, self._dtype)
        start = self.start(c, lanes)
        for i in range(rows * piece.count):
            sums[i] = start
        left = (piece.start * spec.strides[1] - windows.low[1]) * spec.channels
        origin = f.name_index(windows.origin(n, [top, 0]) + windows.low[1] * spec.channels + left + c)
        taps = range(spec.size[0] * spec.size[1])
        few = len(taps) <= _KEPT_TAPS
        kept = {tap: self.weight(c + tap * spec.channels, lanes) for tap in taps} if few else {}
        for line, (uses, exists) in sorted(inside.items()):
            with nullcontext() if exists is None else f.when(exists):
                of_line = [row * spec.size[1] + i for _, row in uses for i in range(spec.size[1])]
                weights = kept or {tap: self.weight(c + tap * spec.channels, lanes) for tap in of_line}
                self._add_line(sums, piece, f.name_index(origin + line * windows.strides[0]), uses, weights, lanes)
        width = int(spec.out[1])
        for i in range(rows):
            at = f.name_index((n * int(spec.out[0]) + top + i) * (width * spec.channels))
            for j in range(piece.count):
                value = self._epilogue(sums[i * piece.count + j], [n, top + i, piece.start + j, c])
                self._y.store(at + (piece.start + j) * spec.channels + c, value)

    def _add_line(
        self,
        sums: Accumulators,
        piece: Piece,
        at: Index,
        uses: Sequence[tuple[int, int]],
        weights: Mapping[int, Expr],
        lanes: int,
    ) -> None:
        """Add what one line of x gives to the results of every row that sees it."""
        spec = self._windows
        width = spec.size[1]
        everything = (tuple(range(piece.count)),) * width
        columns: dict[int, list[tuple[int, int]]] = {}
        for tap, results in enumerate(piece.inside or everything):
            for i in results:
                columns.setdefault(i * spec.strides[1] + tap * spec.dilation[1], []).append((i, tap))
        for column in sorted(columns):
            x = self._load(at + column * spec.channels, lanes)
            for row, line in uses:
                for i, tap in columns[column]:
                    sums.add(row * piece.count + i, x * weights[line * width + tap])


def emit_depthwise(plan: Plan, node: Node, windows: Windows, weights: Array, bias: Value | None) -> None:
    """Weights are ``[*window, 1, C]``."""
    x = node.inputs[0]
    tail = plan.tail(node)
    spec = Depthwise(x.type.dtype, windows, bias is not None, tail.chain, plane_of(plan, windows))
    plan.emit(spec, x, weights, *([bias] if bias else []), *tail.operands, tail.result)
