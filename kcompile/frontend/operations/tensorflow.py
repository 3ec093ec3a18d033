"""TensorFlow's functions in graphs of Keras 2, as the operations of Keras 3 that do the same.

Keras 2 wraps ``tf.math.pow(x, 2)`` and ``x[:, 1:]`` in layers of the classes TFOpLambda and SlicingOpLambda.
"""

from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.operations.operation import OPERATIONS, apply_rule
from kcompile.frontend.tracing import Trace

_XY = {"x": "x1", "y": "x2"}
_REDUCTION = {"input_tensor": "x", "keep_dims": "keepdims"}

# For each function the operation of Keras 3, and TensorFlow's names of its arguments where they differ.
TENSORFLOW_FUNCTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "__operators__.add": ("Add", _XY),
    "__operators__.getitem": ("GetItem", {"tensor": "x", "slice_spec": "key"}),
    "abs": ("Abs", {}),
    "cast": ("Cast", {}),
    "clip_by_value": ("Clip", {"t": "x", "clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "concat": ("Concatenate", {"values": "xs"}),
    "expand_dims": ("ExpandDims", {"input": "x"}),
    "identity": ("Copy", {"input": "x"}),
    "linalg.matmul": ("Matmul", {"a": "x1", "b": "x2"}),
    "matmul": ("Matmul", {"a": "x1", "b": "x2"}),
    "math.abs": ("Abs", {}),
    "math.add": ("Add", _XY),
    "math.argmax": ("Argmax", {"input": "x"}),
    "math.ceil": ("Ceil", {}),
    "math.cos": ("Cos", {}),
    "math.divide": ("Divide", _XY),
    "math.exp": ("Exp", {}),
    "math.floor": ("Floor", {}),
    "math.greater": ("Greater", _XY),
    "math.greater_equal": ("GreaterEqual", _XY),
    "math.less": ("Less", _XY),
    "math.less_equal": ("LessEqual", _XY),
    "math.log": ("Log", {}),
    "math.logical_and": ("LogicalAnd", _XY),
    "math.logical_not": ("LogicalNot", {}),
    "math.logical_or": ("LogicalOr", _XY),
    "math.maximum": ("Maximum", _XY),
    "math.minimum": ("Minimum", _XY),
    "math.multiply": ("Multiply", _XY),
    "math.negative": ("Negative", {}),
    "math.not_equal": ("NotEqual", _XY),
    "math.equal": ("Equal", _XY),
    "math.pow": ("Power", _XY),
    "math.reciprocal": ("Reciprocal", {}),
    "math.reduce_max": ("Max", _REDUCTION),
    "math.reduce_mean": ("Mean", _REDUCTION),
    "math.reduce_min": ("Min", _REDUCTION),
    "math.reduce_prod": ("Prod", _REDUCTION),
    "math.reduce_std": ("Std", _REDUCTION),
    "math.reduce_sum": ("Sum", _REDUCTION),
    "math.reduce_variance": ("Var", _REDUCTION),
    "math.rsqrt": ("Rsqrt", {}),
    "math.sigmoid": ("Sigmoid", {}),
    "math.sign": ("Sign", {}),
    "math.sin": ("Sin", {}),
    "math.softplus": ("Softplus", {"features": "x"}),
    "math.sqrt": ("Sqrt", {}),
    "math.square": ("Square", {}),
    "math.subtract": ("Subtract", _XY),
    "math.tanh": ("Tanh", {}),
    "math.truediv": ("TrueDivide", _XY),
    "nn.elu": ("Elu", {"features": "x"}),
    "nn.leaky_relu": ("LeakyRelu", {"features": "x", "alpha": "negative_slope"}),
    "nn.log_softmax": ("LogSoftmax", {"logits": "x"}),
    "nn.relu": ("Relu", {"features": "x"}),
    "nn.relu6": ("Relu6", {"features": "x"}),
    "nn.selu": ("Selu", {"features": "x"}),
    "nn.sigmoid": ("Sigmoid", {}),
    "nn.silu": ("Silu", {"features": "x"}),
    "nn.softmax": ("Softmax", {"logits": "x"}),
    "nn.softplus": ("Softplus", {"features": "x"}),
    "nn.swish": ("Silu", {"features": "x"}),
    "nn.tanh": ("Tanh", {}),
    "ones_like": ("OnesLike", {"input": "x"}),
    "reshape": ("Reshape", {"tensor": "x", "shape": "newshape"}),
    "reverse": ("Flip", {"tensor": "x"}),
    "split": ("Split", {"value": "x", "num_or_size_splits": "indices_or_sections"}),
    "squeeze": ("Squeeze", {"input": "x"}),
    "stack": ("Stack", {"values": "x"}),
    "stop_gradient": ("StopGradient", {"input": "x"}),
    "tile": ("Tile", {"input": "x", "multiples": "repeats"}),
    "transpose": ("Transpose", {"a": "x", "perm": "axes"}),
    "unstack": ("Unstack", {"value": "x"}),
    "where": ("Where", {"x": "x1", "y": "x2"}),
    "zeros_like": ("ZerosLike", {"input": "x"}),
}


@register_layer("keras>TFOpLambda", "keras>SlicingOpLambda")
@dataclass(eq=False)
class TensorFlowFunction(Layer):
    """A function of TensorFlow in a graph, by its name below ``tf``."""

    function: str

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        """The results of the operation of Keras 3 that does the same."""
        if self.function not in TENSORFLOW_FUNCTIONS:
            raise ModelError(f"layer `{self.name}` calls `tf.{self.function}`, which kcompile does not know.")
        operation, names = TENSORFLOW_FUNCTIONS[self.function]
        given = {names.get(key, key): value for key, value in kwargs.items() if key != "name" and value is not None}
        if "key" in given:
            given["key"] = [_index(item) for item in given["key"]]
        if operation == "Split" and isinstance(given.get("indices_or_sections"), list):
            law = f"layer `{self.name}` must split into equal parts"
            raise ModelError(f"{law}. Received: sizes {given['indices_or_sections']}.")
        return apply_rule(OPERATIONS[operation], self.name, t, args, given)


def _index(item: Any) -> Any:
    match item:
        case {"start": start, "stop": stop, "step": step}:
            return slice(start, stop, step)
        case {"class_name": "__ellipsis__"}:
            return ...
        case _:
            return item
