"""How a stage may depart from what the models of costs choose, for a search by measurement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Variant:
    """Departures of one stage, each of which changes nothing but the order of sums.

    Attributes:
        tile: which register tile, by modelled time.
        direct: 3 x 3 windows are summed one by one where Winograd's products cost less.
        turned: panels of weights and rows of x take the other's place as the outer loop.
        halved: Winograd's units have half as many rows of tiles.
    """

    tile: int = 0
    direct: bool = False
    turned: bool = False
    halved: bool = False


ANALYTIC = Variant()
# What a search tries, the most promising first.
ALTERNATIVES = (
    *(Variant(tile=1), Variant(turned=True), Variant(direct=True), Variant(halved=True)),
    *(Variant(tile=2), Variant(tile=1, turned=True), Variant(tile=1, direct=True)),
)

# The variant of each stage, by its number.
Variants: TypeAlias = Callable[[int], Variant]


def analytic(number: int) -> Variant:
    """What the models choose, for every stage."""
    del number
    return ANALYTIC
