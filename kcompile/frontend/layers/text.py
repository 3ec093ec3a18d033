"""Layers that turn text into numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.lookups import VOCABULARY_FILE, StringLookup
from kcompile.frontend.layers.writing import squeeze
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value
from kcompile.ir.ops.text import Split
from kcompile.ir.types import Array

_STANDARDIZE = ("lower_and_strip_punctuation", "lower", "strip_punctuation", None)
_SPLIT = ("whitespace", "character", None)


@register_layer("keras>TextVectorization")
@dataclass(eq=False)
class TextVectorization(Layer):
    """The places of a text's tokens in a vocabulary, or a code of which tokens it holds.

    ``x: str[N] or str[N, 1] -> i64[N, output_sequence_length]``, or in the other modes ``[N, tokens]``.
    """

    autocast = False
    assets: ClassVar[tuple[str, ...]] = (VOCABULARY_FILE,)

    max_tokens: int | None = None
    standardize: Any = "lower_and_strip_punctuation"
    split: Any = "whitespace"
    ngrams: Any = None
    output_mode: str = "int"
    output_sequence_length: int | None = None
    pad_to_max_tokens: bool = False
    vocabulary: Any = None
    idf_weights: Any = None
    sparse: bool = False
    ragged: bool = False
    encoding: str = "utf-8"
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice(self, "standardize", _STANDARDIZE)
        arguments.choice(self, "split", _SPLIT)
        self.require(not self.ragged, "ragged", "False: kcompile has dense tensors only")
        length = self.output_sequence_length
        self.require(length is None or arguments.is_int(length, 1), "output_sequence_length", "a positive integer")
        adapted = self.vocabulary_size is not None
        self.require(self.vocabulary is not None or adapted, "vocabulary", "given: the layer was never adapted")
        self.ngrams = list(self.ngrams) if isinstance(self.ngrams, tuple) else self.ngrams
        fits = self.ngrams is None or arguments.is_int(self.ngrams, 1) or self._are_sizes(self.ngrams)
        self.require(fits, "ngrams", "a positive integer or several")
        self.lookup = StringLookup(
            max_tokens=self.max_tokens,
            mask_token="",
            vocabulary=self.vocabulary,
            idf_weights=self.idf_weights,
            output_mode=self.output_mode,
            pad_to_max_tokens=self.pad_to_max_tokens,
            sparse=self.sparse,
            encoding=self.encoding,
            vocabulary_size=self.vocabulary_size,
        )
        self._follow()

    @staticmethod
    def _are_sizes(value: Any) -> bool:
        return isinstance(value, list) and all(arguments.is_int(size, 1) for size in cast(list[Any], value))

    def _follow(self) -> None:
        """Keep the arguments that the lookup may change."""
        for argument in ("output_mode", "vocabulary", "idf_weights", "vocabulary_size"):
            setattr(self, argument, getattr(self.lookup, argument))

    @property
    def sublayers(self) -> Mapping[str, Layer]:
        return {"_lookup_layer": self.lookup}

    def set_asset(self, name: str, text: str) -> None:
        self.lookup.set_asset(name, text)
        self._follow()

    @property
    def tables(self) -> Mapping[str, Array]:
        return self.lookup.tables

    def set_table(self, name: str, array: Array) -> None:
        self.lookup.set_table(name, array)
        self._follow()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of tokens in n-grams."""
        return tuple(range(1, self.ngrams + 1)) if isinstance(self.ngrams, int) else tuple(self.ngrams or ())

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x = self.lookup.as_tokens(t, args[0])
        if self.standardize is not None:
            lower, strip = "lower" in self.standardize, "strip" in self.standardize
            x = t(ops.StandardizeText(lower, strip), x)
        return self._whole(t, x) if self.split is None else self._split(t, x)

    def _whole(self, t: Trace, x: Value) -> Value:
        """Each text is one token."""
        self.require(not self.sizes, "ngrams", "None where split is None")
        y: Value = t.run(self.lookup, x)
        length = self.output_sequence_length
        if self.output_mode != "int" or length is None:
            return y
        extent = y.type.shape[-1]
        if not isinstance(extent, int) or y.type.rank < 2:
            raise ModelError(f"layer `{self.name}` needs a known number of texts per row. Received: {x.type}.")
        if extent > length:
            return t(ops.Slice(y.type.rank - 1, 0, length), y)
        none = (0,) * (y.type.rank - 1)
        return t(ops.Pad((*none, 0), (*none, length - extent)), y)

    def _split(self, t: Trace, x: Value) -> Value:
        if x.type.rank > 1:
            if x.type.shape[-1] != 1:
                raise ModelError(f"layer `{self.name}` takes one text per row to split. Received: {x.type}.")
            x = squeeze(t, x, -1)
        split: Split = self.split
        if self.output_mode != "int":
            return self._counted(t, x, split)
        law = "given, to know the shape of the result: the longest text could have any number of tokens"
        self.require(self.output_sequence_length is not None, "output_sequence_length", law)
        y = t(ops.SplitText(int(self.output_sequence_length or 0), split, self.sizes), x)
        return t.run(self.lookup, y)

    def _counted(self, t: Trace, x: Value, split: Split) -> Value:
        """How often each token is in a text: ``i64[..., depth]``, or whether it is, or weighted."""
        self.require(self.output_mode != "one_hot", "output_mode", "another where texts are split")
        known = self.lookup.require_vocabulary(t)
        keys = self.lookup.tokens if known else [""] * (self.lookup.depth - 1)
        counts = t(ops.CountTokens(split, self.sizes), x, t.constant(np.array(keys, np.str_)))
        missing = self.lookup.depth - len(keys) - 1
        none = (0,) * (counts.type.rank - 1)
        if missing > 0:
            counts = t(ops.Pad((*none, 0), (*none, missing)), counts)
        if self.output_mode == "multi_hot":
            return t(ops.Minimum(), counts, t.constant(np.asarray(1, np.int64)))
        return self.lookup.weighted(t, counts)
