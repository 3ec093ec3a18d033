"""What an operation is: a layer without weights, whose rule is a function on IR values.

    @operation("numpy", "Square")
    def square(t: Trace, x: Value) -> Value:
        return t(ops.Mul(), x, x)

A rule takes the arguments of the class in `keras.src.ops` under their names: those of its call, then those of its
constructor. Rules share one table with TensorFlow's functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value

Rule: TypeAlias = Callable[..., Any]
Number: TypeAlias = "Value | int | float | bool"

# The rule of each operation by the name of its class in Keras.
OPERATIONS: dict[str, Rule] = {}


@dataclass(eq=False)
class Operation(Layer):
    """A function of ``keras.ops`` in a graph; `arguments` are those of the constructor of Keras's class."""

    autocast: ClassVar[bool] = False
    rule: ClassVar[Rule]

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The rule's results."""
        return apply_rule(type(self).rule, self.name, t, args, {**self.arguments, **kwargs})

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor of Keras's class."""
        return {"name": self.name, **self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The operation that `config` describes."""
        arguments = {key: value for key, value in config.items() if key != "name"}
        return cls(name=str(config.get("name", "")), arguments=arguments)


def apply_rule(rule: Rule, name: str, t: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The rule's results.

    Raises:
        ModelError: the rule does not take these arguments.
    """
    try:
        return rule(t, *args, **kwargs)
    except TypeError as error:
        received = ", ".join(
            [*(type(a).__name__ for a in args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        )
        raise ModelError(f"operation `{name}` does not take these arguments: {received} ({error}).") from error


def operation(module: str, *names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for the classes `names` of ``keras.src.ops.<module>``."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            OPERATIONS[name] = rule
            members = {"rule": staticmethod(rule), "keras_module": f"keras.src.ops.{module}", "__doc__": rule.__doc__}
            register_layer(f"keras.ops>{name}")(type(name, (Operation,), members))
        return rule

    return enter


def promoted(t: Trace, *operands: Number, floating: bool = False) -> list[Value]:
    """Operands as values of one dtype, as Keras promotes them: a number takes the kind of the tensor beside it."""
    tensors = [x.type.dtype for x in operands if isinstance(x, Value)]
    numbers = [np.asarray(x).dtype.kind for x in operands if not isinstance(x, Value)]
    dtype = _common(tensors)
    if dtype == "bool" and "i" in numbers:
        dtype = "int32"
    if not dtype.startswith("float") and (floating or "f" in numbers):
        dtype = "float32"
    return [as_value(t, x, dtype) for x in operands]


def _common(dtypes: list[str]) -> str:
    floats = [dtype for dtype in dtypes if dtype.startswith("float")]
    if floats:
        return max(floats, key=lambda dtype: np.dtype(dtype).itemsize)
    return np.result_type(*map(np.dtype, dtypes)).name if dtypes else "float32"


def as_value(t: Trace, x: Number, dtype: str) -> Value:
    """`x` as a value of `dtype`."""
    if not isinstance(x, Value):
        return t.constant(np.asarray(x, dtype))
    return x if x.type.dtype == dtype else t(ops.Cast(dtype), x)


def axes_of(x: Value, axis: Any) -> tuple[int, ...]:
    """`axis` (None for all, a number, or a list) as numbers from 0 on.

    Raises:
        ModelError: an axis is out of range.
    """
    rank = x.type.rank
    if axis is None:
        return tuple(range(rank))
    given: list[int] = [axis] if isinstance(axis, int) else list(axis)
    if not all(-rank <= a < rank for a in given):
        raise ModelError(f"`axis` must name axes of a tensor with {rank} of them. Received: axis={axis!r}.")
    return tuple(sorted(a % rank for a in given))


def axis_of(x: Value, axis: int) -> int:
    """One axis as a number from 0 on.

    Raises:
        ModelError: it is out of range.
    """
    return axes_of(x, axis)[0]
