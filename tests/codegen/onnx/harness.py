"""Runs graphs on ONNX Runtime and, where asked, on onnx's own evaluator, and compares with the NumPy reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from kcompile.codegen.onnx import emit
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Graph
from kcompile.ir.types import Array, TensorType

# Relative and absolute bounds by dtype: a handful of roundings for float32 and float16, none for moves and integers.
BOUNDS = {"float16": (2e-3, 2e-3), "float32": (1e-5, 2e-6), "float64": (1e-12, 1e-13)}


def draw(type_: TensorType, rng: np.random.Generator, **symbols: int) -> Array:
    """An array of `type_` with symbols replaced: normal floats, small integers of both signs, random bools."""
    shape = type_.bind(symbols).static_shape()
    if type_.dtype == "bool":
        return rng.random(shape) < 0.6
    if type_.is_float:
        return rng.standard_normal(shape).astype(type_.dtype)
    return rng.integers(0 if type_.dtype.startswith("u") else -9, 10, shape).astype(type_.dtype)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a model on ONNX Runtime, by name."""
    opened = session(model)
    names = [value.name for value in opened.get_outputs()]
    arrays: Any = opened.run(names, dict(inputs))
    return dict(zip(names, arrays, strict=True))


def run_reference(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a model on onnx's own evaluator, by name."""
    names = [value.name for value in model.graph.output]
    arrays: Any = ReferenceEvaluator(model).run(names, dict(inputs))
    return dict(zip(names, arrays, strict=True))


def assert_agrees(expected: Mapping[str, Array], received: Mapping[str, Array], what: object = "") -> None:
    """Both hold the same names, dtypes, shapes and, within `BOUNDS`, numbers."""
    assert list(expected) == list(received)
    for name, array in expected.items():
        assert (received[name].dtype, received[name].shape) == (array.dtype, array.shape), what
        rtol, atol = BOUNDS.get(array.dtype.name, (0, 0))
        np.testing.assert_allclose(received[name], array, rtol, atol, err_msg=f"{what}: {name}")


def check(graph: Graph, inputs: Mapping[str, Array], *, reference: bool = False) -> onnx.ModelProto:
    """Emit `graph`, and hold what the engines compute against `evaluate`."""
    model = emit(graph, metadata={}).message()
    expected = evaluate(graph, inputs)
    assert_agrees(expected, run(model, inputs), graph)
    if reference:
        assert_agrees(expected, run_reference(model, inputs), graph)
    return model
