"""Arithmetic, comparisons, activations and reductions of ``keras.ops``."""

from typing import Any

import numpy as np

from kcompile.frontend import activations
from kcompile.frontend.agreement import broadcasting
from kcompile.frontend.operations.operation import Number, as_value, axes_of, meeting, one_axis, operation, promoted
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value
from kcompile.ir.op import Op

_UNARY: dict[str, Op] = {
    "Abs": ops.Abs(),
    "Absolute": ops.Abs(),
    "Ceil": ops.Ceil(),
    "Floor": ops.Floor(),
    "Negative": ops.Neg(),
    "Sign": ops.Sign(),
}
_FLOATING: dict[str, Op] = {
    "Cos": ops.Cos(),
    "Exp": ops.Exp(),
    "Log": ops.Log(),
    "Sin": ops.Sin(),
    "Sqrt": ops.Sqrt(),
    "Tanh": ops.Tanh(),
}
_BINARY: dict[str, Op] = {
    "Add": ops.Add(),
    "FloorDivide": ops.FloorDiv(),
    "Maximum": ops.Maximum(),
    "Minimum": ops.Minimum(),
    "Mod": ops.Mod(),
    "Multiply": ops.Mul(),
    "Power": ops.Pow(),
    "Subtract": ops.Sub(),
    "Equal": ops.Compare("=="),
    "Greater": ops.Compare(">"),
    "GreaterEqual": ops.Compare(">="),
    "Less": ops.Compare("<"),
    "LessEqual": ops.Compare("<="),
    "NotEqual": ops.Compare("!="),
}
_ACTIVATIONS = {
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "HardTanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "SparsePlus": "sparse_plus",
    "SparseSigmoid": "sparse_sigmoid",
    "TanhShrink": "tanh_shrink",
}
_REDUCTIONS = {"Max": ops.ReduceMax, "Amax": ops.ReduceMax, "Min": ops.ReduceMin, "Amin": ops.ReduceMin}


def _unary(op: Op, floating: bool) -> Any:
    def rule(t: Trace, x: Number) -> Value:
        return t(op, *promoted(t, x, floating=floating))

    return rule


def _binary(op: Op) -> Any:
    def rule(t: Trace, x1: Number, x2: Number) -> Value:
        return t(op, *meeting(t, x1, x2))

    return rule


def _activation(name: str) -> Any:
    def rule(t: Trace, x: Value) -> Value:
        return activations.apply(t, name, x)

    return rule


def _reduction(kind: Any) -> Any:
    def rule(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Value:
        found = t(kind(axes_of(x, axis), keepdims), x)
        if initial is None:
            return found
        return t(ops.Maximum() if kind is ops.ReduceMax else ops.Minimum(), *promoted(t, found, initial))

    return rule


for _name, _op in _UNARY.items():
    operation("numpy", _name)(_unary(_op, floating=False))
for _name, _op in _FLOATING.items():
    operation("numpy", _name)(_unary(_op, floating=True))
for _name, _op in _BINARY.items():
    operation("numpy", _name)(_binary(_op))
for _name, _activation_name in _ACTIVATIONS.items():
    operation("nn", _name)(_activation(_activation_name))
for _name, _kind in _REDUCTIONS.items():
    operation("numpy", _name)(_reduction(_kind))
operation("math", "Erf")(_unary(ops.Erf(), floating=True))


@operation("numpy", "Divide", "TrueDivide")
def divide(t: Trace, x1: Number, x2: Number) -> Value:
    """``x1 / x2``, of integers too."""
    return t(ops.Div(), *meeting(t, x1, x2, floating=True))


@operation("numpy", "Square")
def square(t: Trace, x: Value) -> Value:
    """``x * x``."""
    return t(ops.Mul(), x, x)


@operation("numpy", "Reciprocal")
def reciprocal(t: Trace, x: Value) -> Value:
    """``1 / x``."""
    return divide(t, 1.0, x)


@operation("math", "Rsqrt")
def rsqrt(t: Trace, x: Value) -> Value:
    """``1 / sqrt(x)``."""
    return divide(t, 1.0, t(ops.Sqrt(), *promoted(t, x, floating=True)))


@operation("numpy", "Round")
def round_(t: Trace, x: Value, *, decimals: int = 0) -> Value:
    """The nearest integers, halves to even ones."""
    if not decimals:
        return t(ops.Round(), x)
    (scaled,) = promoted(t, x, floating=True)
    factor = t.constant(np.asarray(10.0**decimals, scaled.type.dtype))
    return as_value(t, t(ops.Div(), t(ops.Round(), t(ops.Mul(), scaled, factor)), factor), x.type.dtype)


@operation("numpy", "Clip")
def clip(t: Trace, x: Value, *, x_min: Any, x_max: Any) -> Value:
    """``min(max(x, x_min), x_max)``."""
    if isinstance(x_min, Value) or isinstance(x_max, Value) or np.ndim(x_min) or np.ndim(x_max):
        x, low, high = promoted(t, x, x_min, x_max)
        return t(ops.Minimum(), t(ops.Maximum(), x, low), high)
    return t(ops.Clip(float(np.asarray(x_min)), float(np.asarray(x_max))), x)


@operation("numpy", "LogicalNot")
def logical_not(t: Trace, x: Number) -> Value:
    """Where `x` is 0."""
    return t(ops.Not(), as_value(t, x, "bool"))


@operation("numpy", "LogicalAnd")
def logical_and(t: Trace, x1: Number, x2: Number) -> Value:
    """Where neither is 0."""
    return t(ops.And(), as_value(t, x1, "bool"), as_value(t, x2, "bool"))


@operation("numpy", "LogicalOr")
def logical_or(t: Trace, x1: Number, x2: Number) -> Value:
    """Where one is not 0."""
    return t(ops.Or(), as_value(t, x1, "bool"), as_value(t, x2, "bool"))


@operation("numpy", "Where")
def where(t: Trace, condition: Number, x1: Number, x2: Number) -> Value:
    """`x1` where the condition holds, else `x2`."""
    return t(ops.Where(), *broadcasting(t, [as_value(t, condition, "bool"), *promoted(t, x1, x2)]))


@operation("core", "Cast")
def cast(t: Trace, x: Number, *, dtype: str) -> Value:
    """`x` as `dtype`."""
    return as_value(t, x, dtype)


@operation("core", "ConvertToTensor")
def same(t: Trace, x: Value, *, dtype: str | None = None, sparse: None = None, ragged: None = None) -> Value:
    """`x`."""
    del sparse, ragged
    return as_value(t, x, dtype or x.type.dtype)


@operation("numpy", "Copy")
def copy(t: Trace, x: Value) -> Value:
    """`x`."""
    del t
    return x


@operation("core", "StopGradient")
def stop_gradient(t: Trace, variable: Value) -> Value:
    """`variable`, which training takes for a constant."""
    return variable if t.effects is None else t(ops.StopGradient(), variable)


@operation("nn", "Gelu")
def gelu(t: Trace, x: Value, *, approximate: bool = True) -> Value:
    """``x * Phi(x)``, or its approximation by tanh."""
    return t(ops.Gelu(approximate), x)


@operation("nn", "LeakyRelu")
def leaky_relu(t: Trace, x: Value, *, negative_slope: float = 0.2) -> Value:
    """`x` where it is positive, else ``negative_slope * x``."""
    return t(ops.LeakyRelu(negative_slope), x)


@operation("nn", "Elu")
def elu(t: Trace, x: Value, *, alpha: float = 1.0) -> Value:
    """`x` where it is positive, else ``alpha * (exp(x) - 1)``."""
    return t(ops.Elu(alpha), x)


@operation("nn", "Softmax")
def softmax(t: Trace, x: Value, *, axis: int = -1) -> Value:
    """``exp(x) / sum(exp(x))`` along an axis."""
    return t(ops.Softmax(axis), x)


@operation("nn", "LogSoftmax")
def log_softmax(t: Trace, x: Value, *, axis: int = -1) -> Value:
    """The logarithm of the softmax along an axis."""
    return t(ops.LogSoftmax(axis), x)


@operation("numpy", "Sum")
def sum_(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The sum; of bools, the number of those that hold."""
    return t(ops.ReduceSum(axes_of(x, axis), keepdims), as_value(t, x, "int32") if x.type.dtype == "bool" else x)


@operation("numpy", "Prod")
def prod(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False, dtype: str | None = None) -> Value:
    """The product."""
    return t(ops.ReduceProd(axes_of(x, axis), keepdims), as_value(t, x, dtype or x.type.dtype))


@operation("numpy", "Mean")
def mean(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The mean, of integers too."""
    return t(ops.ReduceMean(axes_of(x, axis), keepdims), *promoted(t, x, floating=True))


@operation("numpy", "Var")
def var(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The mean square of the distance from the mean."""
    (x,) = promoted(t, x, floating=True)
    centred = t(ops.Sub(), x, mean(t, x, axis=axis, keepdims=True))
    return mean(t, square(t, centred), axis=axis, keepdims=keepdims)


@operation("numpy", "Std")
def std(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """The square root of the variance."""
    return t(ops.Sqrt(), var(t, x, axis=axis, keepdims=keepdims))


@operation("numpy", "Any")
def any_(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """Whether any element is not 0."""
    found = t(ops.ReduceMax(axes_of(x, axis), keepdims), as_value(t, as_value(t, x, "bool"), "int32"))
    return as_value(t, found, "bool")


@operation("numpy", "All")
def all_(t: Trace, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    """Whether no element is 0."""
    found = t(ops.ReduceMin(axes_of(x, axis), keepdims), as_value(t, as_value(t, x, "bool"), "int32"))
    return as_value(t, found, "bool")


def _position(t: Trace, x: Value, axis: int | None, keepdims: bool, which: Any) -> Value:
    rank = x.type.rank
    x, number = one_axis(t, x, axis)
    found = as_value(t, t(ops.ArgReduce(number, which), x), "int32")
    shape = [1 if i == number else extent for i, extent in enumerate(x.type.shape)] if axis is not None else [1] * rank
    return t(ops.Reshape(tuple(shape)), found) if keepdims else found


@operation("numpy", "Argmax")
def argmax(t: Trace, x: Value, *, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the largest element along an axis stands."""
    return _position(t, x, axis, keepdims, "max")


@operation("numpy", "Argmin")
def argmin(t: Trace, x: Value, *, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the smallest element along an axis stands."""
    return _position(t, x, axis, keepdims, "min")


@operation("numpy", "Cumsum")
def cumsum(t: Trace, x: Value, *, axis: int | None = None, dtype: str | None = None) -> Value:
    """The running sum along an axis."""
    x, place = one_axis(t, as_value(t, x, dtype or x.type.dtype), axis)
    return t(ops.CumSum(place), x)
