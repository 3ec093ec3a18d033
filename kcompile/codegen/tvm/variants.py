"""How kernels may depart from what the models of costs choose, for a search by measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Variant:
    """Departures of one group of nodes, each of which changes nothing but the order of sums and where they lie.

    Attributes:
        tile: which register tile, by modelled time.
        turned: panels of weights and rows of x take the other's place as the outer loop.
        sums: 3 x 3 windows are summed directly where the model prefers Winograd's products, or the reverse.
        halved: Winograd's blocks have half as many rows of tiles.
        apart: a pooling is a kernel of its own.
    """

    tile: int = 0
    turned: bool = False
    sums: bool = False
    halved: bool = False
    apart: bool = False

    def __str__(self) -> str:
        departures = {
            f"tile {self.tile + 1}": self.tile > 0,
            "loops exchanged": self.turned,
            "other sums": self.sums,
            "smaller units": self.halved,
            "pooling apart": self.apart,
        }
        return ", ".join(text for text, departs in departures.items() if departs)


ANALYTIC = Variant()
# What a search tries, the most promising first.
ALTERNATIVES = (
    *(Variant(tile=1), Variant(turned=True), Variant(sums=True), Variant(halved=True), Variant(apart=True)),
    *(Variant(tile=2), Variant(tile=1, turned=True), Variant(tile=1, sums=True), Variant(turned=True, sums=True)),
    *(Variant(tile=1, apart=True), Variant(turned=True, apart=True), Variant(sums=True, apart=True), Variant(tile=3)),
)

# The variants of groups of nodes, by the groups' numbers; the models choose for all others.
Variants: TypeAlias = Mapping[int, Variant]
MODELLED: Variants = {}
