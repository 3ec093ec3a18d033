"""Which graphs map the rows of a batch one by one."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.rows import batch_of
from kcompile.ir.types import TensorType

Body = Callable[[Builder, Value], Value]


def graph_of(body: Body, shape: Sequence[int | str] = ("N", 6, 4), dtype: str = "float32") -> Graph:
    b = Builder()
    return b.build({"y": body(b, b.input("x", TensorType(dtype, tuple(shape))))})


def weights(b: Builder, *shape: int) -> Value:
    return b.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def heads(b: Builder, x: Value) -> Value:
    return b(ops.Reshape(("N", 6, 2, 2)), x)


def lstm(b: Builder, x: Value) -> Value:
    state = b(ops.Full(("N", 3), 0.0, "float32"))
    op = ops.Lstm(ops.Tanh(), ops.Sigmoid(), has_initial_state=True)
    return b.multi(op, x, weights(b, 4, 12), weights(b, 3, 12), weights(b, 12), state, state)[0]


def running(b: Builder, x: Value, mixing: bool = False) -> Value:
    """The sums of all steps up to each, of each row or, where they mix, of all rows."""
    inner = Builder()
    state, step = (inner.input(name, TensorType("float32", ("N", 4))) for name in ("state", "step"))
    added = inner(ops.Add(), state, step)
    added = inner(ops.Sub(), added, inner(ops.ReduceMean((0,), keepdims=True), step)) if mixing else added
    start = b(ops.Full(("N", 4), 0.0, "float32"))
    return b.multi(ops.Scan(inner.build({"state": added, "y": added}), 0, 1), start, x)[1]


BY_ROWS: dict[str, Body] = {
    "loop": running,
    "elementwise": lambda b, x: b(ops.Add(), b(ops.Relu(), x), weights(b, 6, 4)),
    "dense": lambda b, x: b(ops.Dense(), x, weights(b, 4, 3), weights(b, 3)),
    "flattened": lambda b, x: b(ops.Dense(), b(ops.Reshape(("6*N", 4)), x), weights(b, 4, 3)),
    "conv": lambda b, x: b(ops.Conv((1,)), x, weights(b, 3, 4, 5)),
    "pool": lambda b, x: b(ops.MaxPool((2,), (2,)), x),
    "products of rows": lambda b, x: b(ops.MatMul(), x, b(ops.Transpose((0, 2, 1)), x)),
    "attention": lambda b, x: b.multi(ops.Attention(0.5), *[heads(b, x)] * 3)[0],
    "softmax": lambda b, x: b(ops.Softmax(1), x),
    "mean": lambda b, x: b(ops.ReduceMean((1,), keepdims=False), x),
    "concat": lambda b, x: b(ops.Concat(1), x, b(ops.Reverse((2,)), x)),
    "slice and pad": lambda b, x: b(ops.Pad((0, 1, 0), (0, 0, 2)), b(ops.Slice(1, 1, 5, 2), x)),
    "recurrent": lstm,
    "layer norm": lambda b, x: b(ops.LayerNorm(1e-3), x, weights(b, 4), weights(b, 4)),
    "broadcast": lambda b, x: b(ops.Mul(), b(ops.BroadcastTo(("N", 6, 4)), weights(b, 1, 6, 4)), x),
    "places of rows": lambda b, x: b(ops.Gather(1), x, b.constant(np.array([3, 0]))),
}

MIXED: dict[str, Body] = {
    "loop that mixes": lambda b, x: running(b, x, mixing=True),
    "reversed rows": lambda b, x: b(ops.Reverse((0,)), x),
    "sum over rows": lambda b, x: b(ops.Sub(), x, b(ops.ReduceMean((0,), keepdims=True), x)),
    "softmax over rows": lambda b, x: b(ops.Softmax(0), x),
    "softmax over rows from the end": lambda b, x: b(ops.Softmax(-3), x),
    "running sum": lambda b, x: b(ops.CumSum(0), x),
    "sorted": lambda b, x: b(ops.Sort(0), x),
    "rows and rows": lambda b, x: b(ops.Concat(0), x, x),
    "repeated": lambda b, x: b(ops.Tile((2, 1, 1)), x),
    "moved": lambda b, x: b(ops.Transpose((1, 0, 2)), x),
    "moved and back": lambda b, x: b(ops.Reshape(("N", 6, 4)), b(ops.Transpose((1, 0, 2)), x)),
    "all pairs": lambda b, x: b(ops.Add(), b(ops.Reshape(("N", 1, 24)), x), b(ops.Reshape((1, "N", 24)), x)),
    "rows as a table": lambda b, x: b(ops.Gather(0), x, b.constant(np.zeros(3, np.int64))),
    "random": lambda b, x: b(ops.Add(), x, b(ops.RandomUniform(("N", 6, 4), 0), b.constant(np.array(3)))),
    "inside a group": lambda b, x: grouped(b, x),
}


def grouped(b: Builder, x: Value) -> Value:
    inner = Builder()
    y = inner.input("x", x.type)
    return b(ops.Fused("exp+softmax", inner.build([inner(ops.Softmax(0), inner(ops.Exp(), y))])), x)


@pytest.mark.parametrize("name", BY_ROWS)
def test_graphs_that_map_rows_one_by_one_are_found_and_do(name: str, rng: np.random.Generator):
    graph = graph_of(BY_ROWS[name])
    assert batch_of(graph) == batch_of(fuse(graph)) == "N"
    x = rng.normal(size=(5, 6, 4)).astype(np.float32)
    rows = [evaluate(graph, {"x": x[i : i + 1]})["y"] for i in range(5)]
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], np.concatenate(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MIXED)
def test_graphs_whose_rows_meet_are_left_whole(name: str):
    assert batch_of(graph_of(MIXED[name])) is None


def test_embeddings_look_up_each_row():
    graph = graph_of(lambda b, x: b(ops.Gather(0), weights(b, 9, 3), x), ("N", 6), "int32")
    assert batch_of(graph) == "N"


def test_texts_are_looked_up_one_by_one():
    words, numbers = np.array(["a", "b"]), np.array([0, 1, 2])

    def body(b: Builder, x: Value) -> Value:
        tokens = b(ops.SplitText(3), b(ops.StandardizeText(), x))
        return b(ops.Lookup(), tokens, b.constant(words), b.constant(numbers))

    assert batch_of(graph_of(body, ("N",), "string")) == "N"


@pytest.mark.parametrize("shape", [(3, 6, 4), ("2*N", 6, 4), ("N", "N", 4), (1, "N", 4)])
def test_inputs_that_do_not_lead_with_the_batch_alone_have_none(shape: tuple[int | str, ...]):
    assert batch_of(graph_of(lambda b, x: b(ops.Relu(), x), shape)) is None


def test_inputs_of_different_batches_have_none():
    b = Builder()
    x, y = (b.input(name, TensorType("float32", (symbol, 4))) for name, symbol in (("x", "N"), ("y", "M")))
    assert batch_of(b.build({"x": b(ops.Relu(), x), "y": b(ops.Relu(), y)})) is None
