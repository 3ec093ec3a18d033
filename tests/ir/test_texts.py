"""Hashes against what others compute, and texts as constants."""

import numpy as np
import pytest

from kcompile.errors import GraphError, InputError
from kcompile.ir import hashing, ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.parse import parse
from kcompile.ir.text import constants_of, to_text
from kcompile.ir.types import TensorType, type_of

LETTERS = "abcdefghijklmnopqrstuvwxyzäß" * 40
BUCKETS = 2**63 - 1

# By the length of the text: tf.strings.to_hash_bucket_fast, and tf.strings.to_hash_bucket_strong with key [1, -2], of
# TensorFlow 2.21.
RECORDED = {
    0: (1936946117179621456, 1583518726171341606),
    1: (3694432073954588132, 3067518542778738979),
    3: (2640714258260161385, 7078110304451063422),
    4: (1897425971756105985, 4776545272365901657),
    7: (4341691227789030229, 3861425695378547027),
    8: (9145071594317031690, 573758819942051249),
    16: (6080716761534418621, 687076694622800309),
    17: (2171023947900359593, 2426000279136432449),
    32: (3278663321286865872, 2079465230511709188),
    33: (6498893402405175105, 7643001203036147658),
    64: (4355262741281651009, 4893531742801212124),
    65: (601159965189934731, 3201458174891166576),
    128: (4748798397456488401, 8953696873985150004),
    129: (260720172807654699, 4898794251126693003),
    300: (6863993921702371280, 4604897522490324358),
}


@pytest.mark.parametrize("length", list(RECORDED))
def test_hashes_are_tensorflows(length: int) -> None:
    data = LETTERS[:length].encode()
    found = hashing.fingerprint(data) % BUCKETS, hashing.siphash((1, -2), data) % BUCKETS
    assert found == RECORDED[length]


def test_siphash_is_that_of_its_paper() -> None:
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    assert hashing.siphash(key, bytes(range(15))) == 0xA129CA6149BE45E5


@pytest.mark.parametrize("count", [3, 20])
def test_constants_of_texts_read_back(count: int) -> None:
    texts = np.array([f'a "{i}" ü\n' for i in range(count)])
    b = Builder("texts")
    x = b.input("x", TensorType("string", ("N",)))
    graph = b.build([b(ops.Lookup(), x, b.constant(texts), b.constant(np.arange(count + 1)))])
    again = parse(to_text(graph), constants_of(graph))
    assert to_text(again) == to_text(graph)
    (places,) = evaluate(again, {"x": texts[[2, 0]]}).values()
    np.testing.assert_array_equal(places, [2, 0])


def test_texts_have_a_type_of_their_own() -> None:
    assert str(type_of(np.array([["a", "bcd"]]))) == "str[1, 2]"
    b = Builder("texts")
    x = b.input("x", TensorType("string", ("N",)))
    graph = b.build([b(ops.StandardizeText(), x)])
    with pytest.raises(InputError, match=r"must have dtype string\. Received: int64"):
        evaluate(graph, {"x": np.zeros(3, np.int64)})
    with pytest.raises(GraphError, match="the operand must hold texts"):
        b(ops.StandardizeText(), b.input("y", TensorType("int64", ("N",))))
    with pytest.raises(GraphError, match="texts"):
        parse("graph @g() -> (y: str[1]) {\n  %0 = constant {value=[1]} : str[1]\n  return %0\n}\n")


def test_only_ascii_letters_have_a_lower_case_and_only_ascii_space_splits() -> None:
    x = np.array(["ÄB Ç\u00a0D\tE"])
    assert ops.StandardizeText(strip=False).kernel((x,))[0].tolist() == ["Äb Ç\u00a0d\te"]
    assert ops.SplitText(4).kernel((x,))[0].tolist() == [["ÄB", "Ç\u00a0D", "E", ""]]


def test_a_table_of_integers_becomes_one_of_places_or_a_comparison() -> None:
    for keys in ([3, 5, 4], [3, 2**62, -(2**62)]):
        b = Builder("table")
        x = b.input("x", TensorType("int64", ("N",)))
        operands = (b.constant(np.array(keys)), b.constant(np.array([7, 8, 9, -1])))
        whole = b.build([b(ops.Lookup(), x, *operands)])
        made = ops.Lookup().decompose(b, (x, *operands))
        assert made is not None
        feed = {"x": np.array([3, 4, 5, 6, 2, 2**62, -(2**62), 2**63 - 1, -(2**63)])}
        found, expected = (next(iter(evaluate(graph, feed).values())) for graph in (b.build(made), whole))
        np.testing.assert_array_equal(found, expected)
