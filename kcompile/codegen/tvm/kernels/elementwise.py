"""Elementwise ops with numpy broadcasting: a whole chain of them is one kernel."""

from collections.abc import Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm.epilogue import Access
from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.plan import TVM, Plan
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.vector import VECTOR, Chain
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim, Shape
from kcompile.ir.graph import Node, Value
from kcompile.ir.op import Op
from kcompile.ir.types import Array, TensorType

# Elements that a thread takes at once: enough to hide the loop, few enough to share.
_BLOCK = 2048


@dataclass(frozen=True)
class Elementwise(Kernel, family="elementwise"):
    """``y = chain(x0, x1, …)`` on broadcast operands. Arguments: the chain's operands, then y."""

    chain: Chain

    @property
    def overwritable(self) -> tuple[int, ...]:
        return tuple(i for i, operand in enumerate(self.chain.operands) if operand == self.chain.result)

    def build(self, f: Function) -> None:
        chain, shape = self.chain, self.chain.result.shape
        operands = [
            Access(f, f.pointer(f"x{i}", operand.dtype), operand, shape) for i, operand in enumerate(chain.operands)
        ]
        y = f.pointer("y", chain.result.dtype)
        extents = [f.extent(dim) for dim in shape]

        def compute(position: list[Index], offset: Index, lanes: int) -> None:
            values = [operand.load(position, lanes) for operand in operands]
            y.store(offset, chain.apply(f, values).broadcast(lanes))

        if len(shape) == 1:
            for start, length in f.parallel_tiles(extents[0], _BLOCK):
                for i, lanes in f.vectors(length):
                    compute([start + i], start + i, lanes)
            return
        with f.parallel(f.extent(dims.mul(*shape[:-1]))) as row:
            lead = f.unravel(row, extents[:-1])
            for i, lanes in f.vectors(extents[-1]):
                compute([*lead, i], row * extents[-1] + i, lanes)


def regroup(chain: Chain, ends: Sequence[int]) -> Chain | None:
    """The same chain with neighbouring axes of the result merged, or None if a broadcast forbids it.

    The first group of axes ends before ``ends[0]``, the next before ``ends[1]`` and so on; an empty group has extent 1.
    """
    result: Shape = chain.result.shape
    starts = [0, *ends[:-1]]

    def merged(t: TensorType) -> TensorType | None:
        shape = (1,) * (len(result) - t.rank) + t.shape
        groups = [shape[start:end] for start, end in zip(starts, ends, strict=True)]
        full = [result[start:end] for start, end in zip(starts, ends, strict=True)]
        if all(g == f or set(g) <= {1} for g, f in zip(groups, full, strict=True)):
            return TensorType(t.dtype, tuple(dims.mul(*group) for group in groups))
        return None

    operands = [merged(operand) for operand in chain.operands]
    whole = merged(chain.result)
    known = [operand for operand in operands if operand]
    return Chain(tuple(known), whole, chain.steps) if whole and len(known) == len(operands) else None


def collapse(chain: Chain) -> Chain:
    """The same chain on as few axes as its broadcasts allow, at least one."""
    rank = chain.result.rank
    shapes = [(1,) * (rank - operand.rank) + operand.shape for operand in chain.operands]
    groups: list[list[int]] = []
    patterns: list[tuple[bool, ...]] = []
    for axis, extent in enumerate(chain.result.shape):
        if extent == 1:
            continue
        stretched = tuple(shape[axis] == 1 for shape in shapes)
        if patterns and patterns[-1] == stretched:
            groups[-1].append(axis)
        else:
            groups.append([axis])
            patterns.append(stretched)

    def merged(dtype: str, shape: Shape) -> TensorType:
        extents: list[Dim] = [dims.mul(*(shape[axis] for axis in group)) for group in groups]
        return TensorType(dtype, tuple(extents) or (1,))

    operands = tuple(merged(t.dtype, shape) for t, shape in zip(chain.operands, shapes, strict=True))
    return Chain(operands, merged(chain.result.dtype, chain.result.shape), chain.steps)


def chain_of(nodes: Sequence[Node], first: Value | None = None) -> tuple[Chain, tuple[Value, ...]]:
    """Elementwise nodes as a chain and its operands, of which `first` is the first; scalar constants are part of it.

    Scales are not, or no two quantised layers would share a kernel.
    """
    made = {node.outputs[0] for node in nodes}
    read = [value for node in nodes for value in node.inputs if value not in made]
    linear = (ops.DequantizeLinear, ops.QuantizeLinear)
    scales = {v for n in nodes if isinstance(n.op, linear) for v in n.inputs[1:] if _is_own(v.constant)}
    operands = list(dict.fromkeys(([first] if first else []) + [v for v in read if _scalar(v) is None or v in scales]))
    numbers = {value: i for i, value in enumerate(operands)}
    steps: list[tuple[Op, tuple[int, ...]]] = []
    for node in nodes:
        for value in node.inputs:
            if value not in numbers:
                numbers[value] = len(operands) + len(steps)
                steps.append((_scalar(value) or node.op, ()))
        steps.append((node.op, tuple(numbers[value] for value in node.inputs)))
        numbers[node.outputs[0]] = len(operands) + len(steps) - 1
    chain = Chain(tuple(value.type for value in operands), nodes[-1].outputs[0].type, tuple(steps))
    return chain, tuple(operands)


def _is_own(array: Array | None) -> bool:
    """Whether a scale or zero point is another than 1 or 0, which layers have in common."""
    return array is not None and not bool(((array == 0) | (array == 1)).all())


def emit_chain(plan: Plan, chain: Chain, operands: Sequence[Value], result: Value) -> None:
    """Run the chain as a kernel of its own."""
    plan.emit(Elementwise(collapse(chain)), *operands, result)


def _scalar(value: Value) -> ops.Constant | None:
    op = value.op
    return op if isinstance(op, ops.Constant) and value.type.size == 1 else None


@TVM.register(*(cls for cls in VECTOR.lowerings if cls is not ops.Constant))
def elementwise(plan: Plan, node: Node) -> None:
    """One op is a chain of one; what the next kernel scales its weights by takes none."""
    if node.outputs[0] not in plan.scaled:
        emit_chain(plan, *chain_of([node]), node.outputs[0])
