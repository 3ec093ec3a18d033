"""What an op is: a frozen dataclass whose fields are its attributes and whose methods are its rules.

    @dataclass(frozen=True)
    class Relu(Unary, name="relu"):
        \"\"\"``max(x, 0)``.\"\"\"

        def kernel(self, args: Arrays) -> Arrays:
            return (np.maximum(args[0], 0),)

The abstract methods are what every op must say; a misspelt one cannot pass silently. Back ends keep their lowerings in
tables of their own, keyed by the class.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from kcompile.errors import GraphError, TypeRuleError
from kcompile.ir import dims
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.types import Array, TensorType, type_of

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder, Value

Arrays: TypeAlias = tuple[Array, ...]
Types: TypeAlias = tuple[TensorType, ...]
Values: TypeAlias = "Sequence[Value]"

# Gradients by results or operands; None where none flows.
Gradients: TypeAlias = "tuple[Value | None, ...]"

# How much of a tensor its hash reads.
_SAMPLE_BYTES = 256

# Every op class by the name that the text form gives it.
OPS: dict[str, "type[Op]"] = {}


@dataclass(frozen=True)
class Op(ABC):
    """Base of all ops.

    Subclass keywords: `name`, the op's name in the text form; `operands`, their names in order, where ``"bias?"`` may
    be left out (only at the end) and ``"*xs"`` stands for one or more.
    """

    op_name: ClassVar[str] = ""
    operands: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, name: str = "", operands: tuple[str, ...] | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if operands is not None:
            cls.operands = operands
        if not name:
            return
        if name in OPS:
            raise TypeError(f"two ops are named {name!r}: {OPS[name]} and {cls}")
        cls.op_name = name
        OPS[name] = cls

    @abstractmethod
    def infer(self, types: Types) -> Types:
        """The result types for operand types.

        Raises:
            TypeRuleError: the op does not accept these operands.
        """

    @abstractmethod
    def kernel(self, args: Arrays) -> Arrays:
        """What the op means, on arrays; float arrays of any precision keep theirs."""

    def decompose(self, b: "Builder", xs: Sequence["Value"]) -> "tuple[Value, ...] | None":
        """The same results from simpler ops, for back ends without a lowering of this one; None where there is none."""
        del b, xs
        return None

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        """The gradient of a number by each operand, written with `b`, from its gradients `dys` by the results.

        At least one of `dys` is a value; None stands for a result that the number does not depend on. None in the
        answer says that no gradient flows to that operand, as to indices and where the derivative is 0 everywhere.

        Raises:
            GraphError: the op has no derivative.
        """
        del b, xs, ys, dys
        raise GraphError(f"`{self.op_name}` has no gradient. Keep it out of what training differentiates.")

    def bind(self, bindings: Mapping[str, Dim]) -> Self:
        """The op with the symbols in its attributes replaced; ops with shapes as attributes override this."""
        del bindings
        return self

    def macs(self, types: Types, results: Types) -> Dim:
        """Multiply-accumulate operations of one call."""
        del types, results
        return 0

    def result_types(self, types: Types) -> Types:
        """`infer`, after checking the number of operands."""
        required = sum(not name.endswith("?") for name in self.operands)
        variadic = any(name.startswith("*") for name in self.operands)
        if len(types) < required or (len(types) > len(self.operands) and not variadic):
            expected = ", ".join(self.operands)
            raise TypeRuleError(f"`{self.op_name}` takes ({expected}). Received: {len(types)} operands.")
        return self.infer(types)

    def attributes(self) -> dict[str, object]:
        """The attributes that differ from their defaults, in the order of their definition."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {name: value for name, value in values.items() if name not in defaults or defaults[name] != value}

    def require(self, law: bool, text: str, types: Types) -> None:
        """Raise a TypeRuleError that states the broken law and the operand types, unless `law` holds."""
        if not law:
            received = ", ".join(map(str, types))
            raise TypeRuleError(f"`{self.op_name}`: {text}. Received: ({received}) with {self.attributes()}.")


class Elementwise(Op):
    """Ops whose results are computed element by element, with numpy broadcasting."""

    def infer(self, types: Types) -> Types:
        self.require(len({t.dtype for t in types}) == 1, "operands must have one dtype", types)
        return (TensorType(types[0].dtype, broadcast_shapes(self, types)),)


class Unary(Elementwise, operands=("x",)):
    """Elementwise ops of one operand."""


class Binary(Elementwise, operands=("x", "y")):
    """Elementwise ops of two operands that broadcast."""


def broadcast_shapes(op: Op, types: Types) -> Shape:
    """The numpy broadcast of the shapes; a symbol equals itself and stretches from 1, nothing else.

    Raises:
        TypeRuleError: two extents do not fit.
    """
    rank = max(t.rank for t in types)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        extents = {t.shape[axis] for t in types if t.rank >= -axis} - {1}
        op.require(len(extents) <= 1, f"axis {axis} does not broadcast", types)
        result.append(extents.pop() if extents else 1)
    return tuple(result)


def normalize_axis(op: Op, axis: int, types: Types) -> int:
    """`axis` of the first operand as a number from 0 on."""
    rank = types[0].rank
    op.require(-rank <= axis < rank, f"axis {axis} is out of range", types)
    return axis % rank


class Tensor:
    """An immutable array, compared and hashed by content, so that it can be an attribute."""

    def __init__(self, array: Array) -> None:
        # A read-only view: the caller's array is neither copied nor frozen.
        view = np.ascontiguousarray(array).reshape(np.shape(array)).view()
        view.flags.writeable = False
        self.array: Array = view

    @cached_property
    def digest(self) -> str:
        """SHA-256 over dtype, shape and bytes, in hexadecimal."""
        state = hashlib.sha256(str(self.type).encode())
        state.update(self._bytes)
        return state.hexdigest()

    @property
    def _bytes(self) -> memoryview:
        return self.array.reshape(-1).view(np.uint8).data if self.array.size else memoryview(b"")

    @property
    def type(self) -> TensorType:
        """The type of the array."""
        return type_of(self.array)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Tensor) and self.type == other.type and self._bytes == other._bytes

    def __hash__(self) -> int:
        # A sample is enough to tell weights apart, and costs nothing where SHA-256 over all of them would.
        return hash((self.type, bytes(self._bytes[:: max(self.array.nbytes // _SAMPLE_BYTES, 1)])))

    def __repr__(self) -> str:
        return f"Tensor({self.type})"


def bind_shape(shape: Shape, bindings: Mapping[str, Dim]) -> Shape:
    """`shape` with symbols replaced."""
    return tuple(dims.substitute(dim, bindings) for dim in shape)
