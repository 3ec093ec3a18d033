"""What a model takes and gives: names, types, the structure of its outputs, and the extents that it works on.

A `Signature` travels with every artifact as JSON. `Signature.fit` is the one place where arrays meet it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np

from kcompile.errors import ArtifactError, GraphError, InputError
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.types import Array, TensorType, array_dtype, bind_shapes
from kcompile.runtime.equality import Equality, unmet

# A tree of lists and dicts with output names as leaves: ``"y"`` is one array, ``["y", "z"]`` a list of two.
Structure: TypeAlias = str | list[Any] | dict[str, Any]

_MAX_PLANS = 256


@dataclass(frozen=True)
class Plan:
    """One call's extents: the symbols' values and the outputs' types, static wherever the model states them."""

    bindings: Mapping[str, int]
    outputs: tuple[TensorType, ...]

    @cached_property
    def is_empty(self) -> bool:
        """Whether every output is known to have no elements, so that nothing need be computed."""
        return all(type.is_static and type.size == 0 for type in self.outputs)

    @cached_property
    def results(self) -> tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]:
        """The outputs' shapes and dtypes, where all are known."""
        return tuple((type.static_shape(), array_dtype(type.dtype)) for type in self.outputs)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model.

    Attributes:
        name: the model's name.
        inputs: their types by name, in order.
        outputs: their types by name, in order.
        structure: how `predict` arranges the outputs.
        keys: the keys under which `predict` takes inputs beside their names, where the model was built with a dict.
        rows_meet: whether one row of a batch may change the results of another, as a maximum over all of them does.
        minimums: the smallest value of a symbol on which the model works, where that is more than 0.
        equalities: what else must hold of the symbols.
    """

    name: str
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    structure: Structure
    minimums: Mapping[str, int] = field(default_factory=dict[str, int])
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    rows_meet: bool = False
    equalities: tuple[Equality, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plans", dict[tuple[tuple[int, ...], ...], Plan]())

    @cached_property
    def batch(self) -> str | None:
        """The symbol that leads every input and, as a factor, every output; None where rows cannot be split."""
        leads = {type.shape[0] if type.rank else 0 for type in self.inputs.values()}
        lead = leads.pop() if len(leads) == 1 else 0
        if isinstance(lead, int) or not lead.isidentifier() or self.rows_meet:
            return None
        follows = all(t.rank and _is_multiple(t.shape[0], lead) for t in self.outputs.values())
        inside = [*(t.shape[1:] for t in self.inputs.values()), *(t.shape[1:] for t in self.outputs.values())]
        return lead if follows and lead not in dims.symbols(*(d for shape in inside for d in shape)) else None

    def fit(self, arrays: Sequence[Array]) -> Plan:
        """The plan of a call with `arrays`, one per input in order, of the right dtypes.

        Raises:
            InputError: shapes do not fit; all problems are named.
        """
        plans: dict[tuple[tuple[int, ...], ...], Plan] = getattr(self, "_plans")  # noqa: B009 (set in __post_init__)
        shapes = tuple(array.shape for array in arrays)
        plan = plans.get(shapes)
        if plan is None:
            plan = self._plan(shapes)
            if len(plans) < _MAX_PLANS:
                plans[shapes] = plan
        return plan

    def _plan(self, shapes: tuple[tuple[int, ...], ...]) -> Plan:
        bindings = bind_shapes(self.inputs, dict(zip(self.inputs, shapes, strict=True)))
        small = [
            f"extent {symbol} of {self._where(symbol)} must be at least {least}. Received: {bindings[symbol]}."
            for symbol, least in self.minimums.items()
            if bindings.get(symbol, least) < least
        ]
        problems = small or unmet(self.equalities, bindings)
        if problems:
            raise InputError("\n".join(problems))
        return Plan(bindings, tuple(type.bind(bindings) for type in self.outputs.values()))

    def _where(self, symbol: str) -> str:
        names = [name for name, type in self.inputs.items() if symbol in dims.symbols(*type.shape)]
        return f"input `{names[0]}`" if names else "the inputs"

    def to_json(self) -> dict[str, Any]:
        """The signature as JSON values; `from_json` reads it back."""
        return {
            "name": self.name,
            "inputs": [_tensor_to_json(name, type) for name, type in self.inputs.items()],
            "outputs": [_tensor_to_json(name, type) for name, type in self.outputs.items()],
            "structure": self.structure,
            "minimums": dict(self.minimums),
            "keys": dict(self.keys),
            "rows_meet": self.rows_meet,
            "equalities": [[law.left, law.right, law.layer] for law in self.equalities],
        }

    @staticmethod
    def from_json(value: object) -> "Signature":
        """The signature that `to_json` gave.

        Raises:
            ArtifactError: the value is something else.
        """
        record = as_dict(value, "signature")
        inputs, outputs = (
            dict(_tensor_from_json(item) for item in as_list(record.get(key), key)) for key in ("inputs", "outputs")
        )
        structure = cast(Structure, record.get("structure"))
        leaves = _leaves(structure)
        minimums, keys = (as_dict(record.get(key), key) for key in ("minimums", "keys"))
        if sorted(leaves) != sorted(outputs):
            raise ArtifactError(f"`structure` must name each output once. Received: {str(structure)[:200]}.")
        return Signature(
            as_text(record.get("name"), "name"),
            inputs,
            outputs,
            structure,
            {symbol: as_count(least, f"minimums.{symbol}") for symbol, least in minimums.items()},
            {key: as_text(name, f"keys.{key}") for key, name in keys.items()},
            record.get("rows_meet") is True,
            tuple(_equality(law) for law in as_list(record.get("equalities", []), "equalities")),
        )


def arrange(structure: Structure, outputs: Mapping[str, Array]) -> Any:
    """The outputs in the places where their names stand in `structure`."""
    if isinstance(structure, str):
        return outputs[structure]
    if isinstance(structure, list):
        return [arrange(item, outputs) for item in structure]
    return {key: arrange(item, outputs) for key, item in structure.items()}


def as_dict(value: object, what: str) -> dict[str, Any]:
    """`value`, which must be a JSON object.

    Raises:
        ArtifactError: it is something else.
    """
    if not isinstance(value, dict):
        raise ArtifactError(f"`{what}` must be an object. Received: {_shown(value)}.")
    return cast(dict[str, Any], value)


def as_list(value: object, what: str) -> list[Any]:
    """`value`, which must be a JSON array.

    Raises:
        ArtifactError: it is something else.
    """
    if not isinstance(value, list):
        raise ArtifactError(f"`{what}` must be an array. Received: {_shown(value)}.")
    return cast(list[Any], value)


def as_text(value: object, what: str) -> str:
    """`value`, which must be a string.

    Raises:
        ArtifactError: it is something else.
    """
    if not isinstance(value, str):
        raise ArtifactError(f"`{what}` must be a string. Received: {_shown(value)}.")
    return value


def as_count(value: object, what: str) -> int:
    """`value`, which must be an integer from 0 on.

    Raises:
        ArtifactError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArtifactError(f"`{what}` must be an integer from 0 on. Received: {_shown(value)}.")
    return value


def as_dim(value: object, what: str) -> Dim:
    """`value`, which must be an extent: an integer from 0 on, or an expression of symbols.

    Raises:
        ArtifactError: it is something else.
    """
    if not isinstance(value, str):
        return as_count(value, what)
    try:
        return dims.canonical(value)
    except (GraphError, RecursionError):
        raise ArtifactError(f"`{what}` must be an expression of symbols. Received: {_shown(value)}.") from None


def _shown(value: object) -> str:
    return repr(value)[:80]


def _tensor_to_json(name: str, type: TensorType) -> dict[str, Any]:
    return {"name": name, "dtype": type.dtype, "shape": list(type.shape)}


def _tensor_from_json(value: object) -> tuple[str, TensorType]:
    record = as_dict(value, "tensor")
    name = as_text(record.get("name"), "tensor.name")
    shape: Shape = tuple(as_dim(dim, f"{name}.shape") for dim in as_list(record.get("shape"), f"{name}.shape"))
    try:
        return name, TensorType(as_text(record.get("dtype"), f"{name}.dtype"), shape)
    except GraphError as error:
        raise ArtifactError(f"tensor `{name}`: {error}") from None


def _equality(value: object) -> Equality:
    match as_list(value, "equalities"):
        case [left, right, layer]:
            return Equality(as_dim(left, "equalities"), as_dim(right, "equalities"), as_text(layer, "equalities"))
        case other:
            raise ArtifactError(f"`equalities` must hold two extents and a layer each. Received: {_shown(other)}.")


def _leaves(structure: object) -> list[str]:
    if isinstance(structure, str):
        return [structure]
    if isinstance(structure, list):
        return [leaf for item in cast(list[object], structure) for leaf in _leaves(item)]
    if isinstance(structure, dict):
        return [leaf for item in cast(dict[str, object], structure).values() for leaf in _leaves(item)]
    raise ArtifactError(f"`structure` must be made of names, arrays and objects. Received: {_shown(structure)}.")


def _is_multiple(dim: Dim, symbol: str) -> bool:
    return isinstance(dim, str) and dims.exact_div(dim, symbol) is not None
