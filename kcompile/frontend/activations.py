"""Activations by Keras's names, with the formulas of https://keras.io/api/layers/activations/.

A layer keeps what `get` returns: a name, or a layer object (``LeakyReLU(0.1)``) for one with arguments. `apply` writes
its ops; `as_op` is the single elementwise op that a recurrent kernel can run inside its time loop.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kcompile.errors import ModelError
from kcompile.ir import dims, ops
from kcompile.ir.graph import Value
from kcompile.ir.op import Elementwise

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.tracing import Trace

Activation: TypeAlias = "str | Layer"

# Keras's names of activations that are one elementwise op; None is the identity.
_ELEMENTWISE: dict[str, Elementwise | None] = {
    "linear": None,
    "relu": ops.Relu(),
    "relu6": ops.Clip(0.0, 6.0),
    "leaky_relu": ops.LeakyRelu(0.2),
    "elu": ops.Elu(),
    "selu": ops.Selu(),
    "celu": ops.Celu(),
    "sigmoid": ops.Sigmoid(),
    "hard_sigmoid": ops.HardSigmoid(),
    # What "hard_sigmoid" means in files of Keras 1 and 2.
    "hard_sigmoid_v2": ops.HardSigmoid(alpha=0.2),
    # clip((x + 1) / 2, 0, 1); Blondel et al. 2019, arXiv:1901.02324.
    "sparse_sigmoid": ops.HardSigmoid(alpha=0.5),
    "silu": ops.Silu(),
    "hard_silu": ops.HardSilu(),
    "gelu": ops.Gelu(),
    "tanh": ops.Tanh(),
    "hard_tanh": ops.Clip(-1.0, 1.0),
    "softplus": ops.Softplus(),
    "softsign": ops.Softsign(),
    "exponential": ops.Exp(),
    "mish": ops.Mish(),
}


def like(t: "Trace", x: Value, number: float) -> Value:
    """A constant of rank 0 with the dtype of `x`."""
    return t.constant(np.asarray(number, x.type.dtype))


def _log_sigmoid(t: "Trace", x: Value) -> Value:
    return t(ops.Neg(), t(ops.Softplus(), t(ops.Neg(), x)))


def _tanh_shrink(t: "Trace", x: Value) -> Value:
    return t(ops.Sub(), x, t(ops.Tanh(), x))


def _hard_shrink(t: "Trace", x: Value) -> Value:
    keep = t(ops.Compare(">"), t(ops.Abs(), x), like(t, x, 0.5))
    return t(ops.Where(), keep, x, like(t, x, 0.0))


def _soft_shrink(t: "Trace", x: Value) -> Value:
    return t(ops.Sub(), x, t(ops.Clip(-0.5, 0.5), x))


def _squareplus(t: "Trace", x: Value) -> Value:
    root = t(ops.Sqrt(), t(ops.Add(), t(ops.Mul(), x, x), like(t, x, 4.0)))
    return t(ops.Mul(), t(ops.Add(), x, root), like(t, x, 0.5))


def _sparse_plus(t: "Trace", x: Value) -> Value:
    shifted = t(ops.Add(), x, like(t, x, 1.0))
    square = t(ops.Mul(), t(ops.Mul(), shifted, shifted), like(t, x, 0.25))
    middle = t(ops.Where(), t(ops.Compare("<"), x, like(t, x, 1.0)), square, x)
    return t(ops.Where(), t(ops.Compare("<="), x, like(t, x, -1.0)), like(t, x, 0.0), middle)


def _softmax(t: "Trace", x: Value) -> Value:
    return t(ops.Softmax(), x)


def _log_softmax(t: "Trace", x: Value) -> Value:
    return t(ops.LogSoftmax(), x)


def _glu(t: "Trace", x: Value) -> Value:
    extent = x.type.shape[-1]
    half = dims.exact_div(extent, 2)
    if half is None:
        raise ModelError(f'activation "glu" halves the last axis, whose extent must be even. Received: {x.type}.')
    axis = x.type.rank - 1
    gate = t(ops.Sigmoid(), t(ops.Slice(axis, half, extent), x))
    return t(ops.Mul(), t(ops.Slice(axis, 0, half), x), gate)


def _sparsemax(t: "Trace", x: Value) -> Value:
    """``max(x - tau, 0)``, after Martins and Astudillo 2016, arXiv:1602.02068, with the tau that Keras has.

    There it is ``(sum of the running sums over the support - 1) / support size``, not the sum of the elements.
    """
    extent = x.type.shape[-1]
    if not isinstance(extent, int):
        raise ModelError(f'activation "sparsemax" needs a known last extent. Received: {x.type}.')
    falling = t(ops.Sort(descending=True), x)
    total = t(ops.CumSum(-1), falling)
    count = t.constant(np.arange(1, extent + 1).astype(x.type.dtype))
    one, zero = like(t, x, 1.0), like(t, x, 0.0)
    bound = t(ops.Div(), t(ops.Sub(), total, one), count)
    support = t(ops.Compare(">"), t(ops.Sub(), falling, bound), zero)
    sums = t(ops.ReduceSum((-1,), keepdims=True), t(ops.Where(), support, total, zero))
    size = t(ops.ReduceSum((-1,), keepdims=True), t(ops.Cast(x.type.dtype), support))
    tau = t(ops.Div(), t(ops.Sub(), sums, one), size)
    return t(ops.Relu(), t(ops.Sub(), x, tau))


_COMPOSED: dict[str, Callable[["Trace", Value], Value]] = {
    "log_sigmoid": _log_sigmoid,
    "tanh_shrink": _tanh_shrink,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "squareplus": _squareplus,
    "sparse_plus": _sparse_plus,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "glu": _glu,
    "sparsemax": _sparsemax,
}

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}

NAMES = frozenset({*_ELEMENTWISE, *_COMPOSED, *_ALIASES})
# Those that Keras 3 has.
PUBLIC = NAMES - {"hard_sigmoid_v2"}


def canonical(name: str) -> str:
    """The name by which an activation is known here."""
    return _ALIASES.get(name, name)


def get(spec: Any, where: str) -> Activation:
    """The activation that a name, a config or a layer object stands for; None is "linear".

    Args:
        where: the argument and layer, for the error (``"`activation` of layer `conv1`"``).

    Raises:
        ModelError: Keras has no such activation and no layer is registered under that name.
    """
    from kcompile.frontend import registry
    from kcompile.frontend.layer import LAYERS, Layer
    from kcompile.frontend.layer_configs import deserialize_layer

    if spec is None:
        return "linear"
    if isinstance(spec, Layer):
        return spec
    name = spec
    if isinstance(spec, Mapping):
        parts: Any = spec
        if isinstance(parts.get("config"), Mapping):
            return deserialize_layer(parts)
        name = parts.get("config")
        if parts.get("registered_name") in LAYERS:
            name = parts["registered_name"]
    if callable(name):
        return _of_function(name)
    if isinstance(name, str) and name in NAMES:
        return canonical(name)
    if isinstance(name, str) and name in LAYERS:
        return LAYERS[name]()
    if (found := registry.find(name)) is not None:
        return get(found, where)
    law = f"{where} must be one of {', '.join(sorted(NAMES))}, a function, or a layer without weights"
    raise ModelError(f"{law}. Received: {spec!r}.")


def _of_function(function: Callable[..., Any]) -> Activation:
    """What a layer keeps of a function: its name where it is one of Keras's, else a layer that calls it."""
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.layers.functions import FunctionActivation

    if isinstance(function, type) and issubclass(function, Layer):
        return function()
    name = getattr(function, "keras_activation", None)
    return canonical(name) if name else FunctionActivation(function)


def serialize(activation: Activation) -> Any:
    """The activation as a config holds it."""
    from kcompile.frontend.layer_configs import serialize_layer
    from kcompile.frontend.layers.functions import FunctionActivation
    from kcompile.frontend.objects import serialize_keras_object

    if isinstance(activation, FunctionActivation):
        return serialize_keras_object(activation.function)
    return activation if isinstance(activation, str) else serialize_layer(activation)


def apply(t: "Trace", activation: Activation, x: Value) -> Value:
    """``activation(x)``.

    Raises:
        ModelError: the activation is a layer with weights of its own.
    """
    if isinstance(activation, str):
        op = _ELEMENTWISE.get(activation)
        if op is not None:
            return t(op, x)
        return _COMPOSED[activation](t, x) if activation in _COMPOSED else x
    result: Value = t.run(activation, x)
    if activation.weights:
        law = f"an activation must have no weights, as {type(activation).__name__} has"
        raise ModelError(f"{law}. Make it a layer of its own.")
    return result


def is_elementwise(activation: Activation) -> bool:
    """Whether the activation is the identity or one elementwise op."""
    named = isinstance(activation, str) and activation in _ELEMENTWISE
    return named or isinstance(getattr(activation, "elementwise", None), Elementwise)


def as_op(activation: Activation, where: str) -> Elementwise | None:
    """The activation as one elementwise op, None for the identity.

    Raises:
        ModelError: it is no single elementwise op.
    """
    if isinstance(activation, str) and activation in _ELEMENTWISE:
        return _ELEMENTWISE[activation]
    op = getattr(activation, "elementwise", None)
    if isinstance(op, Elementwise):
        return op
    law = f"{where} must be one of {', '.join(sorted(_ELEMENTWISE))} inside a recurrent layer"
    raise ModelError(f"{law}. Received: {activation!r}.")
