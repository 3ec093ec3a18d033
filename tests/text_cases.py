"""Cases of ops on texts, for `tests.strategies`."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kcompile.ir import ops
from tests.strategies import Draw, OpCase, case_of, integers, shapes

WORDS = st.sampled_from(["", "a", "bc", "Ärger Ünd", " two  words\t", "Don't stop!", "x-y_z", "数据 b a", "a" * 70])
KEYS = ["a", "bc", "b a", "数据", "words"]


def texts(draw: Draw, shape: tuple[int, ...]) -> NDArray:
    count = int(np.prod(shape, dtype=int))
    return np.array(draw(st.lists(WORDS, min_size=count, max_size=count)), np.str_).reshape(shape)


@case_of(ops.StandardizeText)
def _standardize(draw: Draw, cls: type[ops.StandardizeText], dtype: str) -> OpCase:
    return OpCase(cls(draw(st.booleans()), draw(st.booleans())), (texts(draw, draw(shapes(low=0))),))


_SPLITS = st.sampled_from(["whitespace", "character"])
_NGRAMS = st.sampled_from([(), (1, 2), (2,)])


@case_of(ops.SplitText)
def _split(draw: Draw, cls: type[ops.SplitText], dtype: str) -> OpCase:
    op = cls(draw(st.integers(0, 4)), draw(_SPLITS), draw(_NGRAMS))
    return OpCase(op, (texts(draw, draw(shapes(max_rank=2))),))


@case_of(ops.CountTokens)
def _count(draw: Draw, cls: type[ops.CountTokens], dtype: str) -> OpCase:
    keys = np.array(KEYS[: draw(st.integers(1, len(KEYS)))], np.str_)
    return OpCase(cls(draw(_SPLITS), draw(_NGRAMS)), (texts(draw, draw(shapes(max_rank=2))), keys))


@case_of(ops.Lookup)
def _lookup(draw: Draw, cls: type[ops.Lookup], dtype: str) -> OpCase:
    shape, numbers = draw(shapes(low=0)), np.array([3, -1, 2**40], np.int64)
    places, tokens = np.array([7, 8, 9, -1], np.int64), np.array(["x", "ä", "", "[UNK]"], np.str_)
    if draw(st.booleans()):
        x, keys = integers(draw, shape, -2, 4, "int64"), numbers
    else:
        x, keys = texts(draw, shape), np.array(["a", "", "bc"], np.str_)
    return OpCase(cls(), (x, keys, places if draw(st.booleans()) else tokens))


@case_of(ops.HashText)
def _hash(draw: Draw, cls: type[ops.HashText], dtype: str) -> OpCase:
    key = draw(st.sampled_from([(), (133, 137), (-1, 2**63)]))
    return OpCase(cls(draw(st.integers(1, 1000)), key), (texts(draw, draw(shapes(low=0))),))


@case_of(ops.HashCross)
def _cross(draw: Draw, cls: type[ops.HashCross], dtype: str) -> OpCase:
    shape = draw(shapes(low=0, max_rank=2))
    others = (integers(draw, shape, -5, 5, "int32"), integers(draw, shape, 0, 2**40, "int64"))
    return OpCase(cls(draw(st.integers(1, 1000))), (texts(draw, shape), *others))


@case_of(ops.FormatInteger)
def _format(draw: Draw, cls: type[ops.FormatInteger], dtype: str) -> OpCase:
    kind = draw(st.sampled_from(["int64", "int32", "uint8"]))
    return OpCase(cls(), (integers(draw, draw(shapes(low=0)), 0 if kind == "uint8" else -300, 200, kind),))
