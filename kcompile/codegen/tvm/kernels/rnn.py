"""Recurrent layers: the inputs of all steps are projected by one product of matrices, then the time loop runs.

Where code and memory are scarce, the time loop projects the inputs of each step itself.
"""

import numpy as np

from kcompile.codegen.tvm.kernels.dense import Matrix, constant_of
from kcompile.codegen.tvm.kernels.recurrence import Recurrence
from kcompile.codegen.tvm.kernels.recurrence_tiling import PHASES, Cell, Tiling, tiling
from kcompile.codegen.tvm.kernels.tile import choose, pack
from kcompile.codegen.tvm.plan import TVM, Argument, Plan, Temporary
from kcompile.codegen.tvm.vector import Chain
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims, ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.types import Array, TensorType

# Parts of each sum of the inputs' projection, where there are registers for them: sums of half as many terms one after
# another lose half as much.
_CHAINS = 2


@TVM.register(ops.Lstm, ops.Gru, ops.SimpleRnn)
def recurrent(plan: Plan, node: Node) -> None:
    """Two stages, or one where memory is scarce; results that nothing reads are not stored."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, ops.Lstm | ops.Gru | ops.SimpleRnn)
    if x.type.dtype != "float32":
        where = node.source or "the graph itself"
        raise UnsupportedOp(f"target 'tvm' runs recurrent layers in float32. Received: {x.type.dtype} at {where}.")
    cell = _cell(op)
    kernel, recurrent_kernel, *biases = (constant_of(value, node) for value in node.inputs[1 : 3 + op.biases])
    hidden = recurrent_kernel.shape[0]
    layer = Recurrence(
        cell,
        op.activation,
        op.recurrent_activation,
        tiling(plan.machine, cell, hidden, x.type.shape[0]),
        x.type.shape[0],
        x.type.shape[1],
        op.reverse,
        op.has_initial_state,
        op.has_mask,
        op.zero_masked_output,
        node.outputs[0] not in plan.unused,
        tuple(state not in plan.unused for state in node.outputs[1:]),
        len(kernel) if plan.machine.compact and x.type.shape[0] == 1 else 0,
    )
    matrix = _cells(kernel, layer.tiling, layer.gates).reshape(len(kernel), -1)
    bias = _cells(_input_bias(cell, biases, hidden), layer.tiling, layer.gates).reshape(-1)
    inputs = [x, matrix.reshape(-1), bias] if layer.inputs else [_project(plan, x, matrix, bias)]
    constants = [_panels(layer, recurrent_kernel, phase) for phase in range(len(PHASES[cell]))]
    if cell == "gru":
        constants.append(_cells(biases[1][2 * hidden :], layer.tiling, 1).reshape(-1))
    wanted = [value for value in node.outputs if value not in plan.unused]
    scratch = Temporary(TensorType("float32", (layer.scratch_size,)), per_thread=True)
    plan.emit(layer, *inputs, *constants, *node.inputs[3 + op.biases :], *wanted, scratch)


def _cell(op: ops.Lstm | ops.Gru | ops.SimpleRnn) -> Cell:
    if isinstance(op, ops.Lstm):
        return "lstm"
    if isinstance(op, ops.SimpleRnn):
        return "simple"
    return "gru" if op.reset_after else "gru_reset_before"


def _input_bias(cell: Cell, biases: list[Array], hidden: int) -> Array:
    """What is added to the projected inputs: all biases but the one that a GRU's reset gate multiplies."""
    total = np.zeros_like(biases[0])
    for bias in biases:
        total += bias
    if cell == "gru":
        total[2 * hidden :] = biases[0][2 * hidden :]
    return total


def _project(plan: Plan, x: Value, matrix: Array, bias: Array) -> Argument:
    """``x @ matrix + bias`` for all steps at once."""
    (batch, steps), (width, columns) = x.type.shape[:2], matrix.shape
    rows = dims.mul(batch, steps)
    chains = _CHAINS if plan.machine.threaded else 1
    tile = choose(plan.machine, rows if isinstance(rows, int) else None, columns, chains=chains)
    result = TensorType("float32", (1, rows, columns))
    # Forget gates start with biases of 1, next to which small products lose bits; hence the biases come last.
    chain = Chain((result,), result).after_sum(TensorType("float32", bias.shape))
    projection = Matrix("float32", 1, rows, width, columns, tile, True, False, chain, chains=chains)
    projected = Temporary(TensorType("float32", (batch, steps, columns)))
    plan.emit(projection, x, pack(matrix, tile[1]), bias, projected)
    return projected


def _cells(array: Array, tiling: Tiling, gates: int) -> Array:
    """``[..., gates * hidden] -> [..., vectors, gates, lanes]``; units that fill the last vector are 0."""
    lead = array.shape[:-1]
    by_gate = np.zeros((*lead, gates, tiling.padded), np.float32)
    by_gate[..., : tiling.hidden] = array.reshape(*lead, gates, tiling.hidden)
    return np.ascontiguousarray(by_gate.reshape(*lead, gates, tiling.vectors, tiling.lanes).swapaxes(-3, -2))


def _panels(layer: Recurrence, recurrent_kernel: Array, phase: int) -> Array:
    """The recurrent weights of a phase's gates, by panel of cells, then by unit of the last output."""
    gates = PHASES[layer.cell][phase]
    hidden = layer.tiling.hidden
    chosen = np.concatenate([recurrent_kernel[:, gate * hidden : (gate + 1) * hidden] for gate in gates], axis=1)
    cells = _cells(chosen, layer.tiling, len(gates))
    return np.concatenate([cells[:, first : first + count].reshape(-1) for first, count in layer.tiling.passes(phase)])
