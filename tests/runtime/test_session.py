"""`predict` and `run`: what they take, what they give, and what they say about what does not fit."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kcompile.errors import InputError
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from kcompile.runtime.feeds import cast_input
from kcompile.runtime.reference import ReferenceSession, graph_signature
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Plan, Signature

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


def dense_graph() -> Graph:
    """``y: f32[N, 3] = x @ WEIGHTS``, ``x: f32[N, 4]``."""
    b = Builder("dense")
    x = b.input("x", TensorType("float32", ("N", 4)))
    return b.build({"y": b(ops.Dense(), x, b.constant(WEIGHTS))})


def two_input_graph() -> Graph:
    """``total = a + b`` and ``product = a * b``, all f32[N, 2]."""
    b = Builder("pair")
    left, right = (b.input(name, TensorType("float32", ("N", 2))) for name in ("a", "b"))
    return b.build({"total": b(ops.Add(), left, right), "product": b(ops.Mul(), left, right)})


class Recording(Session):
    """Gives zeros, and keeps the arrays that the engine would get."""

    engine = "recording"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature, threads=1)
        self.calls: list[list[np.ndarray]] = []

    def _execute(self, arrays: list[np.ndarray], plan: Plan) -> list[np.ndarray]:
        self.calls.append(arrays)
        return [np.zeros(type.static_shape(), type.dtype) for type in plan.outputs]


def recording(graph: Graph | None = None) -> Recording:
    return Recording(ReferenceSession(graph or dense_graph()).signature)


def rejected(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---- predict


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_predict_gives_every_row_whatever_the_batch_size(rows: int, batch_size: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((rows, 4), np.float32)
    y = ReferenceSession(dense_graph()).predict(x, batch_size=batch_size)
    assert (y.shape, y.dtype) == ((rows, 3), np.float32)
    np.testing.assert_allclose(y, x @ WEIGHTS, rtol=1e-6)


def test_predict_calls_the_engine_once_per_chunk_and_the_last_may_be_short() -> None:
    session = recording()
    session.predict(np.zeros((7, 4), np.float32), batch_size=3)
    assert [len(arrays[0]) for arrays in session.calls] == [3, 3, 1]


def test_no_rows_need_no_engine() -> None:
    session = recording()
    assert session.predict(np.zeros((0, 4), np.float32)).shape == (0, 3)
    assert session.calls == []


def test_a_batch_size_of_none_is_32() -> None:
    session = recording()
    session.predict(np.zeros((33, 4), np.float32), batch_size=None)
    assert [len(arrays[0]) for arrays in session.calls] == [32, 1]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "4"])
def test_a_batch_size_below_one_is_refused(batch_size: Any) -> None:
    text = rejected(recording().predict, np.zeros((2, 4), np.float32), batch_size=batch_size)
    assert text == f"`batch_size` must be an integer from 1 on. Received: {batch_size!r}."


def test_rows_are_not_split_where_an_output_does_not_follow_them() -> None:
    b = Builder("mean")
    x = b.input("x", TensorType("float32", ("N", 4)))
    session = ReferenceSession(b.build({"y": b(ops.ReduceMean((0,)), x)}))
    assert session.signature.batch is None
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.testing.assert_allclose(session.predict(x, batch_size=2), x.mean(0))


def test_rows_are_split_where_an_output_has_several_rows_for_each() -> None:
    b = Builder("unroll")
    x = b.input("x", TensorType("float32", ("N", 4)))
    session = ReferenceSession(b.build({"y": b(ops.Reshape(("2*N", 2)), x)}))
    assert session.signature.batch == "N"
    values = np.arange(20, dtype=np.float32).reshape(5, 4)
    np.testing.assert_array_equal(session.predict(values, batch_size=2), values.reshape(10, 2))


def test_a_model_of_a_fixed_batch_is_called_once() -> None:
    b = Builder("fixed")
    x = b.input("x", TensorType("float32", (5, 4)))
    session = recording(b.build({"y": b(ops.Relu(), x)}))
    assert session.predict(np.ones((5, 4), np.float32), batch_size=2).shape == (5, 4)
    assert len(session.calls) == 1


@pytest.mark.parametrize("wrap", [list, tuple])
def test_inputs_may_stand_in_a_sequence_in_order(wrap: Any) -> None:
    a, b = np.full((3, 2), 5.0, np.float32), np.full((3, 2), 2.0, np.float32)
    total, product = ReferenceSession(two_input_graph()).predict(wrap([a, b]))
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(product, a * b)


def test_inputs_may_be_named_in_any_order() -> None:
    a, b = np.full((3, 2), 5.0, np.float32), np.full((3, 2), 2.0, np.float32)
    results = ReferenceSession(two_input_graph()).predict({"b": b, "a": a})
    assert isinstance(results, list)
    np.testing.assert_array_equal(results[1], a * b)


def test_outputs_stand_where_the_structure_has_their_names() -> None:
    graph = two_input_graph()
    structure = {"sums": ["total"], "products": {"p": "product"}}
    session = ReferenceSession(graph, graph_signature(graph, structure))
    ones = np.ones((2, 2), np.float32)
    results = session.predict([ones, ones])
    assert list(results) == ["sums", "products"]
    np.testing.assert_array_equal(results["sums"][0], 2 * ones)
    np.testing.assert_array_equal(results["products"]["p"], ones)


def test_a_list_of_one_array_is_that_array() -> None:
    x = np.ones((2, 4), np.float32)
    session = ReferenceSession(dense_graph())
    np.testing.assert_array_equal(session.predict([x]), session.predict(x))


def test_nested_lists_of_numbers_are_an_array() -> None:
    session = ReferenceSession(dense_graph())
    x = [[1, 2, 3, 4], [5.5, 6, 7, 8]]
    np.testing.assert_array_equal(session.predict(x), session.predict(np.array(x, np.float32)))
    np.testing.assert_array_equal(session.predict(x[:1]), session.predict(np.array(x[:1], np.float32)))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", ">f4"])
def test_predict_converts_numbers_to_the_inputs_dtype(dtype: str) -> None:
    session = recording()
    session.predict(np.ones((2, 4), dtype))
    assert session.calls[0][0].dtype == np.dtype("float32")


def test_whole_numbers_of_any_dtype_may_be_indices() -> None:
    b = Builder("embedding")
    ids = b.input("ids", TensorType("int32", ("N", 2)))
    session = ReferenceSession(b.build({"y": b(ops.Gather(), b.constant(WEIGHTS), ids)}))
    np.testing.assert_array_equal(session.predict(np.array([[0.0, 3.0]])), WEIGHTS[[[0, 3]]])
    assert rejected(session.predict, np.array([[0.5, 3.0]])) == (
        "input `ids` must have dtype int32. Received: float64 with values that int32 cannot hold."
    )
    assert "cannot hold" in rejected(session.predict, np.array([[2**40, 0]]))
    assert "cannot hold" in rejected(session.predict, np.array([[np.nan, 0]]))


def test_a_last_axis_of_length_one_may_be_missing_or_too_many() -> None:
    b = Builder("column")
    x = b.input("x", TensorType("float32", ("N", 3, 1)))
    session = recording(b.build({"y": b(ops.Relu(), x)}))
    assert session.predict(np.ones((2, 3), np.float32)).shape == (2, 3, 1)
    assert session.predict(np.ones((2, 3, 1, 1), np.float32)).shape == (2, 3, 1)


@pytest.mark.parametrize(
    "x", [np.zeros((2, 5), np.float32), np.zeros(4, np.float32), np.zeros((1, 2, 4), np.float32), 3.0]
)
def test_a_wrong_shape_is_refused(x: Any) -> None:
    text = rejected(recording().predict, x)
    assert text == f"input `x` must have shape (N, 4). Received: {np.shape(x)}."


def test_what_is_no_array_of_numbers_is_refused() -> None:
    session = recording()
    assert rejected(session.predict, [[1, 2, 3, 4], [5]]) == (
        "input `x` must be one array. Received: lists of unequal lengths."
    )
    assert rejected(session.predict, np.array([["a"] * 4])) == (
        "input `x` must hold numbers of dtype float32. Received: str32."
    )
    assert "Received: object" in rejected(session.predict, None)
    assert "Received: complex64" in rejected(session.predict, np.ones((1, 4), np.complex64))


def test_every_input_that_does_not_fit_is_named() -> None:
    session = recording(two_input_graph())
    text = rejected(session.predict, {"a": np.zeros((2, 3), np.float32), "b": np.zeros((1, 2), "U1")})
    assert text == (
        "input `b` must hold numbers of dtype float32. Received: str32.\n"
        "input `a` must have shape (N, 2). Received: (2, 3)."
    )
    text = rejected(session.predict, [np.zeros((2, 3)), np.zeros((4, 1))])
    assert [line.partition(" must")[0] for line in text.splitlines()] == ["input `a`", "input `b`"]


def test_a_wrong_number_of_inputs_is_refused() -> None:
    session = recording(two_input_graph())
    x = np.zeros((2, 2), np.float32)
    assert rejected(session.predict, [x]) == "the model's inputs are a, b. Received: 1 arrays."
    assert rejected(session.predict, x) == (
        "the model has 2 inputs, so `x` must be a list, tuple or dict of arrays. Received: ndarray."
    )
    assert rejected(session.predict, {"a": x, "c": x}) == (
        "input `b` is missing.\nthe model's inputs are `a`, `b`. Received: `c`."
    )


def test_inputs_must_have_equally_many_rows() -> None:
    session = recording(two_input_graph())
    assert "input `b`" in rejected(session.predict, [np.zeros((2, 2)), np.zeros((3, 2))])


# ---- run


def test_run_converts_nothing() -> None:
    session = recording(two_input_graph())
    text = rejected(session.run, {"a": np.zeros((2, 2)), "b": np.zeros((2, 2), ">f4")})
    assert text == (
        "input `a` must have dtype float32. Received: float64.\n"
        "input `b` must have dtype float32. Received: float32 in foreign byte order."
    )


def test_run_names_every_wrong_name_and_shape() -> None:
    session = recording(two_input_graph())
    text = rejected(session.run, {"a": np.zeros(2, np.float32), "x": np.zeros((2, 2), np.float32)})
    assert text == (
        "input `b` is missing.\n"
        "the model's inputs are `a`, `b`. Received: `x`.\n"
        "input `a` must have shape (N, 2). Received: (2,)."
    )
    assert rejected(session.run, np.zeros((2, 2))) == "inputs must be given as a dict by name. Received: ndarray."


def test_run_gives_outputs_by_name() -> None:
    ones = np.ones((2, 2), np.float32)
    results = ReferenceSession(two_input_graph()).run({"b": ones, "a": ones})
    assert list(results) == ["total", "product"]


def test_a_contiguous_array_of_the_right_dtype_is_not_copied() -> None:
    session = recording()
    x = np.zeros((3, 4), np.float32)
    session.run({"x": x})
    session.predict(x)
    assert all(arrays[0] is x for arrays in session.calls)
    session.predict(np.zeros((6, 4), np.float32), batch_size=3)
    assert not session.calls[-1][0].flags.owndata


def test_a_strided_or_unaligned_array_reaches_the_engine_contiguous_and_aligned(rng: np.random.Generator) -> None:
    session = recording()
    wide = rng.standard_normal((3, 8), np.float32)
    unaligned = np.frombuffer(b"\0" + wide[:, :4].tobytes(), np.float32, 12, offset=1).reshape(3, 4)
    for x in (wide[:, ::2], wide[:, :4].T.copy().T, unaligned):
        session.run({"x": x})
        (given,) = session.calls[-1]
        assert given.flags.c_contiguous
        assert given.flags.aligned
        np.testing.assert_array_equal(given, x)


# ---- open extents


def conv_graph() -> Graph:
    """A valid convolution of width 5 along T."""
    b = Builder("conv")
    x = b.input("x", TensorType("float32", ("N", "T", 2)))
    kernel = b.constant(np.ones((5, 2, 3), np.float32))
    return b.build({"y": b(ops.Conv((1,)), x, kernel)})


def test_a_sequence_shorter_than_a_window_is_refused() -> None:
    session = ReferenceSession(conv_graph())
    assert session.predict(np.ones((2, 5, 2), np.float32)).shape == (2, 1, 3)
    assert rejected(session.predict, np.ones((2, 4, 2), np.float32)) == (
        "extent T of input `x` must be at least 5. Received: 4."
    )


def test_an_empty_sequence_is_refused_and_an_empty_batch_is_not() -> None:
    b = Builder("max")
    x = b.input("x", TensorType("float32", ("N", "T", 2)))
    session = ReferenceSession(b.build({"y": b(ops.ReduceMax((1,)), x)}))
    assert session.predict(np.ones((0, 3, 2), np.float32)).shape == (0, 2)
    assert rejected(session.predict, np.ones((2, 0, 2), np.float32)) == (
        "extent T of input `x` must be at least 1. Received: 0."
    )


# ---- threads


def test_four_threads_at_once_give_what_one_gives(rng: np.random.Generator) -> None:
    session = ReferenceSession(two_input_graph())
    pairs = [[rng.standard_normal((rows, 2), np.float32) for _ in range(2)] for rows in range(40)]
    expected = [session.predict(pair, batch_size=7) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pair: session.predict(pair, batch_size=7), pairs))
    for result, one in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, one)


def test_the_reference_travels_to_other_processes(rng: np.random.Generator) -> None:
    session = ReferenceSession(dense_graph())
    x = rng.standard_normal((2, 4), np.float32)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(session)).predict(x), session.predict(x))


def test_a_session_shows_what_it_is() -> None:
    assert repr(ReferenceSession(dense_graph())) == (
        "<reference session 'dense': (x: f32[N, 4]) -> (y: f32[N, 3]), threads=1>"
    )


def test_predict_takes_numbers_of_bfloat16() -> None:
    given = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    assert cast_input("x", given, "float32").tolist() == [[1.5, -2.0]]
    with pytest.raises(InputError, match="must have dtype int32"):
        cast_input("x", given, "int32")
