"""What lowerings write to: ONNX nodes, initializers shared by content, and names that are unique and stable."""

import ast
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from kcompile.codegen.onnx import engine
from kcompile.errors import UnsupportedOp
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Op, Tensor
from kcompile.ir.ops import Constant, Full
from kcompile.ir.types import Array, TensorType, array_dtype

_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}


def onnx_dtype(dtype: str) -> int:
    """ONNX's number of a numpy dtype name."""
    return onnx.helper.np_dtype_to_tensor_dtype(array_dtype(dtype))


def known(value: Value) -> Array | None:
    """The elements of a value that is known at compile time; None for any other."""
    if isinstance(value.op, Full) and value.type.is_static:
        return value.op.kernel(())[0]
    return value.constant


class Emitter:
    """Collects the nodes of one ONNX graph.

    Args:
        opset: the version of the standard operators.
        inputs: the graph's inputs; each free symbol is read from the shape of the first that has it.
        reserved: names that belong to others (the graph's outputs).
    """

    def __init__(self, opset: int, inputs: Mapping[str, TensorType], reserved: Sequence[str] = ()) -> None:
        self.opset = opset
        self.source = ""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}
        self.names: dict[Value, str] = {}
        self._readers: dict[Value, list[Op | None]] = {}
        self._taken = {*inputs, *reserved}
        self._constants: dict[str, str] = {}
        self._permuted: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._reshaped: dict[str, tuple[str, Shape]] = {}
        self._made: dict[tuple[bytes, tuple[bool, ...]], tuple[str, ...]] = {}
        self._symbols: dict[str, tuple[str, int]] = {}
        for name, type_ in inputs.items():
            for axis, dim in enumerate(type_.shape):
                if isinstance(dim, str) and dim.isidentifier():
                    self._symbols.setdefault(dim, (name, axis))

    def child(self) -> "Emitter":
        """An emitter for the body of a loop: it sees the names of this one and adds to the same initializers."""
        inner = Emitter(self.opset, {})
        inner.source, inner.initializers, inner._constants = self.source, self.initializers, self._constants
        inner._taken, inner._symbols, inner._made = self._taken, self._symbols, dict(self._made)
        return inner

    @contextmanager
    def at(self, source: str) -> Generator[None]:
        """Nodes made inside are named after the Keras layer `source`."""
        outer, self.source = self.source, source
        try:
            yield
        finally:
            self.source = outer

    # Names

    def unique(self, stem: str) -> str:
        """`stem`, or the first of ``stem_1``, ``stem_2`` and so on that is free; taken from now on."""
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def name(self, value: Value) -> str:
        """The tensor that holds `value`; a constant becomes an initializer when first asked for."""
        if value not in self.names:
            if value.constant is None:
                raise KeyError(value)
            self.names[value] = self.constant(value.constant, self.weight_name(value))
        return self.names[value]

    def weight_name(self, value: Value) -> str:
        """The weight path of a constant; empty for any other value."""
        return value.op.name if isinstance(value.op, Constant) else ""

    def inputs(self, node: Node) -> list[str]:
        """The tensors that hold the node's operands."""
        return [self.name(value) for value in node.inputs]

    def note_readers(self, graph: Graph) -> None:
        """Remember what reads the values of a graph that is about to be lowered."""
        for node in graph.nodes:
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node.op)
        for value in graph.outputs:
            self._readers.setdefault(value, []).append(None)

    def readers(self, value: Value) -> Sequence[Op | None]:
        """The ops that read a value; None stands for the graph itself, which gives it as an output."""
        return self._readers.get(value, ())

    # Constants

    def constant(self, array: Array, name: str = "") -> str:
        """An initializer with these elements, shared by all who need the same."""
        tensor = Tensor(array)
        if tensor.digest not in self._constants:
            made = self.unique(name or f"{self.source or 'constant'}/{tensor.type}")
            self._constants[tensor.digest] = made
            self.initializers[made] = array
        return self._constants[tensor.digest]

    def scalar(self, number: float, dtype: str) -> str:
        """A constant of rank 0."""
        return self.constant(np.asarray(number, dtype))

    def ints(self, *numbers: int) -> str:
        """A constant ``int64[len(numbers)]``."""
        return self.constant(np.array(numbers, np.int64))

    # Nodes

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """The first result of an operator of the standard domain."""
        return self.multi(op_type, inputs, (True,), **attributes)[0]

    def multi(self, op_type: str, inputs: Sequence[str], wanted: Sequence[bool], **attributes: Any) -> tuple[str, ...]:
        """The results of an operator; those that are not wanted are left out and named ``""``.

        The same operator with the same operands and attributes is made once.
        """
        given = {name: value for name, value in attributes.items() if value is not None}
        node = onnx.helper.make_node(op_type, trimmed(inputs), [], **given)
        key = (node.SerializeToString(deterministic=True), tuple(wanted))
        if key not in self._made:
            self._made[key] = self._add(node, wanted)
        return self._made[key]

    def _add(self, node: onnx.NodeProto, wanted: Sequence[bool]) -> tuple[str, ...]:
        """Name a node and its results, and append it."""
        node.name = self.unique(f"{self.source}/{node.op_type}" if self.source else node.op_type)
        results = [
            (self.unique(f"{node.name}:{i}") if i else node.name) if want else "" for i, want in enumerate(wanted)
        ]
        node.output.extend(trimmed(results))
        self.nodes.append(node)
        return tuple(results)

    def copy(self, x: str) -> str:
        """``x`` under a name of its own."""
        return self._add(onnx.helper.make_node("Identity", [x], []), (True,))[0]

    def typed(self, op_type: str, dtype: str, *inputs: str, back: bool = True, **attributes: Any) -> str:
        """The result of an operator on operands of `dtype`, computed in the nearest dtype that has a kernel.

        Args:
            back: cast the result to `dtype` again.

        Raises:
            UnsupportedOp: there is no such kernel.
        """
        nearest = self.nearest(op_type, dtype)
        if nearest == dtype:
            return self.node(op_type, *inputs, **attributes)
        result = self.node(op_type, *(self.cast(x, nearest) for x in inputs), **attributes)
        return self.cast(result, dtype) if back else result

    def typed_where(self, condition: str, x: str, y: str, dtype: str) -> str:
        """``x`` where the condition holds, else ``y``, both of `dtype`."""
        nearest = self.nearest("Where", dtype, operand=1)
        if nearest == dtype:
            return self.node("Where", condition, x, y)
        return self.cast(self.node("Where", condition, self.cast(x, nearest), self.cast(y, nearest)), dtype)

    def nearest(self, op_type: str, dtype: str, operand: int = 0) -> str:
        """The nearest dtype that holds `dtype` and has a kernel of `op_type`.

        Raises:
            UnsupportedOp: there is none.
        """
        found = engine.nearest_dtype(op_type, dtype, self.opset, operand)
        if found is None:
            raise UnsupportedOp(f"ONNX Runtime has no {dtype} kernel of {op_type}")
        return found

    def has_kernel(self, op_type: str, dtype: str) -> bool:
        """Whether the engine computes `op_type` in exactly this dtype."""
        return engine.has_kernel(op_type, dtype, self.opset)

    def cast(self, x: str, dtype: str) -> str:
        """``x`` as another dtype."""
        return self.node("Cast", x, to=onnx_dtype(dtype))

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """``x`` with its axes permuted; a transpose of a transpose becomes one, or none."""
        base, first = self._permuted.get(x, (x, tuple(range(len(perm)))))
        total = tuple(first[axis] for axis in perm)
        if total == tuple(range(len(total))):
            return base
        result = self.node("Transpose", base, perm=total)
        self._permuted[result] = (base, total)
        return result

    def concat(self, xs: Sequence[str], axis: int) -> str:
        """The tensors one after another; transposes that all of them share follow after instead."""
        permuted = [self._permuted.get(x) for x in xs]
        perms = {entry[1] for entry in permuted if entry}
        if len(perms) == 1 and all(permuted):
            (perm,) = perms
            joined = self.node("Concat", *(entry[0] for entry in permuted if entry), axis=perm[axis])
            return self.transpose(joined, perm)
        return self.node("Concat", *xs, axis=axis)

    def reshape(self, x: str, old: Shape, new: Shape) -> str:
        """``x``, of shape `old`, under the shape `new`; a reshape of a reshape becomes one, or none."""
        base, shape = self._reshaped.get(x, (x, old))
        if shape == new:
            return base
        pattern = _pattern(shape, new)
        if pattern is None:
            result = self.node("Reshape", base, self.shape(new), allowzero=1)
        else:
            result = self.node("Reshape", base, self.ints(*pattern))
        self._reshaped[result] = (base, shape)
        return result

    # Extents

    def extent(self, dim: Dim) -> str:
        """A tensor ``int64[1]`` that holds `dim` at run time."""
        if isinstance(dim, int):
            return self.ints(dim)
        with self.at(""):
            return self._computed(ast.parse(dim, mode="eval").body)

    def _computed(self, tree: ast.expr) -> str:
        match tree:
            case ast.Constant(value=int() as value):
                return self.ints(value)
            case ast.Name(id=symbol) if symbol in self._symbols:
                name, axis = self._symbols[symbol]
                return self.node("Shape", name, start=axis, end=axis + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.node("Neg", self._computed(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                return self._binary(operator, self._computed(left), self._computed(right))
            case _:
                raise UnsupportedOp(f"no input of the model has the extent `{ast.unparse(tree)}`")

    def _binary(self, operator: ast.operator, left: str, right: str) -> str:
        if isinstance(operator, ast.FloorDiv):  # Div rounds towards zero
            return self.node("Div", self.node("Sub", left, self.node("Mod", left, right)), right)
        return self.node(_OPERATORS[type(operator)], left, right)

    def shape(self, shape: Shape) -> str:
        """A tensor ``int64[rank]`` that holds `shape` at run time."""
        if all(isinstance(dim, int) for dim in shape):
            return self.ints(*(int(dim) for dim in shape))
        return self.node("Concat", *map(self.extent, shape), axis=0)


def trimmed(names: Sequence[str]) -> list[str]:
    """`names` without the empty ones at the end."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _pattern(old: Shape, new: Shape) -> list[int] | None:
    """Integers that ask Reshape for `new`: -1 for one open extent, or 0 for open ones that stay where they are.

    Never both, which would fail where the batch is empty. None where this does not do.
    """
    is_open = [isinstance(dim, str) for dim in new]
    stays = [i < len(old) and old[i] == dim for i, dim in enumerate(new)]
    if 0 in new or (sum(is_open) > 1 and not all(same for same, dim in zip(stays, is_open, strict=True) if dim)):
        return None
    stand_in = -1 if sum(is_open) == 1 else 0
    return [stand_in if isinstance(dim, str) else dim for dim in new]
