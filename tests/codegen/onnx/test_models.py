"""Whole small models on ONNX Runtime agree with the NumPy reference."""

import numpy as np

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import Array, TensorType
from tests.codegen.onnx.harness import check


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


def test_a_convolutional_model_agrees_with_the_reference(rng: np.random.Generator) -> None:
    graph = convolutional(rng)
    check(graph, {"image": _weights(rng, 3, 12, 10, 3)}, reference=True)
