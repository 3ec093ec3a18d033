"""Layers that turn numbers and categories into indices and codes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.scaling import numbers
from kcompile.frontend.layers.writing import cast, expand_dims, like, squeeze
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value

# The widest span of integers that is looked up in a table of one entry each.
_TABLE_LIMIT = 1 << 20


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


def _output_mode(layer: Layer, mode: str, *modes: str) -> str:
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
        self.output_mode = _output_mode(self, self.output_mode, "multi_hot", "one_hot", "count")

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
        self.output_mode = _output_mode(self, self.output_mode, "int", "multi_hot", "one_hot", "count")
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


@register_layer("keras>IntegerLookup")
@dataclass(eq=False)
class IntegerLookup(Layer):
    """The place of integers in a vocabulary: first the mask token, then the unknown ones, then the vocabulary.

    Unknown integers share `num_oov_indices` places by their remainder. With `invert`, the integers at places.
    """

    max_tokens: int | None = None
    num_oov_indices: int = 1
    mask_token: int | None = None
    oov_token: int = -1
    vocabulary: Any = None
    vocabulary_dtype: str = "int64"
    idf_weights: Any = None
    invert: bool = False
    output_mode: str = "int"
    sparse: bool = False
    pad_to_max_tokens: bool = False
    oov_method: str = "floormod"
    salt: Any = None
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.output_mode = _output_mode(self, self.output_mode, "int", "multi_hot", "one_hot", "count", "tf_idf")
        self.require(self.vocabulary is not None, "vocabulary", "given: the layer was never adapted")
        self.require(arguments.is_int(self.num_oov_indices, 0), "num_oov_indices", "an integer from 0 on")
        self.require(self.oov_method == "floormod", "oov_method", '"floormod"')
        self.vocabulary = [int(v) for v in np.asarray(self.vocabulary).ravel()]
        self.require(not self.invert or self.output_mode == "int", "output_mode", '"int" where invert is True')
        if self.output_mode == "tf_idf":
            self.require(self.idf_weights is not None, "idf_weights", 'given in mode "tf_idf"')

    @property
    def has_mask(self) -> bool:
        """Whether place 0 is the mask token's."""
        return self.mask_token is not None and self.output_mode == "int"

    @property
    def tokens(self) -> list[int]:
        """The vocabulary without the mask and unknown tokens that it may start with."""
        special = [self.mask_token] * self.has_mask + [self.oov_token] * self.num_oov_indices
        given = self.vocabulary
        return given[len(special) :] if special and given[: len(special)] == special else given

    @property
    def first(self) -> int:
        """The place of the first token of the vocabulary."""
        return self.has_mask + self.num_oov_indices

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = cast(t, args[0], "int64")
        if self.invert:
            return self._tokens_at(t, x)
        places = self._places(t, x)
        if self.output_mode == "int":
            return places
        total = self.first + len(self.tokens)
        depth = self.max_tokens if self.pad_to_max_tokens and self.max_tokens else total
        if self.output_mode != "tf_idf":
            return encode(t, places, self.output_mode, depth, "int64")
        weights = numbers(self, "idf_weights")
        if len(weights) == len(self.tokens):
            weights = np.concatenate([np.full(self.first, weights.mean()), weights])
        weights = np.pad(weights, (0, depth - len(weights)))
        counts = encode(t, places, "count", depth, "float32")
        return t(ops.Mul(), counts, t.constant(weights.astype(np.float32)))

    def _places(self, t: Trace, x: Value) -> Value:
        places = self._known_places(t, x)
        if self.num_oov_indices > 0:
            unknown = t(ops.Mod(), x, like(t, x, self.num_oov_indices))
            unknown = t(ops.Add(), unknown, like(t, x, int(self.has_mask)))
            places = t(ops.Where(), t(ops.Compare("<"), places, like(t, x, 0)), unknown, places)
        if self.mask_token is None:
            return places
        # In the other modes the mask token has no place at all.
        masked = like(t, x, 0 if self.has_mask else np.iinfo(np.int64).max)
        return t(ops.Where(), t(ops.Compare("=="), x, like(t, x, self.mask_token)), masked, places)

    def _known_places(self, t: Trace, x: Value) -> Value:
        """The place of each integer of the vocabulary, -1 for others."""
        tokens = np.asarray(self.tokens, np.int64)
        places = np.arange(len(tokens), dtype=np.int64) + self.first
        if not len(tokens):
            return t(ops.Add(), t(ops.Mul(), x, like(t, x, 0)), like(t, x, -1))
        low, high = int(tokens.min()), int(tokens.max())
        if high - low < _TABLE_LIMIT:
            table = np.full(high - low + 3, -1, np.int64)
            table[tokens - low + 1] = places
            inside = t(ops.Minimum(), t(ops.Maximum(), x, like(t, x, low - 1)), like(t, x, high + 1))
            return t(ops.Gather(), t.constant(table), t(ops.Sub(), inside, like(t, x, low - 1)))
        found = cast(t, t(ops.Compare("=="), expand_dims(t, x, -1), t.constant(tokens)), "int64")
        # A place plus 1, so that none found sums to 0.
        total = t(ops.ReduceSum((-1,)), t(ops.Mul(), found, t.constant(places + 1)))
        return t(ops.Sub(), total, like(t, x, 1))

    def _tokens_at(self, t: Trace, x: Value) -> Value:
        special = [self.mask_token] * self.has_mask + [self.oov_token] * self.num_oov_indices
        table = np.asarray([*special, *self.tokens, self.oov_token], np.int64)
        last = len(table) - 1
        known = t(ops.And(), t(ops.Compare(">="), x, like(t, x, 0)), t(ops.Compare("<"), x, like(t, x, last)))
        return t(ops.Gather(), t.constant(table), t(ops.Where(), known, x, like(t, x, last)))
