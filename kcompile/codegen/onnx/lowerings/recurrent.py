"""Recurrent layers, as ONNX's LSTM, GRU and RNN."""

from typing import Any, TypeAlias

import numpy as np

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.table import ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.op import Elementwise
from kcompile.ir.types import Array

Recurrent: TypeAlias = ops.Lstm | ops.Gru | ops.SimpleRnn

# Where ONNX's gates stand in Keras's order: i, o, f, c of i, f, c, o.
_GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "RNN": (0,)}


def activation(op: Elementwise | None) -> tuple[str, float, float] | None:
    """Name, alpha and beta of ONNX's equal of an activation; None where ONNX has none."""
    match op:
        case None:
            return "Affine", 1.0, 0.0
        case ops.HardSigmoid(alpha=alpha, beta=beta):
            return "HardSigmoid", alpha, beta
        case ops.Elu(alpha=alpha):
            return "Elu", alpha, 0.0
        case ops.LeakyRelu(negative_slope=slope):
            return "LeakyRelu", slope, 0.0
        case ops.Tanh() | ops.Sigmoid() | ops.Relu() | ops.Softsign() | ops.Softplus():
            return type(op).__name__, 0.0, 0.0
        case _:
            return None


@ONNX.register(ops.Lstm, ops.Gru, ops.SimpleRnn)
def recurrent(e: Emitter, op: Recurrent, node: Node) -> tuple[str, ...]:
    if op.has_mask:
        raise UnsupportedOp("masks")
    x = e.transpose(e.name(node.inputs[0]), (1, 0, 2))
    y, *states = _native(e, op, node, x, lengths="")
    return (e.transpose(e.node("Squeeze", y, e.ints(1)), (1, 0, 2)), *states)


def _native(e: Emitter, op: Recurrent, node: Node, x: str, lengths: str) -> tuple[str, ...]:
    """The outputs ``[L, 1, N, H]`` and the last states ``[N, H]`` of one ONNX node, for ``x: [L, N, K]``."""
    op_type = {ops.Lstm: "LSTM", ops.Gru: "GRU", ops.SimpleRnn: "RNN"}[type(op)]
    given = node.inputs[3 + op.biases :][: op.states] if op.has_initial_state else ()
    initial = [e.node("Unsqueeze", e.name(value), e.ints(0)) for value in given]
    operands = (x, *_weights(e, op, node, op_type), lengths, *initial)
    attributes: dict[str, Any] = {"linear_before_reset": 1} if isinstance(op, ops.Gru) and op.reset_after else {}
    y, *states = e.multi(
        op_type,
        operands,
        (True,) * len(node.outputs),
        hidden_size=node.inputs[2].type.shape[0],
        direction="reverse" if op.reverse else "forward",
        **_activations(op),
        **attributes,
    )
    return (y, *(e.node("Squeeze", state, e.ints(0)) for state in states))


def _activations(op: Recurrent) -> dict[str, Any]:
    gates = () if isinstance(op, ops.SimpleRnn) else (op.recurrent_activation,)
    inner = (op.activation,) * (2 if isinstance(op, ops.Lstm) else 1)
    found = [activation(a) for a in (*gates, *inner)]
    known = [entry for entry in found if entry]
    if len(known) < len(found):
        raise UnsupportedOp(f"ONNX's recurrent operators lack the activations of {op}")
    if all(name in ("Tanh", "Sigmoid") for name, _, _ in known) and len(known) > 1:
        names = [name for name, _, _ in known]
        if names == ["Sigmoid", *["Tanh"] * len(inner)]:
            return {}
    names, alphas, betas = zip(*known, strict=True)
    return {"activations": names, "activation_alpha": alphas, "activation_beta": betas}


def _weights(e: Emitter, op: Recurrent, node: Node, op_type: str) -> tuple[str, str, str]:
    """W ``[1, gates * H, K]``, R ``[1, gates * H, H]`` and B ``[1, 2 * gates * H]``."""
    arrays = [value.constant for value in node.inputs[1 : 3 + op.biases]]
    names = [e.weight_name(value) for value in node.inputs[1 : 3 + op.biases]]
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        raise UnsupportedOp("ONNX's recurrent operators need weights that are known at compile time")
    packed = [_reordered(array, _GATE_ORDER[op_type]) for array in known]
    kernel, recurrent_kernel, bias, *recurrent_bias = packed
    both = np.concatenate([bias, *(recurrent_bias or [np.zeros_like(bias)])])
    return (
        e.constant(kernel.T[None], names[0]),
        e.constant(recurrent_kernel.T[None], names[1]),
        e.constant(both[None], names[2]),
    )


def _reordered(array: Array, order: tuple[int, ...]) -> Array:
    """``[..., gates * H]`` with the gates in another order."""
    by_gate = array.reshape(*array.shape[:-1], len(order), -1)
    return by_gate[..., order, :].reshape(array.shape)
