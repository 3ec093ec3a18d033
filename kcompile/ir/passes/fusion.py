"""Groups nodes that one kernel can compute: what is computed stays in registers until the group's result is stored.

A group is a convolution, a product of matrices, a pooling or a layer normalization with the elementwise ops after it
(bias, activation, residual sum, scale), and with the pooling after those where its windows do not overlap; or
elementwise ops alone. Of a group one value is read outside, so nothing is computed twice and no cycle can arise. A
group stands in the graph as `Fused`, labelled with the names of its ops.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from kcompile.ir.graph import Builder, Graph, Node, Value, substitute
from kcompile.ir.op import Elementwise
from kcompile.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Constant,
    Conv,
    ConvNarrow,
    ConvTranspose,
    Dense,
    DenseNarrow,
    DequantizeLinear,
    FromBfloat16,
    Fused,
    LayerNorm,
    MatMul,
    MaxPool,
    Mul,
    Sub,
)
from kcompile.ir.passes.batch_norm import affine
from kcompile.ir.passes.linear import MAX_SHIFT
from kcompile.ir.passes.manager import Pass
from kcompile.ir.passes.rewrite import Context, Result, Skip, rewrite, rule
from kcompile.ir.types import Array

# Those that compute most are served first.
_HEAVY = Conv | ConvNarrow | ConvTranspose | Dense | DenseNarrow | MatMul
_LIGHT = MaxPool | AvgPool | LayerNorm
# What is kept in few bits is widened where it is read, by every group anew.
_WIDENINGS = DequantizeLinear | FromBfloat16


def fuse(graph: Graph) -> Graph:
    """`graph` with groups of nodes as `Fused` nodes."""
    return Pass("fuse", _fuse)(graph)


def fusion_skips(graph: Graph) -> list[Skip]:
    """Why groups of `graph` end before an op that one kernel could compute too."""
    groups = _Groups(rewrite(graph, (batch_norm_as_arithmetic,)))
    groups.find()
    return groups.skips


def _fuse(graph: Graph) -> Graph:
    graph = rewrite(graph, (batch_norm_as_arithmetic,))
    groups = _Groups(graph).find()
    replacements = {members[-1].outputs[0]: _fused(members, label).outputs[0] for members, label in groups}
    return substitute(graph, replacements)


@rule(BatchNorm)
def batch_norm_as_arithmetic(c: Context, node: Node, op: BatchNorm) -> Result:
    """A batch normalization that no layer could take is elementwise arithmetic, ``x * s + t``."""
    factors = affine(node, op)
    if factors is None:
        return None
    x, gamma, beta, mean = node.inputs[:4]
    trailing = x.type.rank - 1 - op.axis % x.type.rank

    def constant(array: Array, like: Value) -> Value:
        name = like.op.name if isinstance(like.op, Constant) else ""
        return c.b.constant(array.astype(x.type.dtype).reshape(-1, *[1] * trailing), name)

    scale, shift = factors
    if abs(shift).max(initial=0) <= MAX_SHIFT:
        return c.b(Add(), c.b(Mul(), x, constant(scale, gamma)), constant(shift, beta))
    # A mean that is large against the deviation is taken off first, so that no digits cancel.
    centred = c.b(Sub(), x, constant(_array(mean), mean))
    return c.b(Add(), c.b(Mul(), centred, constant(scale, gamma)), constant(_array(beta), beta))


def _array(value: Value) -> Array:
    assert isinstance(value.op, Constant)
    return value.op.value.array


class _Groups:
    """Finds the groups of a graph; no node is in two."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.taken: set[Node] = set()
        self.skips: list[Skip] = []
        self.position = {node: i for i, node in enumerate(graph.nodes)}
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for value in node.inputs:
                self.readers.setdefault(value, []).append(node)

    def find(self) -> list[tuple[list[Node], str]]:
        """The members of each group in order, and its label."""
        found: list[tuple[list[Node], str]] = []
        # Last first, so that a residual sum goes to the later of its operands, when the other is there already.
        for kinds in (_HEAVY, _LIGHT, Elementwise):
            for node in reversed(self.graph.nodes):
                if not isinstance(node.op, kinds) or node in self.taken:
                    continue
                pure = kinds is Elementwise
                members = self._closure(node) if pure else self._tail(node)
                if len(members) > 1:
                    self.taken.update(members)
                    label = "elementwise" if pure else "+".join(member.op.op_name for member in members)
                    found.append((members, label))
        return found

    def _tail(self, anchor: Node) -> list[Node]:
        """`anchor` and the elementwise nodes after it, up to the last that alone is read outside; then a pooling."""
        members, committed = [anchor], 1
        unread = {anchor.outputs[0]: self.graph.uses[anchor.outputs[0]]}
        waiting: list[tuple[int, Node]] = []
        self._wait_for_readers(waiting, anchor)
        while waiting:
            _, node = heappop(waiting)
            if node in members:
                continue
            if not self._continues(node, anchor):
                break
            for value in node.inputs:
                if value in unread:
                    unread[value] -= 1
            members.append(node)
            if not any(unread.values()):
                committed = len(members)
            unread[node.outputs[0]] = self.graph.uses[node.outputs[0]]
            self._wait_for_readers(waiting, node)
        members = members[:committed]
        return members + self._after(anchor, members[-1])

    def _wait_for_readers(self, waiting: list[tuple[int, Node]], node: Node) -> None:
        for reader in self.readers.get(node.outputs[0], ()):
            heappush(waiting, (self.position[reader], reader))

    def _continues(self, node: Node, anchor: Node) -> bool:
        same_shape = node.outputs[0].type.shape == anchor.outputs[0].type.shape
        return isinstance(node.op, Elementwise) and same_shape and node not in self.taken

    def _after(self, anchor: Node, last: Node) -> list[Node]:
        """The pooling after a convolution's tail, with its own; nothing, and a reason, where it only looks fitting."""
        readers = self.readers.get(last.outputs[0], [])
        if self.graph.uses[last.outputs[0]] != 1:
            if any(self._continues(node, anchor) for node in readers):
                reason = f"the result of the `{last.op.op_name}` at its end has {self.graph.uses[last.outputs[0]]} uses"
                self.skips.append(Skip(reason, "fuse", anchor))
            return []
        node = readers[0] if readers else last
        if not isinstance(anchor.op, Conv) or not isinstance(node.op, MaxPool | AvgPool) or node in self.taken:
            return []
        overlaps = any(size > step for size, step in zip(node.op.pool_size, node.op.strides, strict=True))
        if overlaps or node.op.padding != "valid" or node.op.data_format != anchor.op.data_format:
            reason = f"the windows of the `{node.op.op_name}` after it overlap, or reach into padding"
            self.skips.append(Skip(reason, "fuse", anchor))
            return []
        return self._tail(node)

    def _closure(self, root: Node) -> list[Node]:
        """`root` and the elementwise nodes of its shape before it that are read by these nodes alone."""
        members = {root}
        waiting: list[tuple[int, Node]] = []
        self._wait_for_operands(waiting, root)
        while waiting:
            _, node = heappop(waiting)
            value = node.outputs[0]
            inside = [reader for reader in self.readers.get(value, ()) if reader in members]
            if node in members or not self._continues(node, root) or len(inside) < self.graph.uses[value]:
                continue
            members.add(node)
            self._wait_for_operands(waiting, node)
        return sorted(members, key=self.position.__getitem__)

    def _wait_for_operands(self, waiting: list[tuple[int, Node]], node: Node) -> None:
        for value in node.inputs:
            if value.producer:
                heappush(waiting, (-self.position[value.producer], value.producer))


def _with_widenings(members: Sequence[Node]) -> list[Node]:
    """The members, before each elementwise one those that widen what it reads."""
    nodes: list[Node] = []
    for node in members:
        producers = (value.producer for value in node.inputs if isinstance(node.op, Elementwise))
        nodes += [each for each in producers if each and isinstance(each.op, _WIDENINGS) and each not in members]
        nodes.append(node)
    return list(dict.fromkeys(nodes))


def _fused(members: Sequence[Node], label: str) -> Node:
    """The members as one node; numbers in arithmetic stand inside it, and all else that they read is an operand."""
    b = Builder("body")
    values: dict[Value, Value] = {}
    operands: list[Value] = []
    names: set[str] = set()
    for node in _with_widenings(members):
        for value in node.inputs:
            if value in values:
                continue
            if isinstance(value.op, Constant) and value.type.size == 1 and isinstance(node.op, Elementwise):
                values[value] = b(value.op)
                continue
            name = value.op.name if isinstance(value.op, Constant) and value.op.name not in names else ""
            name = name or f"x{len(operands)}"
            names.add(name)
            operands.append(value)
            values[value] = b.input(name, value.type)
        with b.at(node.source):
            values.update(zip(node.outputs, b.multi(node.op, *(values[v] for v in node.inputs)), strict=True))
    body = b.build([values[members[-1].outputs[0]]])
    return Node(Fused(label, body), tuple(operands), members[0].source)
