"""Recurrent layers, as ONNX's LSTM, GRU and RNN wherever these can express them."""

from typing import Any, TypeAlias

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.lowerings.loop import looped
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.op import Elementwise
from kcompile.ir.types import Array

Recurrent: TypeAlias = ops.Lstm | ops.Gru | ops.SimpleRnn

# The name of an activation, and its alpha and beta where it has them.
Activation: TypeAlias = tuple[str, float | None, float | None]

_OP_TYPES = {ops.Lstm: "LSTM", ops.Gru: "GRU", ops.SimpleRnn: "RNN"}

# Where ONNX's gates stand in Keras's order: i, o, f, c of i, f, c, o.
_GATE_ORDER = {ops.Lstm: (0, 3, 1, 2), ops.Gru: (0, 1, 2), ops.SimpleRnn: (0,)}

# ONNX Runtime lists float64 kernels too, which refuse to run.
_DTYPES = ("float16", "float32")


@ONNX.register(ops.Lstm, ops.Gru, ops.SimpleRnn)
def recurrent(e: Emitter, op: Recurrent, node: Node) -> tuple[str, ...]:
    known_weights = all(known(value) is not None for value in node.inputs[1 : 3 + op.biases])
    activations = [onnx_activation(a) for a in _activations(op)]
    named = [a for a in activations if a]
    if not known_weights or len(named) < len(activations) or node.inputs[0].type.dtype not in _DTYPES:
        return looped(e, op, node)
    return _masked(e, op, node, named) if op.has_mask else _unmasked(e, op, node, named)


def _activations(op: Recurrent) -> list[Elementwise | None]:
    """The activations in the order of ONNX's attribute: the gates', the candidate's, and the LSTM's output's."""
    match op:
        case ops.SimpleRnn():
            return [op.activation]
        case ops.Gru():
            return [op.recurrent_activation, op.activation]
        case ops.Lstm():
            return [op.recurrent_activation, op.activation, op.activation]


def onnx_activation(op: Elementwise | None) -> Activation | None:
    """The activation of ONNX's recurrent operators that is `op`; None where they lack it."""
    match op:
        case None:
            return "Affine", 1.0, 0.0
        case ops.HardSigmoid(alpha=alpha, beta=beta):
            return "HardSigmoid", alpha, beta
        case ops.Elu(alpha=alpha):
            return "Elu", alpha, None
        case ops.LeakyRelu(negative_slope=slope):
            return "LeakyRelu", slope, None
        case ops.Tanh() | ops.Sigmoid() | ops.Relu() | ops.Softsign() | ops.Softplus():
            return type(op).__name__, None, None
        case _:
            return None


def _unmasked(e: Emitter, op: Recurrent, node: Node, named: list[Activation]) -> tuple[str, ...]:
    x = e.transpose(e.name(node.inputs[0]), (1, 0, 2))
    y, *states = _operator(e, op, node, named, x, "")
    return (e.transpose(y, (1, 0, 2)), *states)


def _masked(e: Emitter, op: Recurrent, node: Node, named: list[Activation]) -> tuple[str, ...]:
    """The operator runs on the valid steps alone, moved to the front; its outputs are then taken from there.

    ONNX has no mask but the number of steps in each row. Beyond it outputs are 0, so that whatever must be 0 is read at
    index -1: where a step is masked, the last output is beyond that number.
    """
    x, mask = e.name(node.inputs[0]), e.name(node.inputs[-1])
    steps = e.cast(mask, "int32")
    _, order = e.multi("TopK", (steps, e.extent(node.inputs[0].type.shape[1])), (True, True), axis=1)
    lengths = e.node("ReduceSum", steps, e.ints(1), keepdims=0)
    y, *states = _operator(e, op, node, named, e.transpose(_taken(e, x, order), (1, 0, 2)), lengths)
    seen = e.node("CumSum", steps, e.scalar(1, "int64"))
    one = e.scalar(1, "int32")
    if op.zero_masked_output:
        index = e.node("Where", mask, e.node("Sub", seen, one), e.scalar(-1, "int32"))
    else:
        index = e.node("Sub", seen, steps if op.reverse else one)
    outputs = _taken(e, e.transpose(y, (1, 0, 2)), e.cast(index, "int64"))
    return (outputs, *_kept_states(e, op, node, states, lengths))


def _taken(e: Emitter, x: str, index: str) -> str:
    """``x: [N, L, K], index: i64[N, M] -> [N, M, K]``: in each row, the steps at `index`."""
    return e.node("GatherND", x, e.node("Unsqueeze", index, e.ints(-1)), batch_dims=1)


def _kept_states(e: Emitter, op: Recurrent, node: Node, states: list[str], lengths: str) -> list[str]:
    """The last states; of a row without valid steps the initial ones, where ONNX Runtime gives 0."""
    if not op.has_initial_state:
        return states
    is_empty = e.node("Unsqueeze", e.node("Equal", lengths, e.scalar(0, "int32")), e.ints(1))
    initial = node.inputs[3 + op.biases :][: op.states]
    return [e.node("Where", is_empty, e.name(value), s) for value, s in zip(initial, states, strict=True)]


def _operator(e: Emitter, op: Recurrent, node: Node, named: list[Activation], x: str, lengths: str) -> tuple[str, ...]:
    """The outputs ``[L, N, H]`` and the last states ``[N, H]`` of one operator, for ``x: [L, N, K]``."""
    given = node.inputs[3 + op.biases :][: op.states] if op.has_initial_state else ()
    initial = [e.node("Unsqueeze", e.name(value), e.ints(0)) for value in given]
    y, *states = e.multi(
        _OP_TYPES[type(op)],
        (x, *_weights(e, op, node), lengths, *initial),
        (True,) * len(node.outputs),
        hidden_size=node.inputs[2].type.shape[0],
        direction="reverse" if op.reverse else "forward",
        linear_before_reset=1 if isinstance(op, ops.Gru) and op.reset_after else None,
        **_named_activations(named),
    )
    return (e.node("Squeeze", y, e.ints(1)), *(e.node("Squeeze", state, e.ints(0)) for state in states))


def _named_activations(named: list[Activation]) -> dict[str, Any]:
    """The attributes: values are consumed by those activations alone that have an alpha, or a beta."""
    names = [name for name, _, _ in named]
    if names in (["Tanh"], ["Sigmoid", "Tanh"], ["Sigmoid", "Tanh", "Tanh"]):
        return {}
    alphas = [alpha for _, alpha, _ in named if alpha is not None]
    betas = [beta for _, _, beta in named if beta is not None]
    return {"activations": names, "activation_alpha": alphas or None, "activation_beta": betas or None}


def _weights(e: Emitter, op: Recurrent, node: Node) -> tuple[str, str, str]:
    """W ``[1, gates * H, K]``, R ``[1, gates * H, H]`` and B ``[1, 2 * gates * H]``."""
    values = node.inputs[1 : 3 + op.biases]
    arrays = [array for array in map(known, values) if array is not None]
    packed = [_reordered(array, _GATE_ORDER[type(op)]) for array in arrays]
    kernel, recurrent_kernel, bias, *recurrent_bias = packed
    both = np.concatenate([bias, *(recurrent_bias or [np.zeros_like(bias)])])
    stacked = (kernel.T[None], recurrent_kernel.T[None], both[None])
    w, r, b = (e.constant(array, e.weight_name(v)) for array, v in zip(stacked, values[:3], strict=True))
    return w, r, b


def _reordered(array: Array, order: tuple[int, ...]) -> Array:
    """``[..., gates * H]`` with the gates in another order."""
    by_gate = array.reshape(*array.shape[:-1], len(order), -1)
    return by_gate[..., order, :].reshape(array.shape)
