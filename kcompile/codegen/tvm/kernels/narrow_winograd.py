"""Winograd's convolutions in bfloat16: transformed inputs and weights are rounded, everything else is float32.

A transformed input is a sum of four elements, and is rounded once more than these were: results are off by about twice
what the direct convolution in bfloat16 is off by (ResNet50: 2.4e-3 of the largest probability instead of 1.0e-3).
"""

from dataclasses import dataclass

from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.narrow_depthwise import Widened
from kcompile.codegen.tvm.kernels.narrow_tile import Factors, NarrowTile, fetched, pack_words
from kcompile.codegen.tvm.kernels.tile import Block, Panel, Rows, row_pieces
from kcompile.codegen.tvm.kernels.winograd import Winograd, WinogradFunction, place_of
from kcompile.codegen.tvm.kernels.winograd_form import FORMS, step_for
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir.ops.quantization import bfloat16_bits
from kcompile.ir.types import Array, TensorType

_FACTORS = Factors("uint16", "uint16", "float32", 2)
_FORM = FORMS[2]


@dataclass(frozen=True)
class NarrowWinograd(Winograd, family="narrow_winograd"):
    """A `Winograd` of bfloat16: x and w hold its bits, and `transformed`, another scratch, follows `scratch`."""

    def build(self, f: Function) -> None:
        _NarrowWinogradFunction(f, self).write()

    @property
    def scratch(self) -> TensorType:
        """The sums of a unit for one panel of filters."""
        return TensorType("float32", (_FORM.places * place_of(self.rows * self.tiles[1], self.tile[1]),))

    @property
    def transformed(self) -> TensorType:
        """The transformed inputs of a unit."""
        return TensorType("uint16", (_FORM.places * place_of(self.rows * self.tiles[1], self.windows.channels),))


class _NarrowWinogradFunction(WinogradFunction):
    def _declare_factors(self, f: Function) -> None:
        self._x = Widened(f, f.pointer("x", "uint16"))
        self._w = f.pointer("w", "uint16")

    def _declare_scratch(self, f: Function) -> None:
        self._scratch = f.pointer("scratch")
        self._transformed = f.pointer("transformed", "uint16")
        self._inputs = Widened(f, self._transformed)

    @property
    def _guards(self) -> bool:
        return False

    def _sums(self, tiles: int) -> int:
        return 0

    def _multiply(self, tiles: int, panel: Index, columns: Block) -> None:
        f, channels = self._f, self._channels
        size = self._spec.tile[0]
        padded, line = _FACTORS.padded(channels), _FACTORS.line(columns)
        whole = _FORM.places * padded * _FACTORS.line(self._panels.wide)
        with f.loop(_FORM.places) as place, f.loop(-(-tiles // size)) as number:
            weights = f.name_index(panel * whole + place * (padded * line))
            for start, count in row_pieces(f, number, tiles, size):
                tile = NarrowTile(f, count, columns, _FACTORS)
                tile.start(None, 0)
                begin = f.name_index(place * place_of(tiles, channels) + start * channels)
                panels = self._panels.count * _FORM.places
                following = fetched(number, padded // 2, padded * line, panels, weights, _FACTORS)
                rows = Rows(self._transformed, begin, channels)
                tile.multiply(rows, Panel(self._w, weights, line, following), channels)
                at = f.name_index(place * place_of(tiles, columns.columns) + start * columns.columns)
                tile.store(self._scratch, at, columns.columns, self._plain, lambda row, column: [row, column])


def bfloat16_pays(machine: Machine, windows: Windows, groups: int, filters: int) -> bool:
    """Whether it does where two products are made in the time of one."""
    if "+avx512bf16" not in machine.features:
        return False
    return step_for(machine, windows, groups, filters, "float32", speed=2) is not None


def transformed_words(weights: Array, panels: list[Block]) -> Array:
    """``[3, 3, C, F]`` of float32 as panels of filters, each ``[16, C / 2, columns, 2]`` of bfloat16."""
    exact = _FORM.transformed(weights)
    return pack_words(bfloat16_bits(exact).reshape(_FORM.places, weights.shape[2], -1), panels, _FACTORS)
