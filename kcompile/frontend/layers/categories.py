"""Layers that turn numbers and categories into indices and codes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.scaling import numbers
from kcompile.frontend.layers.writing import cast, expand_dims, squeeze
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value


def one_hot(t: Trace, indices: Value, depth: int, dtype: str) -> Value:
    """A new last axis with a 1 at the index, none where it is outside ``[0, depth)``."""
    classes = t.constant(np.arange(depth, dtype=indices.type.dtype))
    return cast(t, t(ops.Compare("=="), expand_dims(t, indices, -1), classes), dtype)


def encode(t: Trace, indices: Value, mode: str, depth: int, dtype: str, weights: Value | None = None) -> Value:
    """Indices as codes of `depth` elements: one each ("one_hot"), or one per sample ("multi_hot", "count").

    As in Keras, a last axis of extent 1 goes for "one_hot", and samples are taken together along axis 1.
    """
    if mode == "one_hot":
        shape = indices.type.shape
        return one_hot(t, squeeze(t, indices, -1) if len(shape) > 1 and shape[-1] == 1 else indices, depth, dtype)
    codes = one_hot(t, indices, depth, dtype)
    axes = (1 if indices.type.rank > 1 else 0,)
    if mode == "multi_hot":
        return t(ops.ReduceMax(axes), codes)
    if weights is not None:
        codes = t(ops.Mul(), codes, expand_dims(t, cast(t, weights, dtype), -1))
    return t(ops.ReduceSum(axes), codes)


def output_mode(layer: Layer, mode: str, *modes: str) -> str:
    """The argument `output_mode` in Keras 3's words, which must be one of `modes`.

    Raises:
        ModelError: it is another, or the layer is to return sparse tensors.
    """
    mode = {"binary": "multi_hot", "tf-idf": "tf_idf"}.get(mode, mode)
    layer.require(mode in modes, "output_mode", ", ".join(f'"{m}"' for m in modes))
    layer.require(not getattr(layer, "sparse", False), "sparse", "False: kcompile has dense tensors only")
    return mode


@register_layer("keras>CategoryEncoding")
@dataclass(eq=False)
class CategoryEncoding(Layer):
    """Integers from 0 to ``num_tokens - 1`` as codes of `num_tokens` elements."""

    hidden_fields = frozenset({"sparse"})

    num_tokens: int
    output_mode: str = "multi_hot"
    sparse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "num_tokens")
        self.output_mode = output_mode(self, self.output_mode, "multi_hot", "one_hot", "count")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        weights: Value | None = kwargs.get("count_weights", next(iter(args[1:]), None))
        if weights is not None and self.output_mode != "count":
            raise ModelError(f'layer `{self.name}` takes count_weights in mode "count" only.')
        x: Value = args[0]
        indices = cast(t, x, "int32")
        return encode(t, indices, self.output_mode, self.num_tokens, self.compute_dtype, weights)


@register_layer("keras>Discretization")
@dataclass(eq=False)
class Discretization(Layer):
    """The number of `bin_boundaries` that are not above ``x``, as an integer or a code."""

    hidden_fields = frozenset({"trainable"})

    bin_boundaries: Any = None
    num_bins: int | None = None
    epsilon: float = 0.01
    output_mode: str = "int"
    sparse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.output_mode = output_mode(self, self.output_mode, "int", "multi_hot", "one_hot", "count")
        self.require(self.bin_boundaries is not None, "bin_boundaries", "given: the layer was never adapted")
        self.bin_boundaries = numbers(self, "bin_boundaries").tolist()

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = cast(t, args[0], "float32")
        boundaries = t.constant(np.asarray(self.bin_boundaries, np.float32))
        reached = t(ops.Compare(">="), expand_dims(t, x, -1), boundaries)
        indices = t(ops.ReduceSum((-1,)), cast(t, reached, "int32"))
        if self.output_mode == "int":
            return indices
        return encode(t, indices, self.output_mode, len(self.bin_boundaries) + 1, self.compute_dtype)
