"""One step of a recurrent model as a graph: one element of the sequence goes in, beside what the layers remember.

Every value that holds the whole sequence has one axis of time; in a step that axis has one element. Ops that compute
each element by itself stay what they are, recurrent ones start from a state that is an input and give the next as an
output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from kcompile.ir import ops
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.types import TensorType

_RECURRENT = (ops.Lstm, ops.Gru, ops.SimpleRnn)
_STATES = ("h", "c")


class _Refused(Exception):
    """Why a model has no step."""


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        graph: takes the model's inputs, then the states; gives the model's outputs, then the next states.
        states: the types of the states by name, in order.
        moving: the inputs that hold a sequence, with the number of its elements, of which a step takes one.
        sequences: the outputs that hold a sequence, of which a step gives one element.
    """

    graph: Graph
    states: Mapping[str, TensorType]
    moving: Mapping[str, int]
    sequences: tuple[str, ...]


def step_of(graph: Graph) -> Step | str:
    """The step of a graph of known extents; or why there is none, which is empty where nothing is recurrent."""
    if not any(isinstance(node.op, _RECURRENT) for node in graph.nodes):
        return ""
    try:
        return _Stepping(graph).step()
    except _Refused as refusal:
        return str(refusal)


def _refuse(node: Node, what: str) -> _Refused:
    return _Refused(f"layer `{node.source or node.op.op_name}` {what}")


class _Stepping:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values: dict[Value, Value] = {}
        # The axis of time of values that have one.
        self._axes: dict[Value, int] = {}
        self._inputs: list[Value] = []
        self._next: list[Value] = []
        self._states: dict[str, TensorType] = {}

    def step(self) -> Step:
        """The step.

        Raises:
            _Refused: there is none.
        """
        moving = self._take_inputs()
        for node in self._graph.nodes:
            self._follow(node)
        outputs = tuple(self._values[value] for value in self._graph.outputs)
        names = (*self._graph.output_names, *(f"next {name}" for name in self._states))
        made = replace(
            self._graph, inputs=tuple(self._inputs), outputs=(*outputs, *self._next), output_names=names, notes=()
        )
        pairs = zip(self._graph.output_names, self._graph.outputs, strict=True)
        axes = {name: self._axes[value] for name, value in pairs if value in self._axes}
        turned = [name for name, axis in axes.items() if axis != 1]
        if turned:
            raise _Refused(f"output `{turned[0]}` holds a sequence along another axis than 1")
        return Step(made, self._states, moving, tuple(axes))

    def _take_inputs(self) -> dict[str, int]:
        """Inputs that lead to what a recurrent layer reads in turn hold a sequence along axis 1."""
        read = [v for n in self._graph.nodes if isinstance(n.op, _RECURRENT) for v in (n.inputs[0], *_mask(n))]
        found = _sources(read)
        moving: dict[str, int] = {}
        for value in self._graph.inputs:
            made = value
            if value in found:
                if value.type.rank < 2:
                    raise _Refused(f"input `{value.name}` has no axis of time")
                shape = value.type.static_shape()
                moving[value.name] = shape[1]
                made = Value(value.type.with_shape((shape[0], 1, *shape[2:])), name=value.name)
                self._axes[value] = 1
            self._values[value] = made
            self._inputs.append(made)
        if len(set(moving.values())) > 1:
            raise _Refused("its inputs hold sequences of several lengths")
        return moving

    def _follow(self, node: Node) -> None:
        if isinstance(node.op, _RECURRENT):
            self._recur(node)
            return
        inputs = tuple(self._values[value] for value in node.inputs)
        if not any(value in self._axes for value in node.inputs):
            same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
            self._enter(node, node if same else Node(node.op, inputs, node.source), None)
        elif isinstance(node.op, ops.Slice) and node.op.axis % node.inputs[0].type.rank == self._axes[node.inputs[0]]:
            self._pick(node, node.op)
        else:
            op, axis = self._local(node)
            self._enter(node, Node(op, inputs, node.source), axis)

    def _enter(self, old: Node, new: Node, axis: int | None) -> None:
        for before, after in zip(old.outputs, new.outputs, strict=True):
            self._values[before] = after
            if axis is not None:
                self._axes[before] = axis

    def _pick(self, node: Node, op: ops.Slice) -> None:
        """The last element of a sequence is the present one."""
        length = node.inputs[0].type.shape[op.axis]
        if not isinstance(length, int) or (op.start, op.stop) != (length - 1, length):
            raise _refuse(node, "picks steps of the sequence by their number")
        self._values[node.outputs[0]] = self._values[node.inputs[0]]

    def _recur(self, node: Node) -> None:
        op = node.op
        assert isinstance(op, ops.Lstm | ops.Gru | ops.SimpleRnn)
        if op.reverse:
            raise _refuse(node, "reads the sequence from its end")
        if op.has_initial_state:
            raise _refuse(node, "begins with a state that the model computes")
        if self._axes.get(node.inputs[0]) != 1:
            raise _refuse(node, "reads another sequence than the inputs'")
        layer = self._name(node.source or op.op_name)
        types = {f"{layer}/{name}": t.type for name, t in zip(_STATES, node.outputs[1:], strict=False)}
        states = [Value(type, name=name) for name, type in types.items()]
        weights = node.inputs[: 3 + op.biases]
        operands = (node.inputs[0], *weights[1:])
        inputs = (*(self._values[v] for v in operands), *states, *(self._values[v] for v in _mask(node)))
        made = Node(replace(op, has_initial_state=True), inputs, node.source)
        self._enter(node, made, None)
        self._axes[node.outputs[0]] = 1
        if op.has_mask and not op.zero_masked_output:
            # A masked step repeats the last output, which is the state.
            again = Node(ops.Reshape(made.outputs[0].type.shape), (made.outputs[1],), node.source)
            self._values[node.outputs[0]] = again.outputs[0]
        self._inputs += states
        self._next += made.outputs[1:]
        self._states |= types

    def _name(self, layer: str) -> str:
        """The layer's name, with a number where cells share it."""
        names = (layer, *(f"{layer}_{number}" for number in range(1, len(self._states) + 1)))
        return next(name for name in names if f"{name}/h" not in self._states)

    def _local(self, node: Node) -> tuple[Op, int]:
        """The op for one element, and the result's axis of time.

        Raises:
            _Refused: the op computes an element from others.
        """
        op, x = node.op, node.inputs[0]
        result = node.outputs[0].type.rank
        axis = self._axes.get(x, -1)
        rank = x.type.rank
        alone = axis >= 0 and not any(value in self._axes for value in node.inputs[1:])
        if isinstance(op, Elementwise) and (from_end := self._from_end(node.inputs)):
            return op, result - from_end
        if isinstance(op, ops.Dense | ops.LayerNorm | ops.BatchNorm) and alone and axis < rank - 1:
            return op, axis
        if isinstance(op, ops.Conv) and alone and _sees_one(node, op):
            return op, axis
        if isinstance(op, ops.Softmax | ops.LogSoftmax | ops.Slice) and op.axis % rank != axis:
            return op, axis
        if isinstance(op, ops.Gather) and axis < 0 and node.inputs[0].constant is not None:
            return op, op.axis % rank + self._axes[node.inputs[1]]
        if isinstance(op, ops.Transpose):
            return op, op.perm.index(axis)
        if isinstance(op, ops.Concat) and {self._axes.get(v) for v in node.inputs} == {axis} and op.axis % rank != axis:
            return op, axis
        if isinstance(op, ops.Reshape) and (place := _kept(x.type, node.outputs[0].type, axis)) is not None:
            shape = node.outputs[0].type.shape
            return ops.Reshape((*shape[:place], 1, *shape[place + 1 :])), place
        raise _refuse(node, f"computes a step from others ({op.op_name})")

    def _from_end(self, inputs: Sequence[Value]) -> int:
        """The distance of the axis of time from the end, if it is one for all operands that have it; else 0."""
        distances = {value.type.rank - self._axes[value] for value in inputs if value in self._axes}
        if len(distances) != 1:
            return 0
        distance = distances.pop()
        still = [value for value in inputs if value not in self._axes and value.type.rank >= distance]
        return distance if all(value.type.shape[-distance] == 1 for value in still) else 0


def _mask(node: Node) -> tuple[Value, ...]:
    op = node.op
    assert isinstance(op, ops.Lstm | ops.Gru | ops.SimpleRnn)
    return node.inputs[-1:] if op.has_mask else ()


def _sources(values: Sequence[Value]) -> set[Value]:
    """All values that `values` are computed from, with themselves."""
    found: set[Value] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in found:
            found.add(value)
            waiting += value.producer.inputs if value.producer else ()
    return found


def _sees_one(node: Node, op: ops.Conv) -> bool:
    """Whether a convolution reads one pixel at a time."""
    kernel = node.inputs[1].type.shape
    return set(kernel[:-2]) == {1} and set(op.strides) == {1} and op.data_format == "channels_last"


def _kept(old: TensorType, new: TensorType, axis: int) -> int | None:
    """The axis of `new` that is the axis of `old`, where a reshape leaves it whole."""
    before, after = old.static_shape(), new.static_shape()
    for place, extent in enumerate(after):
        if extent == before[axis] and prod(after[:place]) == prod(before[:axis]):
            return place
    return None
