"""TensorFlow's functions in graphs of Keras 2, as the operations of Keras 3 that do the same.

Keras 2 wraps ``tf.math.pow(x, 2)`` and ``x[:, 1:]`` in layers of the classes TFOpLambda and SlicingOpLambda. Functions
stand under several names (``tf.math.abs``, ``tf.abs``, ``tf.compat.v1.abs``), of which the last part tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.operations.operation import OPERATIONS, Rule, apply_rule
from kcompile.frontend.operations.tensorflow_rules import RULES
from kcompile.frontend.tracing import Trace


@dataclass(frozen=True)
class _Same:
    """An operation of Keras 3, TensorFlow's names of its arguments where they differ, and its defaults there."""

    operation: str
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])


_X, _XY = {"input": "x"}, {"x": "x1", "y": "x2"}
_FEATURES, _LOGITS = {"features": "x"}, {"logits": "x"}
_REDUCTION = {"input_tensor": "x", "keep_dims": "keepdims", "reduction_indices": "axis"}


def _each(names: str, arguments: Mapping[str, str]) -> dict[str, _Same]:
    """Functions with equal arguments, each followed by the operation's name: ``"abs Abs ceil Ceil"``."""
    words = names.split()
    return {name: _Same(operation, arguments) for name, operation in zip(words[::2], words[1::2], strict=True)}


_FUNCTIONS: dict[str, _Same] = {
    **_each(
        """abs Abs acos Arccos acosh Arccosh asin Arcsin asinh Arcsinh atan Arctan atanh Arctanh ceil Ceil cos Cos
        cosh Cosh erf Erf erfc Erfc exp Exp expm1 Expm1 floor Floor is_finite Isfinite is_inf Isinf is_nan Isnan
        log Log log1p Log1p log_sigmoid LogSigmoid logical_not LogicalNot negative Negative reciprocal Reciprocal
        round Round rint Round rsqrt Rsqrt sigmoid Sigmoid sign Sign sin Sin sinh Sinh sqrt Sqrt square Square
        tan Tan tanh Tanh cast Cast""",
        {},
    ),
    **_each(
        """add Add and LogicalAnd div TrueDivide div_no_nan DivideNoNan divide Divide divide_no_nan DivideNoNan
        eq Equal equal Equal floordiv FloorDivide floormod Mod ge GreaterEqual greater Greater
        greater_equal GreaterEqual gt Greater le LessEqual less Less less_equal LessEqual logical_and LogicalAnd
        logical_or LogicalOr logical_xor LogicalXor lt Less maximum Maximum minimum Minimum mod Mod multiply Multiply
        ne NotEqual not_equal NotEqual or LogicalOr pow Power sub Subtract subtract Subtract truediv TrueDivide
        where Where where_v2 Where""",
        _XY,
    ),
    **_each(
        """reduce_all All reduce_any Any reduce_logsumexp Logsumexp reduce_max Max reduce_mean Mean reduce_min Min
        reduce_prod Prod reduce_std Std reduce_sum Sum reduce_variance Var""",
        _REDUCTION,
    ),
    **_each(
        "elu Elu relu Relu relu6 Relu6 selu Selu silu Silu softplus Softplus softsign Softsign swish Silu", _FEATURES
    ),
    **_each("broadcast_to BroadcastTo identity Copy stop_gradient StopGradient size Size rank Ndim", _X),
    **_each("zeros_like ZerosLike ones_like OnesLike expand_dims ExpandDims", {**_X, "tensor": "x", "dim": "axis"}),
    **_each("softmax Softmax log_softmax LogSoftmax", {**_LOGITS, "dim": "axis"}),
    "atan2": _Same("Arctan2", {"y": "x1", "x": "x2"}),
    "clip_by_value": _Same("Clip", {"t": "x", "clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "concat": _Same("Concatenate", {"values": "xs"}),
    "count_nonzero": _Same("CountNonzero", _X),
    "cumprod": _Same("Cumprod", {}, {"axis": 0}),
    "depth_to_space": _Same("DepthToSpace", _X),
    "diag_part": _Same("Diagonal", _X, {"axis1": -2, "axis2": -1}),
    "einsum": _Same("Einsum", {"equation": "subscripts"}),
    "gelu": _Same("Gelu", _FEATURES, {"approximate": False}),
    "getitem": _Same("GetItem", {"tensor": "x", "slice_spec": "key"}),
    "image.rgb_to_grayscale": _Same("RGBToGrayscale"),
    "in_top_k": _Same("InTopK"),
    "leaky_relu": _Same("LeakyRelu", {**_FEATURES, "alpha": "negative_slope"}),
    "matrix_transpose": _Same("Swapaxes", {"a": "x"}, {"axis1": -2, "axis2": -1}),
    "moments": _Same("Moments"),
    "repeat": _Same("Repeat", _X),
    "reverse": _Same("Flip", {"tensor": "x"}),
    "roll": _Same("Roll", _X),
    "space_to_depth": _Same("SpaceToDepth", _X),
    "stack": _Same("Stack", {"values": "x"}),
    "tensordot": _Same("Tensordot", {"a": "x1", "b": "x2"}),
    "tile": _Same("Tile", {**_X, "multiples": "repeats"}),
    "top_k": _Same("TopK", _X),
    "transpose": _Same("Transpose", {"a": "x", "perm": "axes"}),
    "unstack": _Same("Unstack", {"value": "x"}),
}
# Modules whose functions are known by their last part alone.
_MODULES = frozenset({"", "__operators__", "compat", "linalg", "math", "nn", "v1"})


def tensorflow_rule(function: str) -> "_Same | Rule | None":
    """What does the same as a function, by its name below ``tf``."""
    *modules, name = function.split(".")
    modules = [module for module in modules if module not in _MODULES]
    key = ".".join([*modules, name])
    return RULES.get(key) or _FUNCTIONS.get(key)


@register_layer("keras>TFOpLambda", "keras>SlicingOpLambda")
@dataclass(eq=False)
class TensorFlowFunction(Layer):
    """A function of TensorFlow in a graph, by its name below ``tf``."""

    function: str

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The results of the operation of Keras 3 that does the same."""
        same = tensorflow_rule(self.function)
        given = {key: value for key, value in kwargs.items() if key not in ("name", "conjugate") and value is not None}
        if same is None:
            raise ModelError(f"layer `{self.name}` calls `tf.{self.function}`, which kcompile does not know.")
        if not isinstance(same, _Same):
            return apply_rule(same, self.name, t, args, given)
        given = {**same.defaults, **{same.names.get(key, key): value for key, value in given.items()}}
        if "key" in given:
            given["key"] = [_index(item) for item in given["key"]]
        return apply_rule(OPERATIONS[same.operation], self.name, t, args, given)


def _index(item: Any) -> Any:
    match item:
        case {"start": start, "stop": stop, "step": step}:
            return slice(start, stop, step)
        case {"class_name": "__ellipsis__"}:
            return ...
        case _:
            return item
