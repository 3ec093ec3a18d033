"""Half and double precision: what comes out, and how exact it is."""

import numpy as np
import pytest

from kcompile.codegen.tvm.dtypes import native_dtypes
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model

UNITS = 3


def network(dtype: str) -> Graph:
    """Convolution, attention, recurrence, dense layer and softmax, all of one dtype."""
    rng = np.random.default_rng(3)
    b = Builder()

    def weights(*shape: int):
        return b.constant((rng.normal(size=shape) / np.sqrt(shape[0])).astype(dtype))

    x = b.input("x", TensorType(dtype, ("N", 7, 4)))
    y = b(ops.Relu(), b(ops.Conv((1,), "same"), x, weights(3, 4, 6), weights(6)))
    heads = b(ops.Reshape(("N", 7, 2, 3)), y)
    attended, _ = b.multi(ops.Attention(0.5), heads, heads, heads)
    steps = b(ops.Reshape(("N", 7, 6)), attended)
    _, h, _ = b.multi(ops.Lstm(), steps, weights(6, 4 * UNITS), weights(UNITS, 4 * UNITS), weights(4 * UNITS))
    z = b(ops.Dense(), h, weights(UNITS, 5), weights(5))
    half = b(ops.Cast("float32"), b(ops.Cast("float16"), b(ops.Cast("float32"), z)))
    return b.build({"y": b(ops.Softmax(-1), z), "z": z, "half": half})


@pytest.mark.parametrize(("dtype", "atol"), [("float16", 1e-3), ("float64", 1e-6)])
def test_other_precisions_match_the_reference_in_their_own_dtype(dtype: str, atol: float, rng: np.random.Generator):
    graph = network(dtype)
    x = rng.normal(size=(2, 7, 4)).astype(dtype)
    expected = evaluate(graph, {"x": x}, precision="float64")
    for name, y in Model(fuse(graph)).run({"x": x}).items():
        assert y.dtype == graph.output_types[name].dtype
        np.testing.assert_allclose(y, expected[name], atol=1e-3 if name == "half" else atol, err_msg=name)


def test_nothing_is_rounded_to_half_precision_on_the_way():
    graph = native_dtypes(fuse(network("float16")))
    halves = [value for node in graph.nodes for value in node.outputs if value.type.dtype == "float16"]
    assert set(halves) == {value for value in graph.outputs if value.type.dtype == "float16"}


def test_a_graph_in_single_precision_stays_the_same_object():
    graph = network("float32")
    single = Graph("main", graph.inputs, graph.outputs[1:2], ("z",))
    assert native_dtypes(single) is single
