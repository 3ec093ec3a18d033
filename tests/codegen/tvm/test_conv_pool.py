"""Convolution, activation and pooling as one kernel."""

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Value
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model

# spatial, channels, window, filters, strides, padding, groups, pooling
CASES: list[tuple] = [
    ((9, 12), 3, (3, 3), 40, (1, 1), "same", 1, ops.MaxPool((2, 2), (2, 2))),
    ((8, 7), 5, (3, 2), 7, (1, 1), "valid", 1, ops.AvgPool((2, 3), (3, 3))),
    ((11, 11), 4, (5, 5), 80, (2, 2), "same", 2, ops.MaxPool((3, 2), (3, 2))),
    ((4, 4, 6), 2, (2, 2, 3), 5, (1, 1, 1), "same", 1, ops.AvgPool((2, 1, 2), (2, 1, 2))),
    ((10, 8), 90, (3, 4), 33, (1, 1), "same", 1, ops.MaxPool((2, 2), (2, 2))),
]
# Those that stay two kernels: a window over one axis, overlapping windows, padding, a depthwise convolution.
APART: list[tuple] = [
    ((13,), 3, (3,), 8, (1,), "same", 1, ops.MaxPool((2,), (2,))),
    ((9, 9), 3, (3, 3), 8, (1, 1), "same", 1, ops.MaxPool((3, 3), (2, 2))),
    ((9, 9), 3, (3, 3), 8, (1, 1), "same", 1, ops.AvgPool((2, 2), (2, 2), "same")),
    ((8, 8), 6, (3, 3), 6, (1, 1), "same", 6, ops.MaxPool((2, 2), (2, 2))),
]


def group(b: Builder, i: int, x: Value, activation: Op) -> Value:
    """``pool(activation(conv(x)) + residual)`` as one fused group."""
    _, channels, window, filters, strides, padding, groups, pooling = [*CASES, *APART][i]
    rng = np.random.default_rng(i)
    kernel = b.constant(rng.normal(size=(*window, channels // groups, filters)).astype(np.float32))
    bias, scale = (b.constant(rng.normal(size=filters).astype(np.float32)) for _ in range(2))
    operands = [x, kernel, bias, scale]
    inner = Builder()
    x, kernel, bias, scale = (inner.input(f"x{j}", value.type) for j, value in enumerate(operands))
    y = inner(ops.Conv(strides, padding, (), groups), x, kernel, bias)
    y = inner(pooling, inner(ops.Mul(), inner(activation, y), scale))
    return b(ops.Fused("conv+activation+mul+pool", inner.build([y])), *operands)


@pytest.fixture(scope="module", params=[False, True], ids=["known", "open"])
def model(request: pytest.FixtureRequest) -> Model:
    b = Builder()
    outputs = {}
    for i, (spatial, channels, *_) in enumerate([*CASES, *APART]):
        shape = (f"T{i}", *spatial[1:]) if request.param else spatial
        x = b.input(f"x{i}", TensorType("float32", ("N", *shape, channels)))
        outputs[f"y{i}"] = group(b, i, x, ops.Silu() if i % 2 else ops.Relu())
    return Model(b.build(outputs))


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 2), (3, 3)])
def test_fused_pooling_matches_the_reference(model: Model, batch: int, threads: int, rng: np.random.Generator):
    shapes = [(batch, *case[0], case[1]) for case in [*CASES, *APART]]
    inputs = {f"x{i}": rng.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    expected = evaluate(model.graph, inputs, precision="float64")
    for name, y in model.run(inputs, threads).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=2e-5, err_msg=name)


def test_the_unpooled_result_is_never_stored(model: Model):
    families = [call.family for call in model.compiled.calls]
    assert families == ["conv_pool"] * len(CASES) + ["conv", "pool"] * (len(APART) - 1) + ["depthwise", "pool"]
