"""Winograd's F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3): matrices (Lavin and Gray 2015, arXiv:1509.09308), and the choice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.expr import Expr
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir.types import Array

# Elements of transformed tiles, per channel, that stay in the second-level cache while all filters use them.
_KEPT = 900
# Tiles of F(4 x 4, 3 x 3) below which its products of matrices are too small.
_FEWEST_LARGE_TILES = 12
# Bytes of its weights that are more than memory gives while they are used.
_MOST_LARGE_WEIGHTS = 4_000_000
# Channels below which the transforms cost more than they save.
_FEWEST_CHANNELS = 16
# Cycles for transforming a vector of an element of a tile's inputs, or sums.
_TRANSFORM = 2
# Bytes of weights that stay in the second-level cache, as a rule, and those that arrive per cycle from beyond it.
_CACHED = 1 << 20
_STREAM = 16

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Form:
    """``y = A ((G w G') * (B x B')) A'`` gives `step` x `step` results of a tile of `side` x `side` inputs."""

    inputs: Matrix  # B
    results: Matrix  # A
    weights: Matrix  # G

    @property
    def step(self) -> int:
        """Results per side of a tile."""
        return len(self.results)

    @property
    def side(self) -> int:
        """Inputs per side of a tile."""
        return len(self.inputs)

    @property
    def places(self) -> int:
        """Elements of a transformed tile."""
        return self.side**2

    def transformed(self, weights: Array) -> Array:
        """``[3, 3, C, F]`` as ``[side, side, C, F]``."""
        matrix = np.array(self.weights)
        return np.einsum("ai,bj,ijcf->abcf", matrix, matrix, weights.astype(np.float64)).astype(np.float32)


FORMS = {
    2: Form(
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
        ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    ),
    4: Form(
        (
            (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        (
            (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
        ),
    ),
}  # fmt: skip


def combined(f: Function, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
    """The matrix times a column of values."""
    return [f.let(_sum(row, values)) for row in matrix]


def _sum(row: Sequence[float], values: Sequence[Expr]) -> Expr:
    """The terms with ones first, so that each of the others is one multiply-add."""
    terms = sorted((abs(factor) != 1, factor < 0, i) for i, factor in enumerate(row) if factor)
    total: Expr | None = None
    for _, negative, i in terms:
        term = values[i] if abs(row[i]) == 1 else values[i] * abs(row[i])
        if total is None:
            total = -term if negative else term
        else:
            total = total - term if negative else total + term
    assert total is not None
    return total


def recovered(f: Function, elements: Sequence[Sequence[Expr]]) -> list[list[Expr]]:
    """The 3 x 3 weights of a tile transformed by F(2 x 2, 3 x 3), exact to rounding."""

    def column(u: Sequence[Expr]) -> list[Expr]:
        return [u[0], f.let(u[1] - u[2]), u[3]]

    lines = [column([row[j] for row in elements]) for j in range(4)]
    return [column([line[i] for line in lines]) for i in range(3)]


def step_for(
    machine: Machine,
    windows: Windows,
    groups: int,
    filters: int,
    dtype: str,
    largest: int = 2,
    speed: int = 1,
    at_any_cost: bool = False,
) -> int | None:
    """Results per side of the tiles that cost least, at most `largest`; None where the direct sum costs less.

    `at_any_cost` asks only whether there are such tiles.

    Products are made `speed` times as fast as in float32, of so many times smaller numbers.
    """
    sizes = (windows.size, windows.strides, windows.dilation)
    known = all(isinstance(extent, int) for extent in (*windows.spatial, *windows.out))
    if machine.lanes == 1 or machine.compact or machine.half_weights:
        return None  # where memory is scarce there is none for 16 weights instead of 9
    if sizes != ((3, 3), (1, 1), (1, 1)) or groups != 1 or dtype != "float32" or not known or not windows.low:
        return None
    height, width = (int(extent) for extent in windows.out)
    if min(windows.channels, filters) < _FEWEST_CHANNELS or max(windows.low) > 2 or not height or not width:
        return None
    taps = (3 * height - 2 * windows.low[0]) * (3 * width - 2 * windows.low[1])
    costs = {step: _cycles(machine, windows, filters, step, speed) for step in FORMS if step <= largest}
    best = min(costs, key=lambda step: costs[step])
    direct = taps * windows.channels * filters / (2 * machine.lanes * speed)
    return best if at_any_cost or costs[best] < 0.95 * direct else None


def _cycles(machine: Machine, windows: Windows, filters: int, step: int, speed: int) -> float:
    """Modelled cycles for an image."""
    height, width = (int(extent) for extent in windows.out)
    places, products = FORMS[step].places, windows.channels * filters
    tiles = -(-height // step) * -(-width // step)
    if step > 2 and (tiles < _FEWEST_LARGE_TILES or 4 * places * products > _MOST_LARGE_WEIGHTS):
        return math.inf
    transforms = tiles * places * (windows.channels + filters) / machine.lanes * _TRANSFORM
    streamed = 4 // speed * products * (places - 9) / _STREAM
    return tiles * places * products / (2 * machine.lanes * speed) + transforms + streamed


def rows_of(tiles: tuple[int, int], products: int, step: int = 2) -> int:
    """Rows of tiles in a block, for so many products of channels and filters.

    An image is cut in two, so that threads need not transform the same inputs, unless weights would be streamed twice.
    """
    count, kept = tiles[0] * tiles[1], _KEPT // FORMS[step].places
    cached = 4 * FORMS[step].places * products <= _CACHED
    blocks = max(round(count / kept), 2 if cached and count > kept // 2 else 1)
    return -(-tiles[0] // min(blocks, tiles[0]))


def transformed(weights: Array, step: int, columns: int) -> Array:
    """``[3, 3, C, F]`` as panels of `columns` filters, each ``[places, C, columns]``."""
    panels = (weights[..., first : first + columns] for first in range(0, weights.shape[-1], columns))
    return np.concatenate([FORMS[step].transformed(panel).ravel() for panel in panels])
