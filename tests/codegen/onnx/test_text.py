"""What becomes of ops on texts in ONNX, against the reference."""

import numpy as np
import pytest

from kcompile.codegen.backends import backend
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType, type_of
from tests.frontend.errors import error_of

TEXTS = np.array(
    [
        ["The cat sat."],
        ["  two\twords\n\r\v\f here  "],
        [""],
        ["ÄRGER É Don't STOP (ever) a_b-c!"],
        ["数据 the the THE the\u00a0cat"],
        ["!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"],
    ]
)
KEYS = np.array(["the", "the THE", "ÄRGER", "数据", "here"])


def graph_of(op: Op, x: np.ndarray, *constants: np.ndarray) -> Graph:
    b = Builder("texts")
    value = b.input("x", TensorType(type_of(x).dtype, ("N", *x.shape[1:])))
    return b.build([b(op, value, *map(b.constant, constants))])


def check(graph: Graph, x: np.ndarray) -> None:
    session = backend("onnx").session(graph)
    for rows in (x, x[:1], x[2:3]):
        (expected,) = evaluate(graph, {"x": rows}).values()
        (found,) = session.run({"x": rows}).values()
        assert found.dtype.kind == expected.dtype.kind
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("strip", [False, True])
def test_texts_are_standardized(lower: bool, strip: bool) -> None:
    check(graph_of(ops.StandardizeText(lower, strip), TEXTS), TEXTS)


NGRAMS = [(), (1, 2), (3,), (2, 1)]


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("ngrams", NGRAMS)
def test_texts_are_split_at_white_space(length: int, ngrams: tuple[int, ...]) -> None:
    check(graph_of(ops.SplitText(length, ngrams=ngrams), TEXTS), TEXTS)
    check(graph_of(ops.SplitText(length, ngrams=ngrams), TEXTS[:, 0]), TEXTS[:, 0])


@pytest.mark.parametrize("ngrams", NGRAMS)
def test_tokens_are_counted(ngrams: tuple[int, ...]) -> None:
    check(graph_of(ops.CountTokens(ngrams=ngrams), TEXTS, KEYS), TEXTS)


@pytest.mark.parametrize("values", [np.array([5, 6, 7, 8, 9, -1]), np.array(["a", "b", "", "d", "ü", "[UNK]"])])
def test_tables_hold_texts_and_numbers(values: np.ndarray) -> None:
    words = np.array([["the", "the THE"], ["", "THE"], ["数据", "here "]])
    check(graph_of(ops.Lookup(), words, KEYS, values), words)
    numbers = np.array([[3, -4], [2**40, 0], [1, 1]])
    check(graph_of(ops.Lookup(), numbers, np.array([3, 2**40, -4, 9, 10]), values), numbers)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers_are_written_in_decimal(dtype: str) -> None:
    numbers = np.array([[0, 7], [120, 33], [1, 99]]).astype(dtype)
    check(graph_of(ops.FormatInteger(), numbers), numbers)


def test_what_has_no_operators_is_refused_with_a_reason() -> None:
    refused = {
        "ONNX cannot split texts into characters": ops.SplitText(3, "character"),
        "ONNX has no hashes of texts": ops.HashText(7),
    }
    for reason, op in refused.items():
        text = error_of(UnsupportedOp, lambda op=op: backend("onnx").session(graph_of(op, TEXTS)))
        assert text.endswith(f"`{op.op_name}` at the graph itself: {reason}")
    text = error_of(UnsupportedOp, lambda: backend("tvm").session(graph_of(ops.StandardizeText(), TEXTS)))
    assert text.endswith("`standardize_text` at the graph itself: compiled code has no texts")
