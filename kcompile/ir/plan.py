"""A graph of known extents as instructions over registers, for running it again and again.

Most results go into arrays that are allocated once, and shared by values whose lives do not meet. What a run returns is
never one of them, nor an argument: those arrays are new in each run. State, which a run reads and replaces, stays in
arrays of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from kcompile.ir.evaluate import computed
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.instructions import BOUND, IN_PLACE, INTO, SCALAR, VIEWS, Function, may_alias
from kcompile.ir.op import Arrays
from kcompile.ir.ops.constant import Constant
from kcompile.ir.ops.fused import Fused
from kcompile.ir.ops.gradients_recurrent import RecurrentGradient
from kcompile.ir.ops.shape import Concat, Reshape
from kcompile.ir.parts import (
    can_write_parts,
    into_in_parts,
    is_large,
    one_thread_products,
    recurrent_gradient_in_parts,
)
from kcompile.ir.types import Array, TensorType, array_dtype

Registers: TypeAlias = list[Any]
Instruction: TypeAlias = Callable[[], Any]
Kind: TypeAlias = Literal["constant", "scalar", "into", "kernel"]


@dataclass(frozen=True)
class Held:
    """State of a graph: an array in which an input is found, and which a run replaces by an output.

    Attributes:
        input: the name of the input.
        output: the number of the output.
        array: dense, of the input's type, whose rank is 1 or more.
    """

    input: str
    output: int
    array: Array


class Plan:
    """Runs a graph whose extents are all known.

    Args:
        graph: what to run.
        held: its state, of which no two share memory.

    Attributes:
        workspace: bytes of the arrays that are kept between runs.
    """

    def __init__(self, graph: Graph, held: Sequence[Held] = ()) -> None:
        arrays = {each.input: each.array for each in held}
        self._writes_at_end: list[tuple[int, Array]] = []
        writer = _Writer(graph, _Lives.of(graph, _replacing(graph, held)), arrays)
        for node in graph.nodes:
            writer.write(node)
        self.workspace = writer.workspace
        self._in_parts = writer.in_parts
        self._registers, self._instructions = writer.registers, writer.instructions
        self._initial = tuple(writer.registers)
        passed = [value for value in graph.inputs if value.name not in arrays]
        self._inputs = [(writer.numbers[value], not value.type.rank) for value in passed]
        kept = {each.output: each.array for each in held}
        for number, value in enumerate(graph.outputs):
            if number in kept and value not in writer.replaced:
                self._writes_at_end.append((writer.numbers[value], kept[number]))
        self._outputs = [
            (writer.numbers[value], bool(writer.lives.parts[value]), array_dtype(value.type.dtype))
            for number, value in enumerate(graph.outputs)
            if number not in kept
        ]

    def run(self, arguments: Sequence[Array]) -> list[Array]:
        """The outputs that are no state, for one array per input that is none."""
        registers = self._registers
        for (number, scalar), array in zip(self._inputs, arguments, strict=True):
            registers[number] = np.asarray(array)[()] if scalar else array
        try:
            with np.errstate(all="ignore"), one_thread_products() if self._in_parts else nullcontext():
                for instruction in self._instructions:
                    instruction()
            results = [
                np.array(registers[number], dtype) if borrowed else np.asarray(registers[number], dtype)
                for number, borrowed, dtype in self._outputs
            ]
            self._write_at_end()
        finally:
            registers[:] = self._initial
        return results

    def _write_at_end(self) -> None:
        # One may be a part of another's old value: all are read before any is written.
        for (_, array), value in [(each, np.array(self._registers[each[0]])) for each in self._writes_at_end]:
            array[...] = value


def _replacing(graph: Graph, held: Sequence[Held]) -> dict[Value, Value]:
    """The inputs that outputs may replace in place, by those outputs, each of which is returned nowhere else."""
    inputs = {value.name: value for value in graph.inputs}
    return {
        graph.outputs[each.output]: inputs[each.input]
        for each in held
        if graph.outputs.count(graph.outputs[each.output]) == 1
    }


def _kind(node: Node, kept: frozenset[Value]) -> Kind:
    """How a node is computed; halves, computed in single precision, and texts, of any length, are left to kernels."""
    values = (*node.inputs, *node.outputs)
    if isinstance(node.op, Constant):
        return "constant"
    if any(value.type.dtype in ("float16", "string") for value in values):
        return "kernel"
    if type(node.op) in SCALAR and not node.outputs[0].type.rank:
        return "scalar"
    fixed = type(node.op) in INTO and node.outputs[0].type.rank > 0 and node.outputs[0] not in kept
    return "into" if fixed else "kernel"


@dataclass
class _Lives:
    """How long memory is needed.

    Attributes:
        kinds: how each node is computed.
        replacing: the inputs in whose arrays results may be left, by those results.
        parts: for each value those whose memory it may be part of: itself, where it has an array of its own.
        ends: for each value the number of the node after which nothing reads its memory.
    """

    kinds: list[Kind]
    replacing: dict[Value, Value]
    parts: dict[Value, frozenset[Value]]
    ends: dict[Value, int] = field(default_factory=dict[Value, int])

    @classmethod
    def of(cls, graph: Graph, replacing: dict[Value, Value]) -> "_Lives":
        kept = frozenset(value for value in graph.outputs if value not in replacing)
        kinds: list[Kind] = [_kind(node, kept) for node in graph.nodes]
        lives = cls(kinds, replacing, {value: frozenset([value]) for value in graph.inputs})
        for node, kind in zip(graph.nodes, lives.kinds, strict=True):
            shared = frozenset[Value]()
            if kind == "kernel" and may_alias(node.op):
                shared = shared.union(*(lives.parts[value] for value in node.inputs))
            for value in node.outputs:
                lives.parts[value] = frozenset([value]) if kind in ("into", "constant") else shared
        for index, node in enumerate(graph.nodes):
            lives._read(node.inputs, index)
            lives._read(node.outputs, index)
        lives._read(graph.outputs, len(graph.nodes))
        return lives

    def _read(self, values: Sequence[Value], index: int) -> None:
        self.ends.update({part: index for value in values for part in self.parts[value]})


@dataclass(frozen=True)
class _Place:
    """Where a result lies in that of a concatenation: from this element on."""

    whole: Value
    start: int


def _places(graph: Graph, lives: _Lives) -> dict[Value, _Place]:
    """The results that can be written where a concatenation along the first axis would copy them.

    Nothing may read them after it, since its array may then be overwritten.
    """
    kinds = {node.outputs[0]: kind for node, kind in zip(graph.nodes, lives.kinds, strict=True)}
    found: dict[Value, _Place] = {}
    for index, node in enumerate(graph.nodes):
        whole, start = node.outputs[0], 0
        if not isinstance(node.op, Concat) or kinds[whole] != "into" or node.op.axis != 0 or whole in lives.replacing:
            continue
        for value in node.inputs:
            root = _reshaped(value)
            ends = lives.ends.get(root) == index and root not in lives.replacing
            if ends and kinds.get(root) == "into" and root not in found:
                found[root] = _Place(whole, start)
            start += int(value.type.size)
    return found


def _reshaped(value: Value) -> Value:
    """What reshapes alone lead to a value from."""
    while value.producer is not None and isinstance(value.op, Reshape):
        value = value.producer.inputs[0]
    return value


class _Writer:
    """Gives each value a register, writes the instructions, and finds arrays for the results."""

    def __init__(self, graph: Graph, lives: _Lives, held: Mapping[str, Array]) -> None:
        self.lives = lives
        self.registers: Registers = [held.get(value.name) for value in graph.inputs]
        self.numbers: dict[Value, int] = {value: number for number, value in enumerate(graph.inputs)}
        self.instructions: list[Instruction] = []
        self.workspace = 0
        self.in_parts = False
        self.replaced: set[Value] = set()
        self._index = 0
        # The values whose registers never change, the arrays of those that have their own, and arrays to use again.
        self._fixed = {value for value in graph.inputs if value.name in held}
        self._arrays: dict[Value, Array] = {}
        self._free: dict[int, list[Array]] = {}
        self._places = _places(graph, lives)

    def write(self, node: Node) -> None:
        """Write the next node."""
        kind, result = self.lives.kinds[self._index], node.outputs[0]
        if isinstance(node.op, Constant):
            array = node.op.value.array
            self._fix(result, array if array.ndim else array[()])
        elif kind == "scalar":
            self._compute(node, SCALAR[type(node.op)](node))
        elif kind == "into":
            self._into(node)
        elif not self._is_fixed_view(node):
            self._kernel(node)
        for value in [value for value in self._arrays if self.lives.ends[value] == self._index]:
            array = self._arrays.pop(value)
            self._free.setdefault(array.nbytes, []).append(array)
        self._index += 1

    def _register(self, value: Value, content: Any = None) -> int:
        self.numbers[value] = len(self.registers)
        self.registers.append(content)
        return self.numbers[value]

    def _fix(self, value: Value, content: Any) -> int:
        self._fixed.add(value)
        return self._register(value, content)

    def _is_fixed_view(self, node: Node) -> bool:
        """Whether a node gives a view of an array that never moves, which is then made once and for all."""
        if type(node.op) not in VIEWS or node.inputs[0] not in self._fixed or not node.inputs[0].type.rank:
            return False
        source = self.registers[self.numbers[node.inputs[0]]]
        (view,) = node.op.kernel((source,))
        if not view.ndim or (view.size and not np.may_share_memory(view, source)):
            return False
        self._fix(node.outputs[0], view)
        return True

    def _into(self, node: Node) -> None:
        result = node.outputs[0]
        if self._can_replace(node):
            self.replaced.add(result)
            number = self._fix(result, self.registers[self.numbers[self.lives.replacing[result]]])
        else:
            number = self._fix(result, self._array_for(node))
        if isinstance(node.op, Concat) and self._concat(node, number):
            return
        into = INTO[type(node.op)](node)
        if can_write_parts(node) and is_large(node):
            into, self.in_parts = into_in_parts(into, node), True
        elif type(node.op) in BOUND and self._fixed.issuperset(value for value in node.inputs if value.type.rank):
            self._bind(node, number)
            return
        self._write(into, node.inputs, number)

    def _bind(self, node: Node, result: int) -> None:
        """Write an instruction for arrays that stay where they are, which looks for them once."""
        registers, numbers = self.registers, [self.numbers[v] for v in node.inputs if not v.type.rank]
        arrays = [registers[self.numbers[value]] for value in node.inputs if value.type.rank]
        write = BOUND[type(node.op)](*arrays, registers[result])
        self.instructions.append(lambda: write(*[registers[number] for number in numbers]))

    def _write(self, into: Function, operands: Sequence[Value], result: int) -> None:
        """Write an instruction that computes to an array from operands; known ones are bound once and for all."""
        inputs, registers = [self.numbers[value] for value in operands], self.registers
        if self._fixed.issuperset(operands):
            self.instructions.append(partial(into, *(registers[number] for number in (*inputs, result))))
        else:
            self.instructions.append(_writing(registers, into, inputs, result))

    def _array_for(self, node: Node) -> Array:
        result = node.outputs[0]
        place = self._places.get(result)
        if place is not None:
            whole = self._own(place.whole).view(result.type.dtype)
            return whole[place.start : place.start + int(result.type.size)].reshape(result.type.static_shape())
        taken = self._taken_over(node)
        if taken is not None:
            self._arrays[result] = taken
        return self._own(result).view(result.type.dtype).reshape(result.type.static_shape())

    def _own(self, value: Value) -> Array:
        """The array of a value that has its own."""
        if value not in self._arrays:
            self._arrays[value] = self._allocated(value.type)
        return self._arrays[value]

    def _concat(self, node: Node, number: int) -> bool:
        """Write copies of the operands alone that do not lie in the result already, where some do."""
        if not any(place.whole is node.outputs[0] for place in self._places.values()):
            return False
        flat, start = self.registers[number].reshape(-1), 0
        for value in node.inputs:
            part = flat[start : start + int(value.type.size)].reshape(value.type.static_shape())
            place = self._places.get(_reshaped(value))
            if place != _Place(node.outputs[0], start):
                self.registers.append(part)
                self._write(_copy, [value], len(self.registers) - 1)
            start += int(value.type.size)
        return True

    def _can_replace(self, node: Node) -> bool:
        """Whether the result can be written over the state that it replaces: nothing reads that any more."""
        state = self.lives.replacing.get(node.outputs[0])
        if state is None or self.lives.ends.get(state, 0) > self._index:
            return False
        reads = [value for value in node.inputs if state in self.lives.parts[value]]
        return not reads or (type(node.op) in IN_PLACE and all(value is state for value in reads))

    def _taken_over(self, node: Node) -> Array | None:
        """The array of an operand of the result's type that nothing else reads, now or later."""
        if type(node.op) not in IN_PLACE:
            return None
        for value in node.inputs:
            others = (self.lives.parts[other] for other in node.inputs if other is not value)
            alone = value in self._arrays and self.lives.ends[value] == self._index
            if alone and value.type == node.outputs[0].type and not any(value in parts for parts in others):
                return self._arrays.pop(value)
        return None

    def _allocated(self, type: TensorType) -> Array:
        size = prod(type.static_shape()) * type.itemsize
        if self._free.get(size):
            return self._free[size].pop()
        self.workspace += size
        return np.empty(size, np.uint8)

    def _compute(self, node: Node, function: Function) -> None:
        inputs = [self.numbers[value] for value in node.inputs]
        self.instructions.append(_calling(self.registers, function, inputs, self._register(node.outputs[0])))

    def _kernel(self, node: Node) -> None:
        inputs = [self.numbers[value] for value in node.inputs]
        results = [self._register(value) for value in node.outputs]
        kernel = node.op.kernel
        if isinstance(node.op, RecurrentGradient) and is_large(node):
            kernel, self.in_parts = recurrent_gradient_in_parts(node.op), True
        self.instructions.append(_running(self.registers, node, kernel, inputs, results))


def _copy(x: Array, out: Array) -> None:
    np.copyto(out, x)


def _writing(registers: Registers, into: Function, inputs: Sequence[int], result: int) -> Instruction:
    if len(inputs) == 1:
        (x,) = inputs
        return lambda: into(registers[x], registers[result])
    if len(inputs) == 2:
        x, y = inputs
        return lambda: into(registers[x], registers[y], registers[result])
    return lambda: into(*[registers[number] for number in inputs], registers[result])


def _calling(registers: Registers, function: Function, inputs: Sequence[int], result: int) -> Instruction:
    if len(inputs) == 2:
        x, y = inputs

        def binary() -> None:
            registers[result] = function(registers[x], registers[y])

        return binary

    def any_number() -> None:
        registers[result] = function(*[registers[number] for number in inputs])

    return any_number


def _running(
    registers: Registers, node: Node, kernel: Callable[[Arrays], Arrays], inputs: Sequence[int], results: Sequence[int]
) -> Instruction:
    op = node.op
    scalars = [not value.type.rank for value in node.outputs]
    halves = not isinstance(op, Fused) and any(value.type.dtype == "float16" for value in (*node.inputs, *node.outputs))

    def run() -> None:
        arrays = tuple(np.asarray(registers[number]) for number in inputs)
        found = computed(op, arrays) if halves else kernel(arrays)
        for number, scalar, array in zip(results, scalars, found, strict=True):
            registers[number] = np.asarray(array)[()] if scalar else array

    return run
