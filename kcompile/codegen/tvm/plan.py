"""What lowering makes of a graph: kernels in order, with their arguments.

A lowering rule stands beside its kernels and reads one node::

    @TVM.register(ops.Softmax)
    def softmax(plan: Plan, node: Node) -> None:
        plan.emit(Softmax(...), node.inputs[0], node.outputs[0])

Every `emit` is a stage; threads wait for each other between stages. The arguments stand in the order in which the
kernel's `build` declares its pointers: values of the graph, packed weights as NumPy arrays, and temporaries. A rule
whose kernel can apply elementwise ops before it stores asks for the `tail` of its node, and writes the tail's result
instead of the node's; for a rule that does not ask, a kernel of their own runs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from kcompile.codegen.lowering import LoweringTable
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Kernel
from kcompile.codegen.tvm.variants import ANALYTIC, Variant, Variants
from kcompile.codegen.tvm.vector import Chain
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops import TEXT, TRAINING, Scan
from kcompile.ir.types import Array, TensorType


@dataclass(frozen=True, eq=False)
class Temporary:
    """A dense array that lives from its first to its last stage; `per_thread` says that each thread has its own."""

    type: TensorType
    per_thread: bool = False


@dataclass(frozen=True, eq=False)
class Upcoming:
    """The last argument of a kernel that computes long on few weights, and meanwhile fetches `lines` cache lines of
    the weights that later stages read and no stage has fetched yet.
    """

    lines: int


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights as their kernel reads them, made when they are stored: one at a time is in memory beside the model."""

    type: TensorType
    make: Callable[[], Array]


Argument: TypeAlias = Value | Temporary | Array | Packed | Upcoming


@dataclass(frozen=True, eq=False)
class Stage:
    """One call of a kernel. `source` is the path of the Keras layer that it comes from.

    `macs` are the multiply-accumulates of the node, which stand at the last of its stages. `in_place` holds the numbers
    of two arguments, an operand and the result, that are one array. `number` is that of the group of nodes which it
    computes, -1 of a mere copy.
    """

    kernel: Kernel
    arguments: tuple[Argument, ...]
    source: str
    macs: Dim = 0
    in_place: tuple[int, int] | None = None
    number: int = -1

    def bytes(self) -> Dim:
        """Of the arrays that it reads or writes, each counted once and whole."""
        arrays = {id(a): a for a in self.arguments if not isinstance(a, Upcoming)}.values()
        return dims.add(
            *(a.nbytes if isinstance(a, np.ndarray) else dims.mul(a.type.itemsize, a.type.size) for a in arrays)
        )


@dataclass(frozen=True)
class Tail:
    """Elementwise ops that follow a node: operand 0 of the chain is the node's result, `operands` are the others."""

    chain: Chain
    operands: tuple[Value, ...]
    result: Value


@dataclass
class Plan:
    """The stages of a graph for `machine`.

    `unused` are results that nothing reads, which a kernel may leave out; with `fast_math`, one may lose a digit for
    speed; `fetches` says whether kernels may take `Upcoming`; `scaled` are products, with their factors, that are left
    to the convolution that reads them; `variants` say how groups of nodes depart from the models of costs, and `number`
    which group is lowered.
    """

    machine: Machine
    unused: frozenset[Value] = frozenset()
    fast_math: bool = False
    fetches: bool = False
    scaled: Mapping[Value, tuple[Value, Value]] = field(default_factory=dict[Value, tuple[Value, Value]])
    variants: Variants = field(default_factory=dict[int, Variant])
    number: int = 0
    stages: list[Stage] = field(default_factory=list[Stage])
    aliases: dict[Value, Value] = field(default_factory=dict[Value, Value])
    offsets: dict[Value, int] = field(default_factory=dict[Value, int])
    source: str = ""
    tails: dict[Node, Tail] = field(default_factory=dict[Node, Tail])
    pools: dict[Node, Node] = field(default_factory=dict[Node, Node])

    def emit(self, kernel: Kernel, *arguments: Argument) -> None:
        """Run `kernel` next."""
        self.stages.append(Stage(kernel, arguments, self.source, number=self.number))

    @property
    def variant(self) -> Variant:
        """Of the group of nodes that is lowered."""
        return self.variants.get(self.number, ANALYTIC)

    def alias(self, new: Value, old: Value, offset: int = 0) -> None:
        """`new` is `old` under another shape, or the part of it from `offset` bytes on; nothing is computed."""
        self.aliases[new] = old
        if offset:
            self.offsets[new] = offset

    def root(self, value: Value) -> tuple[Value, int]:
        """The value in whose memory `value` lies, and the bytes before it."""
        offset = 0
        while value in self.aliases:
            offset += self.offsets.get(value, 0)
            value = self.aliases[value]
        return value, offset

    def copy(self) -> "Plan":
        """The same plan, to be changed by itself."""
        return replace(self, stages=list(self.stages), aliases=dict(self.aliases), offsets=dict(self.offsets))

    def tail(self, node: Node) -> Tail:
        """The elementwise ops to apply to the first result of `node` before it is stored, which may be none."""
        result = node.outputs[0]
        return self.tails.pop(node, Tail(Chain((result.type,), result.type), (), result))

    def pool(self, node: Node) -> Node | None:
        """The pooling, if any, that alone reads the tail's result and that the kernel of `node` should do as well."""
        return self.pools.pop(node, None)

    def lower(self, nodes: Sequence[Node]) -> None:
        """Append the stages of `nodes`, each by the rule of its op."""
        for node in nodes:
            self.source, before = node.source, len(self.stages)
            self.number += 1
            TVM[node.op](self, node)
            if len(self.stages) > before:
                macs = node.op.macs(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))
                self.stages[-1] = replace(self.stages[-1], macs=macs)


Rule: TypeAlias = Callable[[Plan, Node], None]

TVM = LoweringTable[Rule]("tvm")
for _op in TRAINING:
    TVM.exclude(_op, "it appears only in training graphs")
for _op in TEXT:
    TVM.exclude(_op, "compiled code has no texts")
TVM.exclude(Scan, "compiled code has no loops of an open number of steps: fix it with `shapes`, or compile to ONNX")
