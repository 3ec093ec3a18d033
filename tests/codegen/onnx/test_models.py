"""Whole small models on ONNX Runtime agree with the NumPy reference."""

import numpy as np
import onnx

from kcompile.codegen.onnx import lower_to_onnx
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.types import Array, TensorType
from tests.codegen.onnx.harness import assert_agrees, check, run


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


def convolutional(rng: np.random.Generator) -> Graph:
    """Convolution, pooling, normalization and a classifier."""
    b = Builder("convolutional")
    x = b.input("image", TensorType("float32", ("N", 12, 10, 3)))
    with b.source("conv1"):
        kernel, bias = _weights(rng, 3, 3, 3, 8), _weights(rng, 8)
        x = b(ops.Relu(), b(ops.Conv((2, 2), "same"), x, b.constant(kernel, "conv1/kernel"), b.constant(bias)))
    with b.source("bn"):
        x = b(ops.BatchNorm(1e-3), x, *(b.constant(np.abs(_weights(rng, 8))) for _ in range(4)))
    with b.source("pool"):
        x = b(ops.MaxPool((2, 2), (2, 2), "same"), x)
    with b.source("flatten"):
        x = b(ops.Reshape(("N", 72)), x)
    with b.source("dense"):
        x = b(ops.Softmax(), b(ops.Dense(), x, b.constant(_weights(rng, 72, 5)), b.constant(_weights(rng, 5))))
    return b.build({"dense": x})


def encoder(rng: np.random.Generator) -> Graph:
    """A transformer's encoder block over an open length, with a padding mask."""
    b = Builder("encoder")
    x, mask = b.input("x", TensorType("float32", ("N", "T", 8))), b.input("mask", TensorType("bool", ("N", "T")))
    with b.source("attention"):
        parts = [b(ops.Dense(), x, b.constant(_weights(rng, 8, 8)), b.constant(_weights(rng, 8))) for _ in range(3)]
        heads = [b(ops.Reshape(("N", "T", 2, 4)), part) for part in parts]
        seen = b(ops.Reshape(("N", 1, 1, "T")), mask)
        attended, _ = b.multi(ops.Attention(0.5), *heads, seen)
        joined = b(ops.Reshape(("N", "T", 8)), attended)
        y = b(ops.Dense(), joined, b.constant(_weights(rng, 8, 8)), b.constant(_weights(rng, 8)))
    with b.source("norm"):
        x = b(ops.LayerNorm(1e-6), b(ops.Add(), x, y), b.constant(_weights(rng, 8)), b.constant(_weights(rng, 8)))
    with b.source("feed_forward"):
        y = b(ops.Gelu(), b(ops.Dense(), x, b.constant(_weights(rng, 8, 16)), b.constant(_weights(rng, 16))))
        y = b(ops.Dense(), y, b.constant(_weights(rng, 16, 8)), b.constant(_weights(rng, 8)))
    return b.build({"y": b(ops.Add(), x, y)})


def residual(rng: np.random.Generator) -> Graph:
    """Two residual blocks over open extents, then the mean of each channel."""
    b = Builder("residual")
    x = b.input("image", TensorType("float32", ("N", "H", "W", 4)))
    for i in range(2):
        with b.source(f"block{i}"):
            y = b(ops.Relu(), b(ops.Conv((1, 1), "same"), x, b.constant(_weights(rng, 3, 3, 4, 4))))
            y = b(ops.Conv((1, 1), "same"), y, b.constant(_weights(rng, 3, 3, 4, 4)), b.constant(_weights(rng, 4)))
            x = b(ops.Relu(), b(ops.Add(), x, y))
    return b.build({"mean": b(ops.ReduceMean((1, 2)), x)})


def masked(rng: np.random.Generator) -> Graph:
    """Tokens, 0 for padding, through an embedding and a masked bidirectional GRU."""
    b = Builder("masked")
    tokens = b.input("tokens", TensorType("int32", ("N", "T")))
    with b.source("embedding"):
        x = b(ops.Gather(0), b.constant(_weights(rng, 20, 6), "embedding/embeddings"), tokens)
        mask = b(ops.Compare("!="), tokens, b.constant(np.array(0, np.int32)))
    halves: list[Value] = []
    with b.source("bidirectional"):
        for reverse in (False, True):
            op = ops.Gru(reverse=reverse, has_mask=True)
            weights = [b.constant(_weights(rng, *s)) for s in ((6, 15), (5, 15), (15,), (15,))]
            halves.append(b.multi(op, x, *weights, mask)[0])
        both = b(ops.Concat(-1), *halves)
    return b.build({"both": both})


def test_an_encoder_block_is_made_of_onnxs_own_operators(rng: np.random.Generator) -> None:
    inputs = {"x": _weights(rng, 3, 7, 8), "mask": rng.random((3, 7)) < 0.7}
    model = check(encoder(rng), inputs)
    made = [node.op_type for node in model.graph.node]
    assert (made.count("Attention"), made.count("LayerNormalization"), made.count("Transpose")) == (1, 1, 0)
    # Not an Add, which ONNX Runtime would fuse with the normalization into a slow kernel.
    assert made[made.index("LayerNormalization") - 1] == "Sum"


def test_a_residual_model_keeps_one_layout_inside(rng: np.random.Generator) -> None:
    graph = residual(rng)
    inputs = {"image": _weights(rng, 2, 9, 5, 4)}
    check(graph, inputs)
    laid_out = onnx.ModelProto.FromString(lower_to_onnx(graph, metadata={}))
    assert [node.op_type for node in laid_out.graph.node].count("Transpose") == 1
    assert_agrees(evaluate(graph, inputs), run(laid_out, inputs))


def test_a_masked_model_agrees_for_padding_anywhere(rng: np.random.Generator) -> None:
    tokens = rng.integers(0, 4, (6, 9)).astype(np.int32)
    tokens[0], tokens[1] = 0, 1
    tokens[2, 5:] = 0
    tokens[3, 0] = -7  # clamped into the table
    model = check(masked(rng), {"tokens": tokens})
    assert [node.op_type for node in model.graph.node].count("TopK") == 1  # both directions share the order


def test_a_convolutional_model_agrees_with_the_reference(rng: np.random.Generator) -> None:
    graph = convolutional(rng)
    check(graph, {"image": _weights(rng, 3, 12, 10, 3)}, reference=True)
