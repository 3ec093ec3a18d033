"""Convolution kernels of every kind against loops over results and taps."""

from itertools import product

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Value
from kcompile.ir.types import TensorType, type_of
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model

# spatial, channels, window, filters, strides, padding, dilation, groups
CASES = [
    ((7, 9), 3, (3, 3), 32, (1, 1), "same", (1, 1), 1),
    ((12, 13), 3, (7, 7), 19, (2, 2), "same", (1, 1), 1),
    ((6, 40), 5, (3, 3), 70, (1, 1), "valid", (1, 1), 1),
    ((9, 8), 16, (1, 1), 33, (1, 1), "valid", (1, 1), 1),
    ((9, 8), 6, (1, 1), 40, (2, 3), "valid", (1, 1), 1),
    ((5, 5), 8, (5, 5), 12, (1, 1), "valid", (1, 1), 1),
    ((8, 8), 4, (2, 2), 5, (3, 3), ((1, 0), (0, 2)), (1, 1), 1),
    ((11, 10), 7, (3, 2), 9, (1, 1), "same", (2, 3), 1),
    ((9, 9), 12, (3, 3), 18, (1, 1), "same", (1, 1), 3),
    ((6, 7), 4, (3, 3), 8, (2, 2), "same", (1, 1), 4),
    ((33,), 5, (3,), 17, (1,), "same", (1,), 1),
    ((30,), 4, (5,), 8, (2,), ((8, 0),), (2,), 1),
    ((1,), 1, (3,), 1, (1,), "same", (1,), 1),
    ((4, 5, 6), 3, (2, 3, 2), 10, (1, 2, 1), "same", (1, 1, 1), 1),
    ((9, 11), 37, (3, 3), 37, (1, 1), "same", (1, 1), 37),
    ((10, 9), 16, (5, 5), 16, (2, 2), "same", (1, 1), 16),
    ((23,), 6, (4,), 6, (1,), ((3, 0),), (1,), 6),
    ((13, 17), 21, (3, 3), 21, (2, 2), ((0, 1), (0, 1)), (1, 1), 21),
    ((1, 5), 16, (3, 3), 16, (1, 1), "same", (1, 1), 16),
    ((10, 10), 40, (2, 3), 40, (1, 1), "valid", (1, 1), 40),
    ((9, 8), 18, (3, 3), 18, (1, 2), "same", (2, 1), 18),
    ((4, 4), 7, (3, 3), 7, (1, 1), ((3, 4), (5, 0)), (1, 1), 7),
    ((8, 20), 9, (3, 3), 9, (1, 1), "valid", (2, 2), 9),
    ((7, 11), 40, (5, 5), 40, (1, 1), "same", (1, 1), 40),
]


def parameters(i: int) -> tuple[Array, Array]:
    _, channels, window, filters, *_, groups = CASES[i]
    rng = np.random.default_rng(i)
    kernel = rng.normal(size=(*window, channels // groups, filters)).astype(np.float32)
    return kernel, rng.normal(size=filters).astype(np.float32)


def loops(x: Array, i: int) -> Array:
    """One result position and one tap at a time, in float64."""
    spatial, channels, window, filters, strides, padding, dilation, groups = CASES[i]
    kernel, bias = parameters(i)
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    if padding == "same":
        total = [max((-(-e // s) - 1) * s + r - e, 0) for e, s, r in zip(spatial, strides, reach, strict=True)]
        padding = tuple((t // 2, t - t // 2) for t in total)
    elif padding == "valid":
        padding = ((0, 0),) * len(window)
    out = [(e + sum(p) - r) // s + 1 for e, p, r, s in zip(spatial, padding, reach, strides, strict=True)]
    y = np.tile(bias.astype(np.float64), (len(x), *out, 1))
    per_group = (channels // groups, filters // groups)
    for position, tap in product(product(*map(range, out)), product(*map(range, window))):
        at = [o * s - p[0] + t * d for o, s, p, t, d in zip(position, strides, padding, tap, dilation, strict=True)]
        if all(0 <= a < e for a, e in zip(at, spatial, strict=True)):
            pixel = x[(slice(None), *at)].astype(np.float64).reshape(len(x), groups, per_group[0])
            matrix = kernel[tap].reshape(per_group[0], groups, per_group[1])
            y[(slice(None), *position)] += np.einsum("ngc,cgf->ngf", pixel, matrix).reshape(len(x), filters)
    return y


def fused(b: Builder, i: int, x: Value, skip: Value) -> Value:
    """``activation(conv(x)) + skip`` as a fused group."""
    _, _, _, _, strides, padding, dilation, groups = CASES[i]
    kernel, bias = (b.constant(array) for array in parameters(i))
    operands = [x, kernel, bias, skip]
    inner = Builder()
    names = [inner.input(name, value.type) for name, value in zip("xkbs", operands, strict=True)]
    y = inner(ops.Conv(strides, padding, dilation, groups), *names[:3])
    y = inner(ops.Add(), inner(ops.Silu() if i % 3 == 0 else ops.Relu(), y), names[3])
    return b(ops.Fused("conv+activation+add", inner.build([y])), *operands)


@pytest.fixture(scope="module", params=[False, True], ids=["known", "open"])
def model(request: pytest.FixtureRequest) -> Model:
    """All cases in one library; "open" leaves the first spatial axis to the run time."""
    b = Builder()
    outputs = {}
    for i, (spatial, channels, _, _, strides, padding, dilation, groups) in enumerate(CASES):
        shape = (f"T{i}", *spatial[1:]) if request.param else spatial
        x = b.input(f"x{i}", TensorType("float32", (f"N{i}", *shape, channels)))
        conv = ops.Conv(strides, padding, dilation, groups)
        (result,) = conv.infer((x.type, *(type_of(array) for array in parameters(i))))
        outputs[f"y{i}"] = fused(b, i, x, b.input(f"skip{i}", result))
    return Model(b.build(outputs))


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 1), (2, 3)])
def test_convolutions_with_epilogues_match_loops(model: Model, batch: int, threads: int):
    rng = np.random.default_rng(batch)
    inputs, expected = {}, {}
    for i, (spatial, channels, *_) in enumerate(CASES):
        inputs[f"x{i}"] = rng.normal(size=(batch, *spatial, channels)).astype(np.float32)
        y = loops(inputs[f"x{i}"], i)
        inputs[f"skip{i}"] = rng.normal(size=y.shape).astype(np.float32)
        y = y / (1 + np.exp(-y)) if i % 3 == 0 else np.maximum(y, 0)
        expected[f"y{i}"] = y + inputs[f"skip{i}"]
    results = model.run(inputs, threads)
    for name, y in results.items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=2e-5, err_msg=f"{name}: {CASES[int(name[1:])]}")


def test_results_are_the_same_bits_for_any_number_of_threads(model: Model):
    rng = np.random.default_rng(3)
    types = {
        name: t.bind({s: 3 for s in t.shape if isinstance(s, str) and s[0] == "N"})
        for name, t in model.graph.input_types.items()
    }
    extents = {f"T{i}": case[0][0] for i, case in enumerate(CASES)}
    inputs = {name: rng.normal(size=t.bind(extents).static_shape()).astype(np.float32) for name, t in types.items()}
    one = model.run(inputs, 1)
    for threads in (2, 5):
        for name, y in model.run(inputs, threads).items():
            np.testing.assert_array_equal(y, one[name])


def test_every_fused_group_is_one_kernel(model: Model):
    assert len(model.compiled.calls) == len(CASES)
