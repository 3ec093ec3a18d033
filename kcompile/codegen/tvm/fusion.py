"""Which nodes of a fused group become one kernel: a root and the elementwise ops after it, or elementwise ops alone."""

from collections.abc import Sequence

from kcompile.codegen.tvm.kernels.elementwise import chain_of, emit_chain
from kcompile.codegen.tvm.plan import TVM, Plan, Tail
from kcompile.codegen.tvm.vector import VECTOR
from kcompile.ir import ops
from kcompile.ir.graph import Node, Value

# These read what a group is given, and belong to the node that reads their result.
_WIDENINGS = ops.DequantizeLinear | ops.FromBfloat16


@TVM.register(ops.Fused)
def fused(plan: Plan, node: Node) -> None:
    """Lower the groups of the body, its inputs being the node's operands."""
    op = node.op
    assert isinstance(op, ops.Fused)
    values: dict[Value, Value] = dict(zip(op.body.inputs, node.inputs, strict=True))
    nodes: list[Node] = []
    for inner in op.body.nodes:
        made = Node(inner.op, tuple(values[value] for value in inner.inputs), inner.source or node.source)
        values.update(zip(inner.outputs, made.outputs, strict=True))
        nodes.append(made)
    results = [values[value] for value in op.body.outputs]
    found = groups([made for made in nodes if not isinstance(made.op, ops.Constant)], results)
    for group, after in zip(found, [*found[1:], []], strict=True):
        if _pools(group, after, found, results):
            plan.pools[group[0]] = after[0]
    joined = set(plan.pools.values())
    for group in found:
        if group[0] not in joined:
            plan.number += 1
            lower_group(plan, group)
    for outer, result in zip(node.outputs, results, strict=True):
        plan.alias(outer, result)


def groups(nodes: Sequence[Node], results: Sequence[Value]) -> list[list[Node]]:
    """`nodes`, in order, cut into kernels; what is read outside a group is its last result (or one of its root)."""
    found: list[list[Node]] = []
    made = {value for node in nodes for value in node.outputs}
    waiting: dict[Value, Node] = {}
    for node in nodes:
        if isinstance(node.op, _WIDENINGS) and not made.intersection(node.inputs):
            waiting[node.outputs[0]] = node
            continue
        widened = [waiting.pop(value) for value in dict.fromkeys(node.inputs) if value in waiting]
        if found and node.op in VECTOR and _extends(found[-1], node):
            found[-1] += [*widened, node]
        else:
            found += [*([each] for each in widened), [node]]
    found += [[node] for node in waiting.values()]
    read: list[tuple[Value, list[Node] | None]] = [(result, None) for result in results]
    read += [(value, group) for group in found for node in group for value in node.inputs]
    return [part for group in found for part in _cut(group, read)]


def _extends(group: list[Node], node: Node) -> bool:
    """Whether `node` continues the group: it reads its results, none of which has another shape."""
    first = group[0].outputs[0]
    reads = [value for value in node.inputs if value.producer in group]
    return bool(reads) and all(value.index == 0 for value in reads) and node.outputs[0].type.shape == first.type.shape


def _cut(group: list[Node], read: Sequence[tuple[Value, list[Node] | None]]) -> list[list[Node]]:
    """The group in pieces, each ending where its result is read outside."""
    outside = {value for value, reader in read if reader is not group}
    pieces: list[list[Node]] = [[]]
    for node in group:
        pieces[-1].append(node)
        if node.outputs[0] in outside:
            pieces.append([])
    pieces = [piece for piece in pieces if piece]
    # A later piece may read the middle of an earlier one, which then has to end there, too.
    if len(pieces) > 1:
        inner = [*read, *((value, piece) for piece in pieces for node in piece for value in node.inputs)]
        inner = [(value, reader) for value, reader in inner if reader is not group]
        if any(_crosses(piece, inner) for piece in pieces):
            return [[node] for node in group]
    return pieces


def _crosses(piece: list[Node], read: Sequence[tuple[Value, list[Node] | None]]) -> bool:
    middle = {node.outputs[0] for node in piece[:-1]}
    return any(value in middle and reader is not piece for value, reader in read)


def _pools(group: list[Node], after: list[Node], found: list[list[Node]], results: Sequence[Value]) -> bool:
    """Whether `after` is a pooling, and the only reader, of the group's result, with windows side by side inside it."""
    if len(after) != 1 or not isinstance(after[0].op, ops.MaxPool | ops.AvgPool):
        return False
    op, value = after[0].op, group[-1].outputs[0]
    readers = [node for other in found for node in other if value in node.inputs]
    apart = all(size <= step for size, step in zip(op.pool_size, op.strides, strict=True))
    return readers == after and value not in results and apart and op.padding == "valid"


def lower_group(plan: Plan, group: list[Node]) -> None:
    """One kernel, or two where the root's rule does not take a tail."""
    root, rest = group[0], group[1:]
    plan.source = root.source
    if root.op in VECTOR:
        emit_chain(plan, *chain_of(group), group[-1].outputs[0])
        return
    if rest:
        chain, operands = chain_of(rest, root.outputs[0])
        plan.tails[root] = Tail(chain, operands[1:], rest[-1].outputs[0])
    TVM[root.op](plan, root)
    tail = plan.tails.pop(root, None)
    if tail:
        emit_chain(plan, tail.chain, (root.outputs[0], *tail.operands), tail.result)
    pool = plan.pools.pop(root, None)
    if pool:
        lower_group(plan, [pool])
