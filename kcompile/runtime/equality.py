"""Extents that must be equal: whether values of a model's symbols make them so, and which ones near them would."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from kcompile.ir import dims
from kcompile.ir.dims import Dim

# How far from an extent another is looked for.
_FAR = 1024


@dataclass(frozen=True)
class Equality:
    """Two extents that must be equal, for the Keras layer `layer` to do what it does."""

    left: Dim
    right: Dim
    layer: str = ""

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that decide."""
        return dims.symbols(self.left, self.right)

    def gap(self, bindings: Mapping[str, Dim]) -> Dim:
        """By how much the extents differ where the symbols have these values."""
        return dims.sub(dims.substitute(self.left, bindings), dims.substitute(self.right, bindings))

    def fails(self, bindings: Mapping[str, Dim]) -> bool:
        """Whether the extents differ whatever the symbols are that have no value yet."""
        gap = self.gap(bindings)
        return isinstance(gap, int) and gap != 0


def unmet(laws: Sequence[Equality], bindings: Mapping[str, Dim]) -> list[str]:
    """What is wrong with these values of symbols, and at the end which ones near them would do."""
    failed = [law for law in laws if law.fails(bindings)]
    known = {name: value for name, value in bindings.items() if isinstance(value, int)}
    texts = [f"extents must be such that {law.left} is {law.right}{_place(law)}" for law in failed]
    concerned = sorted(dims.symbols(*(dim for law in failed for dim in (law.left, law.right))) & set(known))
    received = ", ".join(f"{symbol}={known[symbol]}" for symbol in concerned)
    advice = [_advice([law for law in laws if symbol in law.symbols], symbol, known) for symbol in concerned]
    return [*texts[:-1], " ".join([f"{texts[-1]}. Received: {received}.", *advice]).rstrip()] if failed else []


def _place(law: Equality) -> str:
    return f" in layer `{law.layer}`" if law.layer else ""


def _advice(laws: Sequence[Equality], symbol: str, bindings: Mapping[str, int]) -> str:
    """The values next to a symbol's own for which `laws` hold, in a sentence; nothing where the own one is right."""
    found = sorted(islice(_fitting_values(laws, symbol, bindings), 2 * _FAR))
    below = [value for value in found if value < bindings[symbol]][-1:]
    above = [value for value in found if value > bindings[symbol]][:1]
    near = " or ".join(map(str, below + above))
    return f"Make {symbol} {near}." if near and bindings[symbol] not in found else ""


def fitted(laws: Sequence[Equality], wanted: Mapping[str, int], floors: Mapping[str, int]) -> dict[str, int]:
    """Values for the symbols for which `laws` hold, as near to those `wanted` as can be found, none below `floors`."""
    values = dict(wanted)
    for symbol in sorted(dims.symbols(*(dim for law in laws for dim in (law.left, law.right)))):
        concerned = [law for law in laws if symbol in law.symbols]
        if symbol in values and any(law.fails(values) for law in concerned):
            found = (v for v in _fitting_values(concerned, symbol, values) if v >= floors.get(symbol, 1))
            values[symbol] = next(found, values[symbol])
    return values


def _fitting_values(laws: Iterable[Equality], symbol: str, bindings: Mapping[str, int]) -> Iterator[int]:
    """Values of `symbol` for which all `laws` hold, the other symbols bound: from its own upwards, then downwards."""
    start = bindings[symbol]
    others = {name: value for name, value in bindings.items() if name != symbol}
    gaps = [law.gap(others) for law in laws]
    far = (dims.solve(dim, symbol, 0) for dim in gaps if isinstance(dim, str))
    near = chain(range(start, start + _FAR), range(start - 1, max(start - _FAR, 0), -1))
    candidates = chain(near, (value for value in far if value))
    return (value for value in candidates if all(dims.substitute(dim, {symbol: value}) == 0 for dim in gaps))
