"""Layers that turn texts and integers into places in a vocabulary, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.categories import encode, output_mode
from kcompile.frontend.layers.scaling import numbers
from kcompile.frontend.layers.writing import cast, like
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value
from kcompile.ir.types import Array, array_dtype

VOCABULARY_FILE = "vocabulary.txt"
IDF_WEIGHTS = "idf_weights"

# More tokens than any vocabulary has.
_LARGEST = 1 << 28

# The place of the mask token where codes leave it out.
_NOWHERE = int(np.iinfo(np.int64).max)


class IndexLookup(Layer):
    """Base: the mask token, where there is one, has place 0; then come those of unknown tokens; then the vocabulary.

    Where `num_oov_indices` is 0, Keras refuses unknown tokens; here their place is -1.
    """

    assets: ClassVar[tuple[str, ...]] = (VOCABULARY_FILE,)
    # The dtype of tokens in graphs.
    token_dtype: ClassVar[str]

    max_tokens: int | None
    num_oov_indices: int
    mask_token: Any
    oov_token: Any
    vocabulary: Any
    idf_weights: Any
    invert: bool
    output_mode: str
    pad_to_max_tokens: bool
    sparse: bool
    oov_method: str
    salt: Any
    vocabulary_size: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.output_mode = output_mode(self, self.output_mode, "int", "multi_hot", "one_hot", "count", "tf_idf")
        self.require(arguments.is_int(self.num_oov_indices, 0), "num_oov_indices", "an integer from 0 on")
        arguments.choice(self, "oov_method", ("floormod", "farmhash"))
        self.require(not self.invert or self.output_mode == "int", "output_mode", '"int" where invert is True')
        self.require(not self.pad_to_max_tokens or self.max_tokens is not None, "max_tokens", "given, to pad to it")
        self.salt = salt_of(self)
        # A file that brings the vocabulary beside the config tells its size there.
        size = self.vocabulary_size
        self.require(size is None or arguments.is_int(size, 0), "vocabulary_size", "an integer from 0 on")
        adapted = size is not None and size <= _LARGEST
        self.require(self.vocabulary is not None or adapted, "vocabulary", "given: the layer was never adapted")
        if self.vocabulary is not None:
            self.set_vocabulary(self.vocabulary)
        if self.output_mode == "tf_idf" and self.vocabulary is not None:
            self.require(self.idf_weights is not None, "idf_weights", 'given in mode "tf_idf"')

    def set_vocabulary(self, tokens: Any) -> None:
        """Take these tokens, which may begin with the special ones.

        Raises:
            ModelError: they are no list of tokens, or one of them stands there twice.
        """
        self.vocabulary = tokens
        is_list = not isinstance(tokens, str) and np.ndim(tokens) == 1
        self.require(is_list, "vocabulary", "a list; a file outside of the model is not read")
        self.vocabulary = [self.token(token) for token in np.asarray(tokens).tolist()]
        self.vocabulary_size = self.first + len(self.tokens)
        unique = len({*self.tokens, self.mask_token}) == len(self.tokens) + 1
        self.require(unique, "vocabulary", "without repetitions and without the mask token")

    def token(self, given: Any) -> Any:
        """A token as graphs hold it."""
        raise NotImplementedError

    @property
    def has_mask(self) -> bool:
        """Whether place 0 is the mask token's."""
        return self.mask_token is not None and self.output_mode == "int"

    @property
    def special(self) -> list[Any]:
        """The tokens that a vocabulary may begin with."""
        return [self.mask_token] * self.has_mask + [self.oov_token] * self.num_oov_indices

    @property
    def tokens(self) -> list[Any]:
        """The vocabulary without the special tokens."""
        given, special = self.vocabulary, self.special
        return given[len(special) :] if special and given[: len(special)] == special else given

    @property
    def first(self) -> int:
        """The place of the first token of the vocabulary."""
        return self.has_mask + self.num_oov_indices

    @property
    def depth(self) -> int:
        """The number of elements of a code."""
        if self.pad_to_max_tokens and self.max_tokens:
            return self.max_tokens
        return int(self.vocabulary_size or 0)

    def set_asset(self, name: str, text: str) -> None:
        lines = text.splitlines()
        while lines and not lines[-1]:
            lines.pop()
        if self.vocabulary is None:
            self.set_vocabulary(lines)

    @property
    def tables(self) -> Mapping[str, Array]:
        return {IDF_WEIGHTS: self.idf()} if self.output_mode == "tf_idf" else {}

    def set_table(self, name: str, array: Array) -> None:
        if self.idf_weights is None:
            self.idf_weights = array.tolist()

    def idf(self) -> Array:
        """The weight of every element of a code, those of unknown tokens the mean of the others: ``f32[depth]``."""
        if self.idf_weights is None:
            return np.zeros(self.depth, np.float32)
        weights = numbers(self, "idf_weights")
        if self.vocabulary is not None and len(weights) == len(self.tokens):
            weights = np.concatenate([np.full(self.first, weights.mean()), weights])
        return np.pad(weights, (0, max(self.depth - len(weights), 0))).astype(np.float32)[: self.depth]

    def require_vocabulary(self, t: Trace) -> bool:
        """Whether the vocabulary is known; where only shapes are asked for, it need not be.

        Raises:
            ModelError: it is not, and needed.
        """
        if self.vocabulary is None and not t.for_shapes:
            law = f"layer `{self.name}` needs its vocabulary, which stands in a .keras file beside the config"
            raise ModelError(f"{law}. Load the whole file.")
        return self.vocabulary is not None

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        known = self.tokens if self.require_vocabulary(t) else []
        if self.invert:
            return self._tokens_at(t, cast(t, x, "int64"), known)
        places = self.places(t, self.as_tokens(t, x), known)
        return places if self.output_mode == "int" else self.encoded(t, places)

    def as_tokens(self, t: Trace, x: Value) -> Value:
        """An input with the dtype of tokens.

        Raises:
            ModelError: it cannot have it.
        """
        raise NotImplementedError

    def encoded(self, t: Trace, places: Value) -> Value:
        """Places as codes."""
        mode = "count" if self.output_mode == "tf_idf" else self.output_mode
        return self.weighted(t, encode(t, places, mode, self.depth, "int64"))

    def weighted(self, t: Trace, counts: Value) -> Value:
        """Counts times the weights of their tokens, in mode "tf_idf"."""
        if self.output_mode != "tf_idf":
            return counts
        return t(ops.Mul(), cast(t, counts, "float32"), t.constant(self.idf()))

    def places(self, t: Trace, x: Value, tokens: Sequence[Any]) -> Value:
        """The places of tokens, as int64."""
        start = int(self.has_mask)
        found = self._known_places(t, x, tokens, start if self.num_oov_indices == 1 else -1)
        if self.num_oov_indices < 2:
            return found
        bucket = t(ops.Add(), self.bucket(t, x), t.constant(np.asarray(start, np.int64)))
        return t(ops.Where(), t(ops.Compare("=="), found, like(t, found, -1)), bucket, found)

    def _known_places(self, t: Trace, x: Value, tokens: Sequence[Any], unknown: int) -> Value:
        masks = [] if self.mask_token is None else [self.mask_token]
        places = [0 if self.has_mask else _NOWHERE] * len(masks) + [self.first + i for i in range(len(tokens))]
        keys = np.array([*masks, *tokens], array_dtype(self.token_dtype))
        return table(t, x, keys, np.array([*places, unknown], np.int64))

    def bucket(self, t: Trace, x: Value) -> Value:
        """Which of several unknown tokens each token is."""
        text = x if x.type.dtype == "string" else t(ops.FormatInteger(), x)
        return t(ops.HashText(self.num_oov_indices, tuple(self.salt or ())), text)

    def _tokens_at(self, t: Trace, x: Value, tokens: Sequence[Any]) -> Value:
        masks = [] if self.mask_token is None else [self.mask_token]
        keys = [0] * len(masks) + [self.first + i for i in range(len(tokens))]
        values = np.array([*masks, *tokens, self.oov_token], array_dtype(self.token_dtype))
        return table(t, x, np.array(keys, np.int64), values)


def table(t: Trace, x: Value, keys: Array, values: Array) -> Value:
    """The value of the key that equals each element, or else the last."""
    return t(ops.Lookup(), x, t.constant(keys), t.constant(values))


def salt_of(layer: Layer) -> list[int] | None:
    """The argument `salt` as the two numbers of a key; one stands for both.

    Raises:
        ModelError: it is something else.
    """
    value: Any = getattr(layer, "salt")  # noqa: B009 - the base has no such field
    given: Any = [value, value] if isinstance(value, int) else value
    fits = given is None or (isinstance(given, list | tuple) and len(given) == 2)  # pyright: ignore[reportUnknownArgumentType]
    fits = fits and all(isinstance(part, int) for part in given or ())
    layer.require(fits, "salt", "an integer or two")
    return list(given) if given is not None else None


@register_layer("keras>StringLookup")
@dataclass(eq=False)
class StringLookup(IndexLookup):
    """The places of texts in a vocabulary; with `invert`, the texts at places.

    Of several unknown tokens, a text is the one that FarmHash64 chooses, or SipHash with `salt` as its key.
    """

    token_dtype = "string"

    max_tokens: int | None = None
    num_oov_indices: int = 1
    mask_token: str | None = None
    oov_token: str = "[UNK]"
    vocabulary: Any = None
    idf_weights: Any = None
    invert: bool = False
    output_mode: str = "int"
    pad_to_max_tokens: bool = False
    sparse: bool = False
    encoding: str = "utf-8"
    oov_method: str = "floormod"
    salt: Any = None
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.encoding.lower().replace("_", "-") in ("utf-8", "utf8"), "encoding", '"utf-8"')

    def token(self, given: Any) -> Any:
        return given.decode() if isinstance(given, bytes) else str(given)

    def as_tokens(self, t: Trace, x: Value) -> Value:
        if x.type.dtype != "string":
            raise ModelError(f'layer `{self.name}` takes texts: Input(shape, dtype="string"). Received: {x.type}.')
        return x


@register_layer("keras>IntegerLookup")
@dataclass(eq=False)
class IntegerLookup(IndexLookup):
    """The places of integers in a vocabulary; with `invert`, the integers at places.

    Of several unknown tokens, an integer is the one that its remainder says, or with ``oov_method="farmhash"`` the hash
    of its decimal text.
    """

    token_dtype = "int64"

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

    def token(self, given: Any) -> Any:
        try:
            return int(given)
        except (TypeError, ValueError, OverflowError):
            law = f"`vocabulary` of layer `{self.name}` must be a list of integers"
            raise ModelError(f"{law}. Received: {str(given)[:80]!r}.") from None

    def as_tokens(self, t: Trace, x: Value) -> Value:
        if x.type.dtype == "string":
            raise ModelError(f"layer `{self.name}` takes integers. Received: {x.type}.")
        return cast(t, x, "int64")

    def bucket(self, t: Trace, x: Value) -> Value:
        if self.oov_method == "farmhash":
            return super().bucket(t, x)
        return t(ops.Mod(), x, like(t, x, self.num_oov_indices))
