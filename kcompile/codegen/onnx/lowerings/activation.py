"""Activations."""

from kcompile.codegen.onnx.emitter import Emitter
from kcompile.codegen.onnx.lowerings.arithmetic import same_meaning
from kcompile.codegen.onnx.table import ONNX
from kcompile.ir import ops
from kcompile.ir.graph import Node
from kcompile.ir.op import Op

SAME_MEANING: dict[type[Op], str] = {
    ops.Sigmoid: "Sigmoid",
    ops.Tanh: "Tanh",
    ops.Softplus: "Softplus",
    ops.Erf: "Erf",
}

for _class, _op_type in SAME_MEANING.items():
    ONNX.register(_class)(same_meaning(_op_type))


@ONNX.register(ops.Relu)
def relu(e: Emitter, op: ops.Relu, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    return e.node("Relu", x) if e.has_kernel("Relu", dtype) else e.typed("Max", dtype, x, e.scalar(0, dtype))


@ONNX.register(ops.LeakyRelu)
def leaky_relu(e: Emitter, op: ops.LeakyRelu, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    if e.has_kernel("LeakyRelu", dtype):
        return e.node("LeakyRelu", x, alpha=op.negative_slope)
    scaled = e.typed("Mul", dtype, x, e.scalar(op.negative_slope, dtype))
    return e.typed_where(_is_negative(e, x, dtype), scaled, x, dtype)


@ONNX.register(ops.PRelu)
def prelu(e: Emitter, op: ops.PRelu, node: Node) -> str:
    (x, alpha), type_ = e.inputs(node), node.inputs[0].type
    if node.outputs[0].type == type_ and e.has_kernel("PRelu", type_.dtype):
        return e.node("PRelu", x, alpha)
    scaled = e.typed("Mul", type_.dtype, x, alpha)
    return e.typed_where(_is_negative(e, x, type_.dtype), scaled, x, type_.dtype)


@ONNX.register(ops.Elu)
def elu(e: Emitter, op: ops.Elu, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    if e.has_kernel("Elu", dtype):
        return e.node("Elu", x, alpha=op.alpha)
    power = e.typed("Exp", dtype, e.typed("Min", dtype, x, e.scalar(0, dtype)))
    below = e.typed("Mul", dtype, e.typed("Sub", dtype, power, e.scalar(1, dtype)), e.scalar(op.alpha, dtype))
    return e.typed_where(_is_negative(e, x, dtype), below, x, dtype)


@ONNX.register(ops.Softsign)
def softsign(e: Emitter, op: ops.Softsign, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    if e.has_kernel("Softsign", dtype):
        return e.node("Softsign", x)
    size = e.typed("Add", dtype, e.typed("Abs", dtype, x), e.scalar(1, dtype))
    return e.typed("Div", dtype, x, size)


def _is_negative(e: Emitter, x: str, dtype: str) -> str:
    return e.typed("Less", dtype, x, e.scalar(0, dtype), back=False)


@ONNX.register(ops.Selu)
def selu(e: Emitter, op: ops.Selu, node: Node) -> str:
    return e.typed("Selu", node.inputs[0].type.dtype, *e.inputs(node), alpha=op.ALPHA, gamma=op.SCALE)


@ONNX.register(ops.Celu)
def celu(e: Emitter, op: ops.Celu, node: Node) -> str:
    return e.typed("Celu", node.inputs[0].type.dtype, *e.inputs(node), alpha=op.alpha)


@ONNX.register(ops.HardSigmoid)
def hard_sigmoid(e: Emitter, op: ops.HardSigmoid, node: Node) -> str:
    return e.typed("HardSigmoid", node.inputs[0].type.dtype, *e.inputs(node), alpha=op.alpha, beta=op.beta)


@ONNX.register(ops.Silu)
def silu(e: Emitter, op: ops.Silu, node: Node) -> str:
    dtype, x = node.inputs[0].type.dtype, e.name(node.inputs[0])
    return e.typed("Mul", dtype, x, e.typed("Sigmoid", dtype, x))


@ONNX.register(ops.HardSilu)
def hard_silu(e: Emitter, op: ops.HardSilu, node: Node) -> str:
    e.nearest("HardSigmoid", node.inputs[0].type.dtype)  # what the engine makes of HardSwish
    return e.node("HardSwish", *e.inputs(node))


@ONNX.register(ops.Mish)
def mish(e: Emitter, op: ops.Mish, node: Node) -> str:
    e.nearest("Softplus", node.inputs[0].type.dtype)  # what the engine makes of Mish
    return e.node("Mish", *e.inputs(node))


@ONNX.register(ops.Gelu)
def gelu(e: Emitter, op: ops.Gelu, node: Node) -> str:
    approximate = "tanh" if op.approximate else "none"
    return e.typed("Gelu", node.inputs[0].type.dtype, *e.inputs(node), approximate=approximate)


@ONNX.register(ops.Softmax)
def softmax(e: Emitter, op: ops.Softmax, node: Node) -> str:
    return e.typed("Softmax", node.inputs[0].type.dtype, *e.inputs(node), axis=op.axis)


@ONNX.register(ops.LogSoftmax)
def log_softmax(e: Emitter, op: ops.LogSoftmax, node: Node) -> str:
    return e.typed("LogSoftmax", node.inputs[0].type.dtype, *e.inputs(node), axis=op.axis)
