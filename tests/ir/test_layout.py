"""Channels-first graphs have as few transposes as their models need, and compute the same."""

from collections.abc import Callable

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.op import Op
from kcompile.ir.passes.layout import to_channels_first, to_channels_last
from kcompile.ir.passes.pipeline import inference
from kcompile.ir.types import TensorType
from tests.tolerances import REWRITE, assert_close


class Net:
    """A builder with Keras-like layers of random float64 weights."""

    def __init__(self) -> None:
        self.b = Builder("net")
        self.rng = np.random.default_rng(0)

    def input(self, *shape: int | str, name: str = "x") -> Value:
        return self.b.input(name, TensorType("float64", ("N", *shape)))

    def weights(self, *shape: int) -> Value:
        return self.b.constant(self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])))

    def conv(self, x: Value, filters: int, size: int = 3, stride: int = 1, groups: int = 1) -> Value:
        rank, channels = x.type.rank - 2, int(x.type.shape[-1])
        kernel = self.weights(*(size,) * rank, channels // groups, filters)
        return self.b(ops.Conv((stride,) * rank, "same", groups=groups), x, kernel, self.weights(filters))

    def norm(self, x: Value) -> Value:
        size = int(x.type.shape[-1])
        variance = self.b.constant(self.rng.random(size) + 0.5)
        return self.b(ops.BatchNorm(1e-3), x, *(self.weights(size) for _ in range(3)), variance)

    def layer_norm(self, x: Value) -> Value:
        return self.b(ops.LayerNorm(1e-6), x, *(self.weights(int(x.type.shape[-1])) for _ in range(2)))

    def dense(self, x: Value, units: int) -> Value:
        return self.b(ops.Dense(), x, self.weights(int(x.type.shape[-1]), units), self.weights(units))

    def lstm(self, x: Value, units: int, reverse: bool = False) -> Value:
        weights = self.weights(int(x.type.shape[-1]), 4 * units), self.weights(units, 4 * units)
        return self.b.multi(ops.Lstm(reverse=reverse), x, *weights, self.weights(4 * units))[0]

    def __call__(self, op: Op, *xs: Value) -> Value:
        return self.b(op, *xs)

    def graph(self, *ys: Value) -> Graph:
        return self.b.build(ys)


def resnet(n: Net) -> Graph:
    y = n(ops.Relu(), n.norm(n.conv(n.input(16, 16, 3), 8, 7, 2)))
    y = n(ops.MaxPool((3, 3), (2, 2)), n(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0)), y))
    for i in range(3):
        shortcut = n.norm(n.conv(y, 16, 1)) if i == 0 else y
        z = n(ops.Relu(), n.norm(n.conv(y, 4, 1)))
        z = n.norm(n.conv(n(ops.Relu(), n.norm(n.conv(z, 4))), 16, 1))
        y = n(ops.Relu(), n(ops.Add(), shortcut, z))
    return n.graph(n(ops.Softmax(), n.dense(n(ops.ReduceMean((1, 2)), y), 5)))


def preactivation_resnet(n: Net) -> Graph:
    y = n.conv(n.input(8, 8, 3), 8)
    for _ in range(2):
        z = n.conv(n(ops.Relu(), n.norm(y)), 8)
        y = n(ops.Add(), y, n.conv(n(ops.Relu(), n.norm(z)), 8))
    return n.graph(n(ops.ReduceMax((1, 2)), n(ops.Relu(), n.norm(y))))


def mobilenet(n: Net) -> Graph:
    scaled = n(ops.Mul(), n.input(16, 16, 3), n.b.constant(np.asarray(1 / 127.5)))
    y = n(ops.HardSilu(), n.norm(n.conv(n(ops.Sub(), scaled, n.b.constant(np.asarray(1.0))), 8, 3, 2)))
    for _ in range(2):
        z = n(ops.HardSilu(), n.norm(n.conv(y, 16, 1)))
        z = n(ops.HardSilu(), n.norm(n.conv(z, 16, groups=16)))
        squeezed = n(ops.Reshape(("N", 1, 1, 16)), n(ops.ReduceMean((1, 2)), z))
        excited = n(ops.HardSigmoid(), n.conv(n(ops.Relu(), n.conv(squeezed, 4, 1)), 16, 1))
        y = n(ops.Add(), y, n.norm(n.conv(n(ops.Mul(), z, excited), 8, 1)))
    y = n.conv(n(ops.HardSilu(), n.conv(n(ops.ReduceMean((1, 2), True), y), 32, 1)), 10, 1)
    return n.graph(n(ops.Softmax(), n(ops.Reshape(("N", 10)), y)))


def unet(n: Net) -> Graph:
    first = n(ops.Relu(), n.conv(n.input(8, 8, 3), 4))
    second = n(ops.Relu(), n.conv(n(ops.MaxPool((2, 2), (2, 2)), first), 8))
    deep = n.conv(n(ops.AvgPool((2, 2), (2, 2)), second), 8)
    y = n.conv(n(ops.Concat(3), n(ops.Resize((4, 4)), deep), second), 8)
    y = n(ops.ConvTranspose((2, 2), ((0, 0), (0, 0)), (0, 0)), y, n.weights(2, 2, 4, 8))
    return n.graph(n(ops.Sigmoid(), n.conv(n(ops.Concat(-1), y, first), 1, 1)))


def digits(n: Net) -> Graph:
    y = n(ops.MaxPool((2, 2), (2, 2)), n(ops.Relu(), n.conv(n.input(8, 8, 1), 4)))
    y = n(ops.Relu(), n.dense(n(ops.Reshape(("N", 64)), y), 8))
    return n.graph(n(ops.Softmax(), n.dense(y, 10)))


def two_branches(n: Net) -> Graph:
    x, other = n.input(8, 8, 3), n.input(5, name="other")
    flat = [n(ops.Reshape(("N", 64 * filters)), n.conv(x, filters)) for filters in (4, 2)]
    y = n(ops.Relu(), n.norm(n(ops.Concat(1), flat[0], other, flat[1])))
    return n.graph(n.dense(y, 4))


def sum_of_unlike_flattenings(n: Net) -> Graph:
    wide, high = n.conv(n.input(2, 6, 3), 2), n.conv(n.input(4, 2, 3, name="other"), 3)
    y = n(ops.Add(), *(n(ops.Reshape(("N", 24)), x) for x in (wide, high)))
    return n.graph(n.dense(n(ops.Relu(), y), 4))


def video(n: Net) -> Graph:
    frames = n(ops.Reshape(("N*T", 8, 8, 3)), n.input("T", 8, 8, 3))
    y = n(ops.Reshape(("N", "T", 64)), n(ops.MaxPool((2, 2), (2, 2)), n.conv(frames, 4)))
    return n.graph(n(ops.Concat(-1), n.lstm(y, 3), n.lstm(y, 3, reverse=True)))


def sequence(n: Net) -> Graph:
    y = n(ops.MaxPool((2,), (2,)), n(ops.Relu(), n.conv(n.input(16, 4), 8, 5)))
    y = n.conv(n.lstm(n.conv(y, 8), 6), 4)
    return n.graph(n(ops.Softmax(), n.dense(y, 3)))


def attention_over_pixels(n: Net) -> Graph:
    y = n.conv(n.input(4, 4, 3), 8)
    query, key, value = (n(ops.Reshape(("N", 16, d)), n.conv(y, d, 1)) for d in (4, 4, 8))
    weights = n(ops.Softmax(), n(ops.MatMul(), query, n(ops.Transpose((0, 2, 1)), key)))
    attended = n(ops.Reshape(("N", 4, 4, 8)), n(ops.MatMul(), weights, value))
    return n.graph(n(ops.ReduceMean((1, 2)), n.conv(n(ops.Add(), y, attended), 3)))


def convnext(n: Net) -> Graph:
    y = n.conv(n.input(8, 8, 3), 8, 2, 2)
    for _ in range(2):
        z = n.dense(n(ops.Gelu(), n.dense(n.layer_norm(n.conv(y, 8, groups=8)), 32)), 8)
        y = n(ops.Add(), y, n(ops.Mul(), z, n.weights(8)))
    return n.graph(n.dense(n.layer_norm(n(ops.ReduceMean((1, 2)), y)), 4))


def channels_first_model(n: Net) -> Graph:
    x = n.input(3, 8, 8)
    op = ops.Conv((1, 1), "same", data_format="channels_first")
    return n.graph(n(ops.Relu(), n(op, x, n.weights(3, 3, 3, 4))))


def channels_first_by_permute(n: Net) -> Graph:
    x = n(ops.Transpose((0, 2, 3, 1)), n.input(3, 8, 8))
    y = n(ops.Transpose((0, 3, 1, 2)), n(ops.Relu(), n.conv(x, 4)))
    return n.graph(y)


MODELS: list[tuple[Callable[[Net], Graph], int]] = [
    (resnet, 1),  # the input
    (preactivation_resnet, 1),
    (mobilenet, 1),
    (unet, 1),  # one class: the output is a reshape
    (digits, 0),  # one channel in, and the flattening goes into the kernel
    (two_branches, 1),
    (sum_of_unlike_flattenings, 2 + 2),  # the inputs, and what the two flattenings do not share
    (video, 1),
    (sequence, 4),  # input, before and after the LSTM, output
    (attention_over_pixels, 4),  # input, query, value, and the attended pixels; the key's own cancels
    (convnext, 1 + 2 * 2),  # input, and around the norm of each block
    (channels_first_model, 0),
    (channels_first_by_permute, 0),
]


@pytest.mark.parametrize(("make", "transposes"), MODELS, ids=lambda x: getattr(x, "__name__", None))
def test_no_more_transposes_are_left_than_the_model_needs(make: Callable[[Net], Graph], transposes: int) -> None:
    graph = to_channels_first(inference(make(Net())))
    assert sum(isinstance(node.op, ops.Transpose) for node in graph.nodes) == transposes


@pytest.mark.parametrize("make", [make for make, _ in MODELS], ids=lambda make: make.__name__)
def test_models_compute_the_same_channels_first(make: Callable[[Net], Graph], rng: np.random.Generator) -> None:
    graph = make(Net())
    shapes = {name: [{"N": 2, "T": 3}.get(str(d), d) for d in t.shape] for name, t in graph.input_types.items()}
    inputs = {name: rng.standard_normal([int(d) for d in shape]) for name, shape in shapes.items()}
    expected, actual = evaluate(graph, inputs), evaluate(to_channels_first(inference(graph)), inputs)
    for name, array in expected.items():
        assert_close(actual[name], array, REWRITE)


def unet_of_keras_channels_first(n: Net) -> Graph:
    """Keras's channels-first layers, as they come from a file: each conv with transposes around it."""

    def conv(x: Value, filters: int) -> Value:
        y = n.conv(n(ops.Transpose((0, 2, 3, 1)), x), filters)
        return n(ops.Relu(), n(ops.Transpose((0, 3, 1, 2)), y))

    first = conv(n.input(3, 8, 8), 4)
    pooled = n(ops.MaxPool((2, 2), (2, 2), data_format="channels_first"), first)
    up = n(ops.Resize((8, 8), data_format="channels_first"), conv(pooled, 4))
    return n.graph(conv(n(ops.Slice(1, 0, 6), n(ops.Concat(1), up, first)), 3))


@pytest.mark.parametrize(("relay", "transposes"), [(to_channels_first, 0), (to_channels_last, 2)])
def test_a_channels_first_model_of_keras_has_transposes_at_its_ends_only(
    relay: Callable[[Graph], Graph], transposes: int, rng: np.random.Generator
) -> None:
    graph = unet_of_keras_channels_first(Net())
    changed = relay(inference(graph))
    assert sum(isinstance(node.op, ops.Transpose) for node in changed.nodes) == transposes
    x = {"x": rng.standard_normal((2, 3, 8, 8))}
    assert_close(evaluate(changed, x)["output_0"], evaluate(graph, x)["output_0"], REWRITE)


def test_a_graph_without_images_is_left_alone() -> None:
    n = Net()
    graph = n.graph(n.dense(n.input(4), 3))
    assert to_channels_first(graph) is graph


def test_a_squeeze_and_excitation_costs_reshapes_only() -> None:
    graph = to_channels_first(inference(mobilenet(Net())))
    moved = [node for node in graph.nodes if isinstance(node.op, ops.Transpose | ops.Reshape)]
    # The input; per block from [N, C] to [N, C, 1, 1]; and the last one drops the axes of extent 1.
    assert [type(node.op).__name__ for node in moved] == ["Transpose", "Reshape", "Reshape", "Reshape"]


def test_weights_that_stay_are_not_copied() -> None:
    n = Net()
    x = n.input(4)
    weights = n.rng.standard_normal((4, 50))
    graph = inference(n.graph(n(ops.Dense(), x, n.b.constant(weights))))
    assert np.shares_memory(weights, graph.nodes[0].outputs[0].constant)
