"""How units and rows of a recurrent layer are cut: panels and tiles whose sums fit the registers."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from kcompile.codegen.tvm.targets import Machine
from kcompile.ir.dims import Dim

Cell: TypeAlias = Literal["simple", "lstm", "gru", "gru_reset_before"]

# Gates whose products with the last output are summed together, by phase of a step. The candidate of a GRU that resets
# before the product has to wait for the reset gate.
PHASES: dict[Cell, tuple[tuple[int, ...], ...]] = {
    "simple": ((0,),),
    "lstm": ((0, 1, 2, 3),),
    "gru": ((0, 1, 2),),
    "gru_reset_before": ((0, 1), (2,)),
}
_MOST_CELLS = 16
_MOST_ROWS = 8
# Multiply-adds that must be under way at once to hide their latency.
_IN_FLIGHT = 8
# Weights of at most so many elements are read again from the second-level cache in every step of every tile.
_CACHED_WEIGHTS = 1 << 16
_MOST_TILES = 4


@dataclass(frozen=True)
class Tiling:
    """How units and rows are cut.

    Attributes:
        lanes: units per vector; the last vector may reach beyond the units.
        panels: for each phase, the most cells that one row handles per pass.
        chains: for each phase, the sums per gate of one row, so that additions need not wait for each other.
        rows: rows of the batch that share the weights that are loaded.
        tiles: tiles of rows that use a panel one after another, while it is in the cache.
    """

    hidden: int
    lanes: int
    panels: tuple[int, ...]
    chains: tuple[int, ...]
    rows: int
    tiles: int

    @property
    def vectors(self) -> int:
        """Vectors of units."""
        return -(-self.hidden // self.lanes)

    @property
    def padded(self) -> int:
        """Units with those that fill the last vector."""
        return self.vectors * self.lanes

    def passes(self, phase: int) -> list[tuple[int, int]]:
        """``(first, cells)`` of each panel."""
        size = self.panels[phase]
        return [(first, min(size, self.vectors - first)) for first in range(0, self.vectors, size)]


def tiling(machine: Machine, cell: Cell, hidden: int, batch: Dim) -> Tiling:
    """Panels and row tiles whose sums fit the registers."""
    lanes = min(machine.lanes, 1 << (hidden - 1).bit_length())
    vectors = -(-hidden // lanes)
    panels = tuple(_panel(machine, len(gates), vectors) for gates in PHASES[cell])
    sums = [cells * len(gates) for cells, gates in zip(panels, PHASES[cell], strict=True)]
    chains = tuple(max(1, min(-(-_IN_FLIGHT // n), (machine.registers - 4) // n)) for n in sums)
    loaded = max(len(gates) * tile_cells(len(gates)) for gates in PHASES[cell])
    rows = min((machine.registers - 2 - loaded) // loaded, _MOST_ROWS)
    even = 1 << rows.bit_length() - 1
    if even * loaded >= _IN_FLIGHT:
        rows = even  # batches are multiples of powers of 2 as a rule, and leave no rest
    large = hidden * vectors * lanes * sum(map(len, PHASES[cell])) > _CACHED_WEIGHTS
    if isinstance(batch, int):
        rows = -(-batch // -(-batch // rows)) if batch else 1
    return Tiling(hidden, lanes, panels, chains, rows, _MOST_TILES if large else 1)


def _panel(machine: Machine, gates: int, vectors: int) -> int:
    """The cells of a panel: half of them all, so that one half is summed while the other's activations are computed."""
    fits = min((machine.registers - 4) // gates, _MOST_CELLS)
    cells = min(fits, max(-(-vectors // 2), -(-_IN_FLIGHT // 2 // gates)))
    return -(-vectors // -(-vectors // cells))


def tile_cells(gates: int) -> int:
    """Cells that a tile of several rows handles at once."""
    return max(1, 4 // gates)
