"""Hyper-parameters in Keras Tuner's words: what a build function declares, and the values that it gets."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kcompile.errors import ModelError

Plain = str | int | float | bool
# Declared names and values on which another hyper-parameter depends.
Conditions = tuple[tuple[str, tuple[Plain, ...]], ...]


class SpaceError(ModelError):
    """A hyper-parameter is declared wrongly; no other trial would do better."""


@dataclass(frozen=True)
class Entry:
    """A declared hyper-parameter.

    A draw is what a search stores: a number in a range or, where the values are listed, the place in the list.

    Attributes:
        values: all that are possible, where they are listed.
        conditions: under which it is active.
    """

    kind: ClassVar[str] = "Fixed"

    name: str
    default: Any = None
    values: tuple[Plain, ...] = ()
    conditions: Conditions = ()

    @property
    def key(self) -> str:
        """The name, with the conditions where there are some: under others it may mean something else."""
        parts = [f"{name}={'|'.join(map(str, values))}" for name, values in self.conditions]
        return f"{self.name}[{','.join(parts)}]" if parts else self.name

    @property
    def drawn(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) > 1

    @property
    def ordered(self) -> bool:
        """Whether neighbours in `values` are alike."""
        return False

    def value(self, draw: Any) -> Any:
        """The value that a draw stands for."""
        return self.values[draw]

    def range(self) -> tuple[Any, Any, Any, bool]:
        """The least and largest draw, their step, None for any, and whether draws are spread over their logarithms."""
        return 0, len(self.values) - 1, 1, False

    def describe(self) -> str:
        """The entry as a text."""
        return f"{self.kind}({', '.join(map(repr, self.values))})"

    def require(self, law: bool, expected: str, received: object) -> None:
        """Raise a SpaceError unless `law` holds."""
        if not law:
            raise SpaceError(
                f"hyper-parameter `{self.name}` ({self.kind}) must have {expected}. Received: {received!r}."
            )


@dataclass(frozen=True)
class Listed(Entry):
    """One of several values."""

    kind: ClassVar[str] = "Choice"

    is_ordered: bool = False

    def __post_init__(self) -> None:
        kinds = {type(value) for value in self.values}
        alike = len(kinds) == 1 and kinds <= {str, int, float, bool}
        self.require(alike, "at least one value, all texts, integers, floats or booleans", list(self.values))
        self.require(len(set(self.values)) == len(self.values), "different values", list(self.values))
        self.require(self.default in self.values, f"one of its values {list(self.values)} as default", self.default)

    @property
    def ordered(self) -> bool:
        return self.is_ordered


@dataclass(frozen=True)
class Boolean(Listed):
    """False or True."""

    kind: ClassVar[str] = "Boolean"

    def describe(self) -> str:
        return "Boolean()"


@dataclass(frozen=True)
class Number(Entry):
    """A number of a range, its ends included.

    Attributes:
        step: between values; of a logarithmic range their ratio; None for every value.
        sampling: "linear", "log" (small values are as likely as large ones) or "reverse_log" (the other way round).
    """

    least: Any = 0
    most: Any = 0
    step: Any = None
    sampling: str = "linear"

    def __post_init__(self) -> None:
        number = int if self.kind == "Int" else (int, float)
        given = {"min_value": self.least, "max_value": self.most, **({} if self.step is None else {"step": self.step})}
        for argument, value in given.items():
            fits = isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
            self.require(fits, f"{'an integer' if self.kind == 'Int' else 'a number'} as {argument}", value)
        self.require(self.least <= self.most, "min_value <= max_value", (self.least, self.most))
        ways = ("linear", "log", "reverse_log")
        self.require(self.sampling in ways, 'sampling "linear", "log" or "reverse_log"', self.sampling)
        linear = self.sampling == "linear"
        self.require(linear or self.least > 0, "min_value > 0 to be sampled by logarithm", self.least)
        smallest = 0 if linear else 1
        self.require(self.step is None or self.step > smallest, f"a step above {smallest}", self.step)
        self.require(self.least <= self.default <= self.most, "a default in its range", self.default)
        if self.step is not None and not linear:
            object.__setattr__(self, "values", tuple(self._powers()))

    def _powers(self) -> list[Any]:
        found = [self.least]
        while found[-1] * self.step <= self.most * (1 + 1e-12):
            found.append(found[-1] * self.step)
        if self.sampling == "reverse_log":
            return [self.most + self.least - value for value in reversed(found)]
        return found

    @property
    def drawn(self) -> bool:
        return self.least < self.most

    @property
    def ordered(self) -> bool:
        return True

    def value(self, draw: Any) -> Any:
        if self.values:
            return self.values[draw]
        return self.most + self.least - draw if self.sampling == "reverse_log" else draw

    def range(self) -> tuple[Any, Any, Any, bool]:
        if self.values:
            return super().range()
        step = self.step or (1 if self.kind == "Int" and self.sampling == "linear" else None)
        most = self.most
        if self.step is not None:
            most = self.least + int((self.most - self.least) / self.step * (1 + 1e-12)) * self.step
        return self.least, most, step, self.sampling != "linear"

    def describe(self) -> str:
        step = f", step {self.step}" if self.step is not None else ""
        return (
            f"{self.kind}({self.least} to {self.most}{step}{'' if self.sampling == 'linear' else f', {self.sampling}'})"
        )


@dataclass(frozen=True)
class Int(Number):
    """An integer."""

    kind: ClassVar[str] = "Int"


@dataclass(frozen=True)
class Float(Number):
    """A number."""

    kind: ClassVar[str] = "Float"


class HyperParameters:
    """What a build function asks for its hyper-parameters.

        units = hp.Int("units", 16, 128, step=16)
        rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
        kind = hp.Choice("kind", ["cnn", "mlp"])
        with hp.conditional_scope("kind", ["cnn"]):
            filters = hp.Int("filters", 8, 32)  # None unless the kind is "cnn"

    Attributes:
        space: all entries that were declared, by their keys.
        values: those of active entries, by name.

    Raises:
        SpaceError: an entry is declared wrongly, or in two ways.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        draw: Callable[[Entry], Any] | None = None,
        replaced: "HyperParameters | None" = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
    ) -> None:
        self.values: dict[str, Any] = dict(values or {})
        self.space: dict[str, Entry] = {}
        self._draw, self._replaced = draw, replaced
        self._tunes, self._allows = tune_new_entries, allow_new_entries
        self._scopes: Conditions = ()
        self._given: dict[str, Entry] = {}

    def Int(  # noqa: N802 - Keras Tuner's name
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = None,
        sampling: str = "linear",
        default: int | None = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """An integer from `min_value` to `max_value`, both included."""
        fallback = min_value if default is None else default
        conditions = self._under(parent_name, parent_values)
        return self._value_of(Int(name, fallback, (), conditions, min_value, max_value, step, sampling))

    def Float(  # noqa: N802
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = None,
        sampling: str = "linear",
        default: float | None = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """A number from `min_value` to `max_value`."""
        fallback = min_value if default is None else default
        conditions = self._under(parent_name, parent_values)
        return self._value_of(Float(name, fallback, (), conditions, min_value, max_value, step, sampling))

    def Choice(  # noqa: N802
        self,
        name: str,
        values: Sequence[Plain],
        ordered: bool | None = None,
        default: Plain | None = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """One of several values; numbers are taken as ordered unless `ordered` says otherwise."""
        listed = tuple(values)
        numbers = bool(listed) and isinstance(listed[0], int | float) and not isinstance(listed[0], bool)
        fallback = default if default is not None or not listed else listed[0]
        conditions = self._under(parent_name, parent_values)
        return self._value_of(Listed(name, fallback, listed, conditions, numbers if ordered is None else ordered))

    def Boolean(  # noqa: N802
        self, name: str, default: bool = False, parent_name: str | None = None, parent_values: Any = None
    ) -> Any:
        """False or True."""
        return self._value_of(Boolean(name, default, (False, True), self._under(parent_name, parent_values)))

    def Fixed(  # noqa: N802
        self, name: str, value: Plain, parent_name: str | None = None, parent_values: Any = None
    ) -> Any:
        """Always `value`, so that it is noted with the others."""
        return self._value_of(Entry(name, value, (value,), self._under(parent_name, parent_values)))

    @contextmanager
    def conditional_scope(self, parent_name: str, parent_values: Any) -> Generator[None]:
        """Entries declared inside are active where another has one of these values; elsewhere they are None."""
        outer, self._scopes = self._scopes, self._under(parent_name, parent_values)
        try:
            yield
        finally:
            self._scopes = outer

    def get(self, name: str) -> Any:
        """The value of an active entry.

        Raises:
            SpaceError: there is none of that name.
        """
        if name not in self.values:
            known = ", ".join(self.values) or "none"
            raise SpaceError(f"`get` takes the name of an active hyper-parameter: {known}. Received: {name!r}.")
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __repr__(self) -> str:
        return f"HyperParameters({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"

    def _under(self, parent: str | None, values: Any) -> Conditions:
        if parent is None:
            return self._scopes
        if not any(entry.name == parent for entry in self.space.values()):
            known = ", ".join(dict.fromkeys(entry.name for entry in self.space.values())) or "none"
            law = "a condition names a hyper-parameter that was declared before"
            raise SpaceError(f"{law}: {known}. Received: {parent!r}.")
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)  # pyright: ignore[reportUnknownArgumentType]
        return (*self._scopes, (parent, listed))

    def _is_active(self, entry: Entry) -> bool:
        return all(name in self.values and self.values[name] in values for name, values in entry.conditions)

    def _value_of(self, given: Entry) -> Any:
        if not isinstance(given.name, str) or not given.name:
            raise SpaceError(f"a hyper-parameter needs a name. Received: {given.name!r}.")
        entry = self._entry(given)
        if not self._is_active(entry):
            return None
        if entry.name not in self.values:
            drawn = self._draw is not None and entry.drawn and (self._tunes or self._is_replaced(entry))
            self.values[entry.name] = self._draw(entry) if drawn and self._draw else entry.default
        return self.values[entry.name]

    def _is_replaced(self, entry: Entry) -> bool:
        return self._replaced is not None and entry.key in self._replaced.space

    def _entry(self, given: Entry) -> Entry:
        """The entry that counts: the first of its key, or what the search was given in its place."""
        first = self._given.setdefault(given.key, given)
        if first != given:
            law = f"hyper-parameter `{given.key}` must be declared in one way"
            raise SpaceError(f"{law}. Received: {first.describe()} and {given.describe()}.")
        if given.key not in self.space:
            if self._replaced is not None and not self._is_replaced(given) and not self._allows:
                law = "with allow_new_entries=False only hyper-parameters that were given can be declared"
                raise SpaceError(f"{law}: {', '.join(self._replaced.space)}. Received: `{given.key}`.")
            replaced = self._replaced.space.get(given.key) if self._replaced else None
            self.space[given.key] = replace(replaced, conditions=given.conditions) if replaced else given
        return self.space[given.key]
