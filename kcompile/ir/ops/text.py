"""Texts: taken apart, looked up and hashed, as TensorFlow's ops do for Keras's layers.

A text is Unicode, but only ASCII letters have a lower case here and only ASCII characters are white space, as in
``tf.strings.lower`` and ``tf.strings.split`` without an encoding.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kcompile.ir import dims, expression, hashing
from kcompile.ir.op import Arrays, Op, Types
from kcompile.ir.ops.shape import Gather
from kcompile.ir.types import Array, TensorType

if TYPE_CHECKING:
    from kcompile.ir.expression import Expression
    from kcompile.ir.graph import Builder, Value

Split: TypeAlias = Literal["whitespace", "character"]

# What ``[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']`` matches, which Keras's TextVectorization strips.
PUNCTUATION = string.punctuation
WHITESPACE = " \t\n\v\f\r"

_WORD = re.compile(f"[^{WHITESPACE}]+")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_STRIP = str.maketrans("", "", PUNCTUATION)

# The widest span of integers that is looked up in a table of one entry each.
_TABLE_LIMIT = 1 << 20

# TensorFlow's key of hashed crosses (python/ops/sparse_ops.py).
_CROSS_KEY = 0xDECAFCAFFE


def each(function: Callable[[Any], Any], x: Array, dtype: Any) -> Array:
    """`function` of every element."""
    return np.array([function(item) for item in x.reshape(-1).tolist()], dtype).reshape(x.shape)


class _Text(Op):
    """Base: the first operand holds texts."""

    def require_text(self, types: Types) -> None:
        """Make sure that the first operand holds texts."""
        self.require(types[0].dtype == "string", "the operand must hold texts", types)


@dataclass(frozen=True)
class StandardizeText(_Text, name="standardize_text", operands=("x",)):
    """Texts in lower case, or without punctuation, or both."""

    lower: bool = True
    strip: bool = True

    def infer(self, types: Types) -> Types:
        self.require_text(types)
        return types

    def kernel(self, args: Arrays) -> Arrays:
        return (each(self._standardized, args[0], np.str_),)

    def _standardized(self, text: str) -> str:
        text = text.translate(_LOWER) if self.lower else text
        return text.translate(_STRIP) if self.strip else text


@dataclass(frozen=True)
class SplitText(_Text, name="split_text", operands=("x",)):
    """The first `length` tokens of each text, then empty texts: ``x: str[...] -> str[..., length]``.

    Tokens are words or characters. With `ngrams` they are those of each number in turn, joined by spaces.
    """

    length: int
    split: Split = "whitespace"
    ngrams: tuple[int, ...] = ()

    def infer(self, types: Types) -> Types:
        self.require_text(types)
        self.require(self.length >= 0, "`length` must be from 0 on", types)
        return (types[0].with_shape((*types[0].shape, self.length)),)

    def kernel(self, args: Arrays) -> Arrays:
        rows = [tokens(text, self.split, self.ngrams)[: self.length] for text in args[0].reshape(-1).tolist()]
        padded = [row + [""] * (self.length - len(row)) for row in rows]
        return (np.array(padded, np.str_).reshape(*args[0].shape, self.length),)


@dataclass(frozen=True)
class CountTokens(_Text, name="count_tokens", operands=("x", "keys")):
    """How often each of `keys` is a token of each text, after how many tokens are none of them.

    ``x: str[...], keys: str[K] -> i64[..., 1 + K]``.
    """

    split: Split = "whitespace"
    ngrams: tuple[int, ...] = ()

    def infer(self, types: Types) -> Types:
        self.require_text(types)
        self.require(types[1].rank == 1 and types[1].dtype == "string", "`keys` must be a list of texts", types)
        return (TensorType("int64", (*types[0].shape, dims.add(types[1].shape[0], 1))),)

    def kernel(self, args: Arrays) -> Arrays:
        places = {key: place for place, key in enumerate(args[1].tolist(), 1)}
        counts = np.zeros((args[0].size, len(args[1]) + 1), np.int64)
        for row, text in enumerate(args[0].reshape(-1).tolist()):
            for token, count in Counter(tokens(text, self.split, self.ngrams)).items():
                counts[row, places.get(token, 0)] += count
        return (counts.reshape(*args[0].shape, -1),)


def tokens(text: str, split: Split, ngrams: Sequence[int]) -> list[str]:
    """The tokens of one text."""
    found = _WORD.findall(text) if split == "whitespace" else list(text)
    if not ngrams:
        return found
    return [" ".join(found[i : i + n]) for n in ngrams for i in range(len(found) - n + 1)]


@dataclass(frozen=True)
class Lookup(Op, name="lookup", operands=("x", "keys", "values")):
    """For each element the value of the key that equals it, else the last value.

    ``x: T[...], keys: T[K], values: V[K + 1] -> V[...]``, where T and V are texts or i64.
    """

    def infer(self, types: Types) -> Types:
        x, keys, values = types
        kinds = {x.dtype, values.dtype} <= {"string", "int64"} and x.dtype == keys.dtype
        self.require(kinds, "elements and keys must be texts or int64, and so must values", types)
        fits = keys.rank == values.rank == 1 and values.shape[0] == dims.add(keys.shape[0], 1)
        self.require(fits, "there must be one value per key, and one more", types)
        return (values.with_shape(x.shape),)

    def kernel(self, args: Arrays) -> Arrays:
        x, keys, values = args
        places = {key: place for place, key in enumerate(keys.tolist())}
        return (values[each(lambda item: places.get(item, len(keys)), x, np.int64)],)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...] | None":
        keys, values = xs[1].constant, xs[2].constant
        if keys is None or values is None or {keys.dtype.kind, values.dtype.kind} != {"i"}:
            return None
        x = expression.lift(b, xs[0])[0]
        low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, -1)
        if high - low >= _TABLE_LIMIT:
            return (_searched(x, keys, values).value,)
        table = np.full(high - low + 3, values[-1])
        table[keys - low + 1] = values[:-1]
        place = x.maximum(_constant(x, low - 1)).minimum(_constant(x, high + 1)) - _constant(x, low - 1)
        return (b(Gather(), b.constant(table), place.value),)


def _constant(x: "Expression", array: Any) -> "Expression":
    """An array as an operand beside `x`."""
    return expression.lift(x.b, x.b.constant(np.asarray(array, np.int64)))[0]


def _searched(x: "Expression", keys: Array, values: Array) -> "Expression":
    """The value of the key that equals each integer, by comparing with all of them."""
    hit = x.expand(-1).equals(_constant(x, keys)).cast("int64")
    return (hit * _constant(x, values[:-1] - values[-1])).sum((-1,)) + _constant(x, values[-1])


@dataclass(frozen=True)
class HashText(_Text, name="hash_text", operands=("x",)):
    """A number from 0 to `num_buckets` - 1 by the hash of the text's UTF-8: ``str[...] -> i64[...]``.

    FarmHash's Fingerprint64, or SipHash-2-4 under a `key`.
    """

    num_buckets: int
    key: tuple[int, ...] = ()

    def infer(self, types: Types) -> Types:
        self.require_text(types)
        self.require(self.num_buckets > 0 and len(self.key) in (0, 2), "a key has two numbers, buckets one", types)
        return (types[0].with_dtype("int64"),)

    def kernel(self, args: Arrays) -> Arrays:
        return (each(self._bucket, args[0], np.int64),)

    def _bucket(self, text: str) -> int:
        data = text.encode()
        hashed = hashing.siphash((self.key[0], self.key[1]), data) if self.key else hashing.fingerprint(data)
        return hashed % self.num_buckets


@dataclass(frozen=True)
class HashCross(Op, name="hash_cross", operands=("*xs",)):
    """A number from 0 to `num_buckets` - 1 for each combination of elements, as ``tf.sparse.cross_hashed``.

    ``xs: T[...] -> i64[...]``, each of texts or integers.
    """

    num_buckets: int

    def infer(self, types: Types) -> Types:
        known = all(t.dtype == "string" or t.dtype.lstrip("u").startswith("int") for t in types)
        self.require(known and self.num_buckets > 0, "operands must hold texts or integers", types)
        self.require(len({t.shape for t in types}) == 1, "operands must have one shape", types)
        return (types[0].with_dtype("int64"),)

    def kernel(self, args: Arrays) -> Arrays:
        rows = zip(*(array.reshape(-1).tolist() for array in args), strict=True)
        crossed = [self._bucket(row) for row in rows]
        return (np.array(crossed, np.int64).reshape(args[0].shape),)

    def _bucket(self, row: Sequence[int | str]) -> int:
        crossed = _CROSS_KEY
        for item in row:
            number = hashing.fingerprint(item.encode()) if isinstance(item, str) else item % (1 << 64)
            crossed = hashing.concatenated(crossed, number)
        return crossed % self.num_buckets


@dataclass(frozen=True)
class FormatInteger(Op, name="format_integer", operands=("x",)):
    """Integers in decimal: ``i[...] -> str[...]``."""

    def infer(self, types: Types) -> Types:
        self.require(types[0].dtype.lstrip("u").startswith("int"), "the operand must hold integers", types)
        return (types[0].with_dtype("string"),)

    def kernel(self, args: Arrays) -> Arrays:
        return (each(str, args[0], np.str_),)
