"""Layouts of images: channels first, as ONNX has its convolutions, or last, as our own kernels do.

Every convolution, pooling and resize is brought into one format, and the transposes between the formats are pushed
through what does not care, until they meet and cancel. Nothing is moved before it must be: a value is kept in the forms
in which it exists already, a `Transpose` only renames the form, and a node takes the form for which the fewest elements
are moved, before it or after it. A flattening into a dense layer permutes the rows of the layer's kernel instead.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.ops import (
    BatchNorm,
    Concat,
    Constant,
    Conv,
    Dense,
    DequantizeLinear,
    Gru,
    LogSoftmax,
    Lstm,
    Reshape,
    SimpleRnn,
    Softmax,
    Transpose,
)
from kcompile.ir.ops.windows import DataFormat
from kcompile.ir.passes.manager import Pass
from kcompile.ir.passes.matching import along_axis
from kcompile.ir.passes.permute import (
    Perm,
    between,
    composed,
    data_operands,
    elements,
    flat_order,
    identity,
    is_foreign,
    is_free,
    permuted,
    reshaped,
    result_form,
    swapped,
)
from kcompile.ir.passes.simplify import simplify
from kcompile.ir.types import Array, TensorType

# Ops whose second operand is a matrix with one row per feature of the first.
RowKernel: TypeAlias = Dense | Lstm | Gru | SimpleRnn


def to_channels_first(graph: Graph) -> Graph:
    """`graph` with channels-first convolutions, poolings and resizes; inputs and outputs keep their types."""
    return Pass("channels_first", lambda g: _relaid(g, "channels_first"))(graph)


def to_channels_last(graph: Graph) -> Graph:
    """`graph` with channels-last convolutions, poolings and resizes; inputs and outputs keep their types."""
    return Pass("channels_last", lambda g: _relaid(g, "channels_last"))(graph)


def _relaid(graph: Graph, target: DataFormat) -> Graph:
    """`graph` in the format `target`, and again as long as that takes transposes away."""
    is_settled = not any(is_foreign(node.op, target) for node in graph.nodes)
    if is_settled and not _transposes(graph):
        return graph
    layouts = _Layouts(graph, target)
    for node in graph.nodes:
        layouts.enter(node)
    outputs = tuple(layouts.form(value, identity(value.type.rank)) for value in graph.outputs)
    changed = simplify(Graph(graph.name, graph.inputs, outputs, graph.output_names, graph.notes))
    if is_settled and _transposes(changed) >= _transposes(graph):
        return graph
    return _relaid(changed, target)


def _transposes(graph: Graph) -> int:
    return sum(isinstance(node.op, Transpose) for node in graph.nodes)


def _wanted_forms(graph: Graph, target: DataFormat) -> dict[Value, set[Perm]]:
    """The forms in which each value will be read; empty where the reader takes any."""
    wanted: dict[Value, set[Perm]] = {value: set() for node in graph.nodes for value in node.outputs}
    wanted.update((value, set()) for value in graph.inputs)
    for value in graph.outputs:
        wanted[value].add(identity(value.type.rank))
    for node in reversed(graph.nodes):
        for position, value in enumerate(node.inputs):
            wanted[value] |= _wanted_by(node, position, wanted[node.outputs[0]], target)
    return wanted


def _wanted_by(node: Node, position: int, wanted: set[Perm], target: DataFormat) -> set[Perm]:
    op, value = node.op, node.inputs[position]
    own, other = identity(value.type.rank), swapped(value.type.rank, target) if value.type.rank > 2 else ()
    if position not in data_operands(node):
        return {own}
    if is_foreign(op, target):
        return {other}
    if isinstance(op, Transpose):
        return {composed(form, op.perm) for form in wanted}
    if isinstance(op, Reshape):
        shapes = value.type.shape, op.shape
        if other and flat_order(*shapes, other) is not None:
            return set()
        return _of_two(own, other, lambda form: reshaped(*shapes, form) in wanted)
    if other and permuted(node, other, target) is None:
        return {own}
    if value.type.rank != node.outputs[0].type.rank:
        return _of_two(own, other, lambda form: result_form(node, form) in wanted) if other else set()
    return wanted


def _of_two(own: Perm, other: Perm, fits: Callable[[Perm], bool]) -> set[Perm]:
    """The one of two forms that fits; nothing where both or neither do."""
    fitting = {form for form in (own, other) if fits(form)}
    return fitting if len(fitting) == 1 else set()


class _Layouts:
    """The graph in the making: for each value of the old graph, the forms in which the new one has it."""

    def __init__(self, graph: Graph, target: DataFormat) -> None:
        self.b = Builder(graph.name)
        self.target: DataFormat = target
        self.wanted = _wanted_forms(graph, target)
        self.forms: dict[Value, dict[Perm, Value]] = {v: {identity(v.type.rank): v} for v in graph.inputs}
        # Values whose last axis stands in another order: the new value, and which element is where.
        self.flat: dict[Value, tuple[Value, Array]] = {}

    def enter(self, node: Node) -> None:
        """Compute `node` in the form that moves the fewest elements."""
        with self.b.at(node.source):
            if self._enter_flat(node):
                return
            if isinstance(node.op, Transpose):
                forms = self._forms(node.inputs[0])
                self.forms[node.outputs[0]] = {between(node.op.perm, form): v for form, v in forms.items()}
            elif isinstance(node.op, Reshape):
                self._enter_reshape(node, node.op)
            else:
                self._emit(node, self._cheapest(node))

    def form(self, value: Value, perm: Perm) -> Value:
        """`value` in the form `perm`."""
        forms = self._forms(value)
        if perm not in forms:
            node = value.producer
            with self.b.at(node.source if node else ""):
                forms[perm] = self._converted(value, perm, forms)
        return forms[perm]

    def _forms(self, value: Value) -> dict[Perm, Value]:
        if value not in self.forms and value.producer:
            with self.b.at(value.producer.source):
                self._emit(value.producer, identity(value.producer.inputs[0].type.rank))
        return self.forms[value]

    def _converted(self, value: Value, perm: Perm, forms: dict[Perm, Value]) -> Value:
        if isinstance(value.op, Constant):
            return self.b.constant(value.op.value.array.transpose(perm), value.op.name)
        free = [form for form in forms if is_free(value.type, form, perm)]
        if free:
            return self.b(Reshape(tuple(value.type.shape[axis] for axis in perm)), forms[free[0]])
        node = value.producer
        if node and isinstance(node.op, DequantizeLinear) and all(v.type.size == 1 for v in node.inputs[1:]):
            scales = (self.form(v, identity(v.type.rank)) for v in node.inputs[1:])
            return self.b(node.op, self.form(node.inputs[0], perm), *scales)  # a quarter of the bytes is moved
        form, present = next(iter(forms.items()))
        return self.b(Transpose(between(form, perm)), present)

    def _enter_reshape(self, node: Node, op: Reshape) -> None:
        (x,), (y,) = node.inputs, node.outputs
        forms = self._forms(x)
        results = {form: reshaped(x.type.shape, op.shape, form) for form in forms}
        self.forms[y] = {
            result: self.b(Reshape(tuple(op.shape[axis] for axis in result)), forms[form])
            for form, result in results.items()
            if result is not None
        }
        if self.forms[y]:
            return
        for form, present in forms.items():
            order = flat_order(x.type.shape, op.shape, form)
            if order is not None:
                del self.forms[y]
                self.flat[y] = self.b(op, present), order
                return
        self._emit(node, identity(x.type.rank))

    def _cheapest(self, node: Node) -> Perm:
        """The form of the operands for which the fewest elements are moved before and after `node`."""
        if not node.inputs:
            return ()
        rank = max(node.inputs[i].type.rank for i in data_operands(node))
        candidates = {identity(rank): None}
        if rank > 2:
            candidates[swapped(rank, self.target)] = None
        for value in (node.inputs[i] for i in data_operands(node)):
            if value.type.rank == rank and value.constant is None:
                candidates.update(dict.fromkeys(self._forms(value)))
        possible = [form for form in candidates if permuted(node, form, self.target) is not None]
        return min(possible, key=lambda form: self._cost(node, form), default=identity(rank))

    def _cost(self, node: Node, form: Perm) -> tuple[int, bool, int]:
        operands = [node.inputs[i] for i in data_operands(node)]
        y = node.outputs[0]
        result = result_form(node, form)
        cost = sum(self._operand_cost(value, form) for value in operands)
        cost += sum(elements(y.type) for other in self.wanted[y] if not is_free(y.type, result, other))
        # Softmax is fastest along the last axis; other nodes stay beside the one that computes their operands.
        is_strided = isinstance(node.op, Softmax | LogSoftmax) and form[-1] != node.op.axis % len(form)
        present = sum(form in self._forms(v) for v in operands if v.type.rank == len(form) and v.constant is None)
        return cost, is_strided, -present

    def _operand_cost(self, value: Value, form: Perm) -> int:
        if value.constant is not None:
            return 0
        wide = value.type.with_shape((1,) * (len(form) - value.type.rank) + value.type.shape)
        forms = self._forms(value) if value.type.rank == len(form) else (identity(len(form)),)
        return 0 if any(is_free(wide, present, form) for present in forms) else elements(value.type)

    def _emit(self, node: Node, form: Perm) -> None:
        """Compute `node` from operands in a form, if need be in Keras's own."""
        op = (permuted(node, form, self.target) if form else node.op) or node.op
        data = data_operands(node)
        operands = [
            self._operand(value, form) if i in data else self.form(value, identity(value.type.rank))
            for i, value in enumerate(node.inputs)
        ]
        if isinstance(node.op, Dense) and isinstance(op, Conv) and isinstance(kernel := node.inputs[1].op, Constant):
            operands[1] = self.b.constant(_as_window(kernel.value.array, len(op.strides)), kernel.name)
        same = op == node.op and all(new is old for new, old in zip(operands, node.inputs, strict=True))
        results = node.outputs if same else self.b.multi(op, *operands)
        for old, new in zip(node.outputs, results, strict=True):
            perm = result_form(node, form) if old.index == 0 else identity(old.type.rank)
            self.forms.setdefault(old, {})[perm] = new

    def _operand(self, value: Value, form: Perm) -> Value:
        """`value` in a form of at least as many axes, as an operand that broadcasts."""
        rank = value.type.rank
        if rank == len(form) or form == identity(len(form)) or value.type.size == 1:
            return self.form(value, form if rank == len(form) else identity(rank))
        if isinstance(value.op, Constant):
            window = _as_window(value.op.value.array, len(form) - rank)
            return self.b.constant(window.transpose(form), value.op.name)
        wide = (1,) * (len(form) - rank) + value.type.shape
        return self.b(Transpose(form), self.b(Reshape(wide), self.form(value, identity(rank))))

    def _enter_flat(self, node: Node) -> bool:
        """Compute `node` from operands whose last axis stands in another order, where it can be."""
        if not any(value in self.flat for value in node.inputs):
            return False
        if isinstance(node.op, RowKernel):
            return self._emit_rows(node)
        made = self._flat_result(node)
        if made is not None:
            self.flat[node.outputs[0]] = made
        return made is not None

    def _emit_rows(self, node: Node) -> bool:
        kernel = node.inputs[1].op
        if not isinstance(kernel, Constant) or node.inputs[0] not in self.flat:
            return False
        x, order = self.flat[node.inputs[0]]
        rows = self.b.constant(kernel.value.array[order], kernel.name)
        rest = (self.form(value, identity(value.type.rank)) for value in node.inputs[2:])
        for old, new in zip(node.outputs, self.b.multi(node.op, x, rows, *rest), strict=True):
            self.forms[old] = {identity(old.type.rank): new}
        return True

    def _flat_result(self, node: Node) -> tuple[Value, Array] | None:
        """The result of an op that leaves the last axis in order, with that order."""
        y, op = node.outputs[0], node.op
        if isinstance(op, Concat) and op.axis % y.type.rank == y.type.rank - 1:
            return self._flat_concat(node, op)
        orders = [self.flat[value][1] for value in node.inputs if value in self.flat]
        if not _works_per_feature(op, y.type.rank) or any(not np.array_equal(o, orders[0]) for o in orders):
            return None
        operands = [self._flat_operand(value, y.type, orders[0]) for value in node.inputs]
        made = tuple(operand for operand in operands if operand is not None)
        return (self.b(op, *made), orders[0]) if len(made) == len(operands) else None

    def _flat_operand(self, value: Value, result: TensorType, order: Array) -> Value | None:
        if value in self.flat:
            return self.flat[value][0] if value.type.rank == result.rank else None
        if value.constant is None or along_axis(value, result.shape, -1) is None:
            return None
        array = value.constant
        return self.b.constant(array[..., order]) if array.ndim and array.shape[-1] == order.size else value

    def _flat_concat(self, node: Node, op: Concat) -> tuple[Value, Array] | None:
        if any(not isinstance(value.type.shape[-1], int) for value in node.inputs):
            return None
        operands: list[Value] = []
        orders: list[Array] = []
        offset = 0
        for value in node.inputs:
            extent = int(value.type.shape[-1])
            plain = value not in self.flat
            present = (self.form(value, identity(value.type.rank)), np.arange(extent)) if plain else self.flat[value]
            operands.append(present[0])
            orders.append(present[1] + offset)
            offset += extent
        return self.b(op, *operands), np.concatenate(orders)


def _as_window(array: Array, axes: int) -> Array:
    """`array` with so many axes of extent 1 before its own."""
    return array.reshape((1,) * axes + array.shape)


def _works_per_feature(op: Op, rank: int) -> bool:
    """Whether each element of the last axis of the result depends on that element of the operands alone."""
    return isinstance(op, Elementwise) or (isinstance(op, BatchNorm) and op.axis % rank == rank - 1)
