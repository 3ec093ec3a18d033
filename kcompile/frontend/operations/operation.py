"""What an operation is: a layer without weights, whose rule is a function on IR values.

    @operation("numpy", "Mean")
    def mean(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
        return t(ops.ReduceMean(axes_of(x, axis), keepdims), x)

A rule takes the arguments of the class in `keras.src.ops` under their names: those of its call, then, after ``*``,
those of its constructor. The same rule reads the function in files, and is the function in ``kcompile.ops``: one table
for all, TensorFlow's functions too.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.agreement import broadcasting
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.tracing import Trace
from kcompile.frontend.training.naming import snake_case
from kcompile.ir import dims, ops
from kcompile.ir.graph import Value
from kcompile.ir.types import Array

Rule: TypeAlias = Callable[..., Any]
Number: TypeAlias = "Value | Array | int | float | bool"


@dataclass(frozen=True)
class Definition:
    """An operation: its rule, its name in ``keras.ops``, and the order of the arguments there, where it is another."""

    rule: Rule
    function: str
    order: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The rule's parameters but for the trace."""
        return dict(list(inspect.signature(self.rule).parameters.items())[1:])

    @cached_property
    def signature(self) -> inspect.Signature:
        """That of the function in ``keras.ops``: what has no default stands first."""
        names = self.order or self.parameters
        found = [self.parameters[name].replace(annotation=inspect.Parameter.empty) for name in names]
        several = [p for p in found if p.kind == p.VAR_POSITIONAL]
        required = [p for p in found if p.default is p.empty and p not in several]
        rest = [p for p in found if p.default is not p.empty]
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if several:
            return inspect.Signature([*(p.replace(kind=positional) for p in required), *several, *rest])
        return inspect.Signature([p.replace(kind=positional) for p in (*required, *rest)])

    def is_option(self, name: str) -> bool:
        """Whether an argument is one of the constructor of Keras's class."""
        return self.parameters[name].kind == inspect.Parameter.KEYWORD_ONLY

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments by name.

        Raises:
            TypeError: one is missing, unknown or given twice.
        """
        return dict(self.signature.bind(*args, **kwargs).arguments)

    def __call__(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The rule's results for arguments in the order of ``keras.ops``."""
        return self.of_names(t, self.bind(args, kwargs))

    def of_names(self, t: Trace, arguments: Mapping[str, Any]) -> Any:
        """The rule's results for arguments by name."""
        several = next((name for name, p in self.parameters.items() if p.kind == p.VAR_POSITIONAL), "")
        named = {name: value for name, value in arguments.items() if name != several}
        return self.rule(t, *arguments.get(several, ()), **named)


# Each operation by the name of its class in Keras.
OPERATIONS: dict[str, Definition] = {}


@dataclass(eq=False)
class Operation(Layer):
    """A function of ``keras.ops`` in a graph; `arguments` are those of the constructor of Keras's class."""

    autocast: ClassVar[bool] = False
    definition: ClassVar[Definition]

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The rule's results."""
        return apply_rule(type(self).definition.rule, self.name, t, args, {**self.arguments, **kwargs})

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor of Keras's class."""
        return {"name": self.name, **self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The operation that `config` describes."""
        arguments = {key: value for key, value in config.items() if key != "name"}
        return cls(name=str(config.get("name", "")), arguments=arguments)


def apply_rule(rule: Rule, name: str, t: Trace, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
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


def operation(module: str, *names: str, function: str = "", order: tuple[str, ...] = ()) -> Callable[[Rule], Rule]:
    """Enter a rule for the classes `names` of ``keras.src.ops.<module>``.

    Args:
        function: its name in ``keras.ops``, by default that of the class in snake case.
        order: of the arguments there, where it is not the rule's.
    """

    def enter(rule: Rule) -> Rule:
        for name in names:
            definition = Definition(rule, function or snake_case(name), order)
            OPERATIONS[name] = definition
            members = {"definition": definition, "keras_module": f"keras.src.ops.{module}", "__doc__": rule.__doc__}
            register_layer(f"keras.ops>{name}")(type(name, (Operation,), members))
        return rule

    return enter


def promoted(t: Trace, *operands: Number, floating: bool = False) -> list[Value]:
    """Operands as values of one dtype, as Keras promotes them: a number takes the kind of the tensor beside it."""
    tensors = [_dtype_of(x) for x in operands if isinstance(x, Value | np.ndarray)]
    numbers = [np.asarray(x).dtype.kind for x in operands if not isinstance(x, Value | np.ndarray)]
    dtype = _common(tensors) if tensors else "float32" if "f" in numbers else "int32"
    if dtype == "bool" and "i" in numbers:
        dtype = "int32"
    if not dtype.startswith("float") and (floating or "f" in numbers):
        dtype = "float32"
    return [as_value(t, x, dtype) for x in operands]


def meeting(t: Trace, *operands: Number, floating: bool = False) -> list[Value]:
    """Operands that broadcast, as values of one dtype whose open extents are equal where they must be."""
    return broadcasting(t, promoted(t, *operands, floating=floating))


def _common(dtypes: list[str]) -> str:
    floats = [dtype for dtype in dtypes if dtype.startswith("float")]
    if floats:
        return max(floats, key=lambda dtype: np.dtype(dtype).itemsize)
    return np.result_type(*map(np.dtype, dtypes)).name


def _dtype_of(x: "Value | Array") -> str:
    """The dtype that counts: of arrays of doubles, which nobody asked for, single precision."""
    dtype = x.type.dtype if isinstance(x, Value) else x.dtype.name
    return "float32" if dtype == "float64" and not isinstance(x, Value) else dtype


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


def one_axis(t: Trace, x: Value, axis: int | None) -> tuple[Value, int]:
    """`x` and an axis of it; for None, all elements on one axis."""
    if axis is None:
        return t(ops.Reshape((dims.mul(*x.type.shape),)), x), 0
    return x, axis_of(x, axis)
