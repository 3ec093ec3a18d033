"""What a step of training is rewritten to computes what it computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.grad import backward
from kcompile.ir.passes.pipeline import training
from kcompile.ir.plan import Plan
from kcompile.ir.types import TensorType

PADDINGS: list[Any] = ["valid", "same", ((1, 0), (0, 1))]


def pooled_relu(pool: ops.MaxPool, shape: tuple[int, ...]) -> Graph:
    """A convolution with bias, ReLU and pooling, and the gradients of a sum of its results."""
    b = Builder("step")
    x, kernel, bias = (
        b.input(name, TensorType("float64", shape))
        for name, shape in (("x", ("N", *shape, 2)), ("kernel", (2, 3, 2, 3)), ("bias", (3,)))
    )
    y = b(pool, b(ops.Relu(), b(ops.Conv((1, 1), "same"), x, kernel, bias)))
    return stepped(b, y, [x, kernel, bias])


def stepped(b: Builder, y: Value, wrt: list[Value]) -> Graph:
    loss = b(ops.ReduceSum(tuple(range(y.type.rank))), b(ops.Mul(), y, b(ops.Cos(), y)))
    return b.build({"y": y, **{f"d{x.name}": dx for x, dx in zip(wrt, backward(b, loss, wrt), strict=True)}})


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Small integers, so that many elements of a window are equal, and zero among them."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-1, 2, shape).astype(np.float64) for name, shape in shapes.items()}


@given(st.integers(2, 4), st.integers(1, 3), st.sampled_from(PADDINGS), st.integers(0, 2**16))
def test_pooling_before_relu_keeps_results_and_gradients(size: int, stride: int, padding: Any, seed: int) -> None:
    graph = pooled_relu(ops.MaxPool((size, 2), (stride, 2), padding), (6, 7))
    changed = training(graph)
    inputs = drawn({"x": (2, 6, 7, 2), "kernel": (2, 3, 2, 3), "bias": (3,)}, seed)
    before, after = evaluate(graph, inputs), evaluate(changed, inputs)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("op", [ops.Relu, ops.MaxPoolGradient])
def test_what_follows_a_convolution_is_computed_on_what_its_pooling_leaves(op: type[ops.Relu]) -> None:
    changed = training(pooled_relu(ops.MaxPool((2, 2), (2, 2)), (6, 8)))
    relus = [node for node in changed.nodes if isinstance(node.op, ops.Relu)]
    sums = [node for node in changed.nodes if isinstance(node.op, ops.ReduceSum)]
    assert [node.inputs[0].type.shape[1:3] for node in relus] == [(3, 4)]
    assert all(not isinstance(node.inputs[0].op, op) for node in sums)


@given(st.tuples(st.integers(1, 3), st.integers(2, 3)), st.sampled_from(PADDINGS), st.booleans(), st.integers(0, 2**16))
def test_convolutions_in_the_order_of_their_pooling_keep_gradients(
    size: tuple[int, int], padding: Any, last: bool, seed: int
) -> None:
    b = Builder("step")
    sizes = {"x": (2, 7, 6, 2), "first": (2, 3, 2, 3), "second": (1, 2, 3, 2), "bias": (3,)}
    x, first, second, bias = (b.input(name, TensorType("float64", shape)) for name, shape in sizes.items())
    y = b(ops.MaxPool(size, size), b(ops.Conv((1, 1), padding), x, first, bias))
    y = y if last else b(ops.Conv((1, 1), "same"), y, second)
    graph = stepped(b, y, [x, first, bias] if last else [first, second, bias])
    changed = training(graph)
    assert any(isinstance(node.op, ops.WindowedConv) for node in changed.nodes)
    inputs = drawn(sizes, seed)
    before, after = evaluate(graph, inputs), evaluate(changed, inputs)
    planned = Plan(changed).run([inputs[value.name] for value in changed.inputs])
    for (name, array), found in zip(before.items(), planned, strict=True):
        np.testing.assert_allclose(after[name], array, rtol=1e-12, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found, array, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_convolution_that_others_read_keeps_its_order() -> None:
    b = Builder("step")
    x, kernel = (b.input(n, TensorType("float64", shape)) for n, shape in (("x", (2, 6, 6, 1)), ("k", (3, 3, 1, 2))))
    y = b(ops.Conv((1, 1), "same"), x, kernel)
    pooled = b(ops.MaxPool((2, 2), (2, 2)), y)
    both = b(ops.Concat(0), *(b(ops.Reshape((value.type.size,)), value) for value in (y, pooled)))
    graph = stepped(b, both, [x, kernel])
    assert not any(isinstance(node.op, ops.WindowedConv) for node in training(graph).nodes)


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**16))
def test_entropy_of_a_softmax_keeps_its_gradient(classes: int, lines: int, seed: int) -> None:
    b, rng = Builder("step"), np.random.default_rng(seed)
    x, labels = (
        b.input("x", TensorType("float64", ("N", lines, classes))),
        b.input("y", TensorType("int32", ("N", lines))),
    )
    graph = stepped(b, b(ops.CrossEntropy(0.1), b(ops.Softmax(), x), labels), [x])
    changed = training(graph)
    assert any(node.op == ops.CrossEntropyGradient(0.1, through_softmax=True) for node in changed.nodes)
    # Labels that name no class, and probabilities beyond the clip, are among them.
    inputs = {"x": 3 * rng.normal(size=(5, lines, classes)), "y": rng.integers(-1, classes + 1, (5, lines), np.int32)}
    np.testing.assert_allclose(evaluate(changed, inputs)["dx"], evaluate(graph, inputs)["dx"], rtol=1e-9, atol=1e-12)


@given(st.integers(1, 4), st.integers(0, 2**16))
def test_cross_entropy_is_that_of_one_hot_labels(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, labels = rng.random((2, 3, classes)), rng.integers(-1, classes + 1, (2, 3), np.int32)
    (found,) = ops.CrossEntropy(0.1).kernel((p, labels))
    for place in np.ndindex(2, 3):
        terms = [-np.log(min(max(q, 0.1), 0.9)) * (number == labels[place]) for number, q in enumerate(p[place])]
        assert abs(found[place] - sum(terms)) < 1e-12


UPDATES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "y + a * (x - y)": lambda x, y, a, b: y + (x - y) * a,
    "(x - y) * a + y": lambda x, y, a, b: (x - y) * a + y,
    "y - a * x": lambda x, y, a, b: y - a * x,
    "b * y - x * a": lambda x, y, a, b: b * y - x * a,
    "x * a + y": lambda x, y, a, b: x * a + y,
    "a * x + b * y": lambda x, y, a, b: a * x + b * y,
    "y - a * x / z": lambda x, y, a, b: y - x * a / (x * x + 1.0),
}


@pytest.mark.parametrize("formula", UPDATES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_scaled_sum_takes_one_pass(formula: str, dtype: str) -> None:
    b = Builder("update")
    x, y = (Expression(b, b.input(name, TensorType(dtype, (5,)))) for name in "xy")
    first, second = (Expression(b, b.input(name, TensorType(dtype, ()))) for name in "ab")
    graph = b.build([UPDATES[formula](x, y, first, second).value])
    changed = training(graph)
    assert isinstance(changed.outputs[0].op, ops.ScaledSum)
    assert not any(
        isinstance(node.op, ops.Add | ops.Sub) and node.outputs[0] is changed.outputs[0] for node in changed.nodes
    )
    given = {"x": np.arange(-2, 3), "y": np.array([3, -1, 0.5, 4, 2]), "a": np.array(0.25), "b": np.array(-2)}
    feeds = {name: array.astype(dtype) for name, array in given.items()}
    (before,), (after,) = evaluate(graph, feeds).values(), Plan(changed).run(list(feeds.values()))
    np.testing.assert_allclose(after, before, rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("shapes", [((5,), (1,)), ((5,), ())])
def test_a_sum_that_broadcasts_stays(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    b = Builder("sum")
    x, y = (
        Expression(b, b.input(name, TensorType("float32", shape))) for name, shape in zip("xy", shapes, strict=True)
    )
    changed = training(b.build([(x * 0.5 + y).value]))
    assert not any(isinstance(node.op, ops.ScaledSum) for node in changed.nodes)
