"""Ops on texts, with what ONNX has for them: StringSplit, StringConcat, StringNormalizer and LabelEncoder."""

import numpy as np
import onnx

from kcompile.codegen.onnx.emitter import Emitter, known
from kcompile.codegen.onnx.table import ML_DOMAIN, ONNX
from kcompile.errors import UnsupportedOp
from kcompile.ir import dims, ops
from kcompile.ir.graph import Node, Value
from kcompile.ir.ops.text import PUNCTUATION, WHITESPACE
from kcompile.ir.types import Array

_END = int(np.iinfo(np.int64).max)

# In this locale only ASCII letters have another case.
_PLAIN_LOCALE = "C"


@ONNX.register(ops.StandardizeText)
def standardize_text(e: Emitter, op: ops.StandardizeText, node: Node) -> str:
    x = node.inputs[0]
    flat = (dims.mul(*x.type.shape),)
    y = e.reshape(e.name(x), x.type.shape, flat)
    if op.lower:
        y = e.node("StringNormalizer", y, case_change_action="LOWER", locale=_PLAIN_LOCALE)
    for character in PUNCTUATION if op.strip else "":
        y = _replaced(e, y, character, "")
    return e.reshape(y, flat, x.type.shape)


@ONNX.register(ops.SplitText)
def split_text(e: Emitter, op: ops.SplitText, node: Node) -> str:
    words = _tokens(e, op, node.inputs[0])
    words = _gathered(e, words) if op.ngrams else words
    rows = e.node("Shape", words, start=0, end=1)
    padding = e.node("Expand", _text(e, ""), e.node("Concat", rows, e.ints(op.length), axis=0))
    whole = e.node("Concat", words, padding, axis=1)
    first = e.node("Slice", whole, e.ints(0), e.ints(op.length), e.ints(1))
    return e.node("Reshape", first, e.shape(node.outputs[0].type.shape), allowzero=1)


@ONNX.register(ops.CountTokens)
def count_tokens(e: Emitter, op: ops.CountTokens, node: Node) -> str:
    """Ones are added up at each token's place; the texts that only fill rows have a place of their own, cut off."""
    keys = _constant(node.inputs[1])
    total = len(keys) + 2
    words = _tokens(e, op, node.inputs[0])
    places = _encoded(e, words, np.array(["", *keys.tolist()]), np.array([total - 1, *range(1, len(keys) + 1), 0]))
    rows = e.node("Shape", words, start=0, end=1)
    zero, one = (onnx.numpy_helper.from_array(np.full(1, number, np.int64)) for number in (0, 1))
    nothing = e.node("ConstantOfShape", e.node("Concat", rows, e.ints(total), axis=0), value=zero)
    ones = e.node("ConstantOfShape", e.node("Shape", words), value=one)
    counts = e.node("ScatterElements", nothing, places, ones, axis=1, reduction="add")
    kept = e.node("Slice", counts, e.ints(0), e.ints(total - 1), e.ints(1))
    return e.node("Reshape", kept, e.shape(node.outputs[0].type.shape), allowzero=1)


@ONNX.register(ops.Lookup)
def lookup(e: Emitter, op: ops.Lookup, node: Node) -> str:
    x, keys, values = node.inputs
    return _encoded(e, e.name(x), _constant(keys), _constant(values))


@ONNX.register(ops.FormatInteger)
def format_integer(e: Emitter, op: ops.FormatInteger, node: Node) -> str:
    return e.node("Cast", e.cast(e.name(node.inputs[0]), "int64"), to=onnx.TensorProto.STRING)


def _constant(value: Value) -> Array:
    array = known(value)
    if array is None:
        raise UnsupportedOp("ONNX's tables must be known at compile time")
    return array


def _encoded(e: Emitter, x: str, keys: Array, values: Array) -> str:
    """The value of each element's key, or else the last."""
    kinds = {"U": ("strings", "string"), "i": ("int64s", "int64")}
    (key_kind, _), (value_kind, default_kind) = kinds[keys.dtype.kind], kinds[values.dtype.kind]
    *given, default = values.tolist()
    attributes = {f"keys_{key_kind}": keys.tolist(), f"values_{value_kind}": given, f"default_{default_kind}": default}
    return e.node("LabelEncoder", x, domain=ML_DOMAIN, **attributes)


def _tokens(e: Emitter, op: ops.SplitText | ops.CountTokens, x: Value) -> str:
    """The tokens of each of the texts, in rows that empty texts fill up: ``str[M, most]``; n-grams have gaps between.

    Raises:
        UnsupportedOp: texts are to be split into characters.
    """
    if op.split != "whitespace":
        raise UnsupportedOp("ONNX cannot split texts into characters")
    words = _words(e, x)
    return e.node("Concat", *(_ngrams(e, words, size) for size in op.ngrams), axis=1) if op.ngrams else words


def _ngrams(e: Emitter, words: str, size: int) -> str:
    """So many words in a row, joined by spaces; empty where a row has fewer left: ``str[M, most - size + 1]``."""
    last = e.node("Slice", words, e.ints(size - 1), e.ints(_END), e.ints(1))
    joined = last
    for start in reversed(range(size - 1)):
        word = e.node("Slice", words, e.ints(start), e.ints(start - size + 1), e.ints(1))
        joined = e.node("StringConcat", e.node("StringConcat", word, _text(e, " ")), joined)
    return e.node("Where", e.node("Equal", last, _text(e, "")), _text(e, ""), joined)


def _gathered(e: Emitter, tokens: str) -> str:
    """Each row's tokens at its beginning, and one empty text more at its end: each is put where its number says."""
    empty = e.node("Equal", tokens, _text(e, ""))
    number = e.node("CumSum", e.cast(e.node("Not", empty), "int64"), e.scalar(1, "int64"))
    shape = e.node("Shape", tokens)
    most = e.node("Slice", shape, e.ints(1), e.ints(2))
    places = e.node("Where", empty, most, e.node("Sub", number, e.ints(1)))
    blank = e.node("Expand", _text(e, ""), e.node("Add", shape, e.ints(0, 1)))
    return e.node("ScatterElements", blank, places, tokens, axis=1)


def _words(e: Emitter, x: Value) -> str:
    """The words of each of the texts, in rows that empty texts fill up: ``str[M, most words]``."""
    flat = e.reshape(e.name(x), x.type.shape, (dims.mul(*x.type.shape),))
    for character in WHITESPACE.replace(" ", ""):
        flat = _replaced(e, flat, character, " ")
    return e.multi("StringSplit", [flat], (True, True))[0]


def _text(e: Emitter, text: str) -> str:
    """A constant ``str[1]``."""
    return e.node("Constant", value_strings=[text])


def _replaced(e: Emitter, x: str, character: str, glue: str) -> str:
    """Texts ``x: str[M]`` split at a character and joined again with `glue` before every part.

    Rows of fewer parts are filled up with empty ones.
    """
    parts = e.multi("StringSplit", [x], (True, True), delimiter=character)[0]
    most = e.node("Squeeze", e.node("Shape", parts, start=1, end=2))
    start = e.node("Expand", _text(e, ""), e.node("Shape", x))
    return e.node("Loop", most, "", start, body=_joining(e, parts, _text(e, glue) if glue else ""))


def _joining(e: Emitter, parts: str, glue: str) -> onnx.GraphProto:
    """One step of the loop: part number i behind what there is."""
    i, go, joined, part, on, longer = (e.unique(f"join/{n}") for n in ("i", "go", "joined", "part", "on", "longer"))
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [node("Gather", [parts, i], [part], axis=1), node("Identity", [go], [on])]
    before = joined
    if glue:
        before = e.unique("join/glued")
        nodes.append(node("StringConcat", [joined, glue], [before]))
    nodes.append(node("StringConcat", [before, part], [longer]))
    number, flag, texts = onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING
    inputs = [value(i, number, []), value(go, flag, []), value(joined, texts, ["M"])]
    outputs = [value(on, flag, []), value(longer, texts, ["M"])]
    return onnx.helper.make_graph(nodes, "join", inputs, outputs)
