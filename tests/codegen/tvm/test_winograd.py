"""Winograd convolutions against the reference in float64."""

import numpy as np
import pytest

from kcompile.codegen.backends import backend
from kcompile.codegen.tvm.kernels.winograd_form import rows_of, step_for
from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model

# height, width, channels, filters, padding, pooling
CASES = [
    (8, 8, 16, 16, "same", None),
    (9, 8, 23, 37, "same", None),
    (14, 14, 64, 48, "same", None),
    (12, 11, 16, 70, "valid", None),
    (16, 10, 32, 33, "same", "max"),
    (11, 13, 17, 16, "same", "mean"),
    (6, 30, 40, 21, ((2, 1), (0, 2)), None),
    (40, 22, 16, 16, "same", "max"),
]


def graph_of_all_cases() -> Graph:
    """``pool(silu(conv(x) + skip))``, or relu, for every case."""
    rng = np.random.default_rng(0)
    b = Builder()
    outputs: dict[str, Value] = {}
    for i, (height, width, channels, filters, padding, pool) in enumerate(CASES):
        x = b.input(f"x{i}", TensorType("float32", ("N", height, width, channels)))
        kernel = b.constant((rng.normal(size=(3, 3, channels, filters)) / 12).astype(np.float32))
        y = b(ops.Conv((1, 1), padding), x, kernel, b.constant(rng.normal(size=filters).astype(np.float32)))
        y = b(ops.Add(), y, b.input(f"skip{i}", y.type))
        y = b(ops.Silu() if i % 2 else ops.Relu(), y)
        if pool:
            y = b(ops.MaxPool((2, 2), (2, 2)) if pool == "max" else ops.AvgPool((2, 2), (2, 2)), y)
        outputs[f"y{i}"] = y
    return fuse(b.build(outputs))


@pytest.fixture(scope="module", params=["x86-64-v2", "x86-64-v3", "host"])
def model(request: pytest.FixtureRequest) -> Model:
    machine = host() if request.param == "host" else MACHINES[request.param]
    if host().triple != machine.triple:
        pytest.skip("the host is another architecture")
    return Model(graph_of_all_cases(), machine)


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 1), (3, 2)])
def test_convolutions_match_the_reference(model: Model, batch: int, threads: int, rng: np.random.Generator):
    assert {call.family for call in model.compiled.calls} == {"winograd"}
    inputs = inputs_of(model, batch, rng)
    expected = evaluate(model.graph, inputs, precision="float64")
    results = model.run(inputs, threads)
    for name, y in results.items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=1e-5, err_msg=f"{CASES[int(name[1:])]}")
    if threads > 1:
        for name, y in model.run(inputs, 1).items():
            np.testing.assert_array_equal(y, results[name])


@pytest.fixture(scope="module")
def fast_model() -> Model:
    return Model(graph_of_all_cases(), host(), fast_math=True)


def test_larger_tiles_lose_a_digit_at_most(fast_model: Model, rng: np.random.Generator):
    inputs = inputs_of(fast_model, 2, rng)
    expected = evaluate(fast_model.graph, inputs, precision="float64")
    for name, y in fast_model.run(inputs, 2).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-4, atol=1e-4, err_msg=f"{CASES[int(name[1:])]}")


def test_fast_math_is_an_option_of_programs_for_this_machine(rng: np.random.Generator):
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 32, 32, 32)))
    y = b(ops.Conv((1, 1), "same"), x, b.constant(rng.normal(size=(3, 3, 32, 32)).astype(np.float32) / 17))
    graph = b.build({"y": y})
    feeds = {"x": rng.normal(size=(1, 32, 32, 32)).astype(np.float32)}
    exact = evaluate(graph, feeds, precision="float64")["y"]
    plain, fast = (backend("tvm", fast_math=choice).session(graph).run(feeds)["y"] for choice in (False, True))
    assert np.abs(plain - exact).max() < np.abs(fast - exact).max() < 1e-4


def test_infinity_and_nan_reach_only_the_results_that_see_them(model: Model, rng: np.random.Generator):
    inputs = inputs_of(model, 2, rng)
    for i, (name, x) in enumerate(sorted(inputs.items())):
        if name.startswith("x"):
            x[1, i % x.shape[1], (2 * i + 1) % x.shape[2], -1] = [np.inf, -np.inf, np.nan][i % 3]
            x[0, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        expected = evaluate(model.graph, inputs, precision="float64")
    for name, y in model.run(inputs).items():
        assert 0 < np.isfinite(y).mean() < 1
        np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=1e-5, err_msg=f"{CASES[int(name[1:])]}")


def test_weights_that_are_not_finite_are_summed_directly():
    kernel = np.ones((3, 3, 64, 64), np.float32)
    kernel[1, 1, 0, 0] = np.inf
    b = Builder()
    x = b.input("x", TensorType("float32", (1, 16, 16, 64)))
    model = Model(b.build({"y": b(ops.Conv((1, 1), "same"), x, b.constant(kernel))}))
    assert [call.family for call in model.compiled.calls] == ["conv"]


def inputs_of(model: Model, batch: int, rng: np.random.Generator) -> dict[str, Array]:
    types = {name: t.bind({"N": batch}) for name, t in model.graph.input_types.items()}
    return {name: rng.normal(size=t.static_shape()).astype(np.float32) for name, t in types.items()}


def windows(extent: int | str, channels: int, **changes: object) -> Windows:
    fields = {"size": (3, 3), "strides": (1, 1), "dilation": (1, 1), "padding": ((1, 1), (1, 1))}
    spatial = (extent, extent)
    return Windows("N", spatial, spatial, channels, **{**fields, **changes})  # type: ignore[arg-type]


def test_it_is_chosen_where_it_saves_time():
    machine = MACHINES["x86-64-v4"]
    assert step_for(machine, windows(56, 64), 1, 64, "float32") == 2
    assert step_for(machine, windows(14, 256), 1, 256, "float32") == 2
    assert step_for(machine, windows(56, 3), 1, 64, "float32") is None  # the transforms cost more than they save
    assert step_for(machine, windows(1, 512), 1, 512, "float32") is None  # of a tile one result is used
    assert step_for(machine, windows("H", 64), 1, 64, "float32") is None
    assert step_for(machine, windows(56, 64, strides=(2, 2)), 1, 64, "float32") is None
    assert step_for(machine, windows(56, 64), 2, 64, "float32") is None
    assert step_for(machine, windows(56, 64), 1, 64, "float16") is None


def test_tiles_of_sixteen_results_are_chosen_for_large_images_alone():
    machine = MACHINES["x86-64-v4"]
    assert step_for(machine, windows(56, 64), 1, 64, "float32", 4) == 4
    assert step_for(machine, windows(14, 256), 1, 256, "float32", 4) == 2  # their weights would cost more
    assert step_for(machine, windows(9, 64), 1, 64, "float32", 4) == 2


def test_an_image_is_cut_in_two_blocks_where_its_weights_stay_in_the_cache():
    assert rows_of((4, 4), 64 * 64) == 4
    assert rows_of((7, 7), 64 * 64) == 4
    assert rows_of((7, 7), 256 * 256) == 7
    assert rows_of((28, 28), 64 * 64) == rows_of((28, 28), 256 * 256) == 2
