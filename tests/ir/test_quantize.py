"""Quantisation: what 8 bits make of numbers, which ranges calibration chooses, and what the passes write."""

import numpy as np
import pytest

from kcompile.errors import InputError
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.calibration import METHODS, Observed, Range, choose_range
from kcompile.ir.passes.calibration_data import read_calibration
from kcompile.ir.passes.narrow import native_products
from kcompile.ir.passes.precision import Settings, to_bf16, to_int8
from kcompile.ir.passes.quantize import Ranges, narrowed_kernel, overflows, quantize, sites
from kcompile.ir.types import Array, TensorType


def network(seed: int = 0, batch: int | str = "N", outlier: float = 1.0) -> Graph:
    """Two convolutions with a residual sum, pooling, and a dense layer; one filter of the second may be large."""
    rng = np.random.default_rng(seed)
    b = Builder("network")

    def weights(name: str, *shape: int) -> Value:
        scale = np.sqrt(np.prod(shape[:-1]))
        return b.constant((rng.normal(size=shape) / scale).astype(np.float32), name)

    x = b.input("image", TensorType("float32", (batch, 8, 8, 3)))
    with b.source("first"):
        y = b(ops.Relu(), b(ops.Conv((1, 1), "same"), x, weights("first/kernel", 3, 3, 3, 8), weights("first/bias", 8)))
    with b.source("second"):
        kernel = weights("second/kernel", 3, 3, 8, 8).constant
        assert kernel is not None
        kernel = kernel * np.where(np.arange(8) == 3, outlier, 1).astype(np.float32)
        z = b(ops.Conv((1, 1), "same"), y, b.constant(kernel, "second/kernel"))
        y = b(ops.Relu(), b(ops.Add(), z, y))
    y = b(ops.Reshape((batch, 4 * 4 * 8)), b(ops.MaxPool((2, 2), (2, 2)), y))
    with b.source("last"):
        y = b(ops.Dense(), y, weights("last/kernel", 128, 5), weights("last/bias", 5))
    return b.build({"scores": b(ops.Softmax(), y)})


def images(rows: int = 12, seed: int = 1) -> dict[str, Array]:
    return {"image": np.random.default_rng(seed).normal(size=(rows, 8, 8, 3)).astype(np.float32)}


def op_names(graph: Graph) -> list[str]:
    return [node.op.op_name for node in graph.nodes]


# ---- ranges


@pytest.mark.parametrize("method", METHODS)
def test_ranges_hold_zero_and_most_numbers_of_a_bell_curve(method: str) -> None:
    record = Observed()
    for part in np.split(np.random.default_rng(0).normal(3, 1, 40_000).astype(np.float32), 40):
        record.add(part.reshape(-1, 10))
    chosen = choose_range(record, method)  # type: ignore[arg-type]
    assert chosen.low == pytest.approx(0, abs=1.5)
    assert 5 < chosen.high < 8
    assert chosen.low <= 0


def test_one_outlier_moves_the_range_of_minmax_only() -> None:
    record = Observed()
    numbers = np.abs(np.random.default_rng(0).normal(size=100_000)).astype(np.float32)
    numbers[7] = 200
    record.add(numbers.reshape(-1, 10))
    found = {method: choose_range(record, method).high for method in ("entropy", "mse", "percentile", "minmax")}
    assert found["minmax"] == 200
    assert found["percentile"] < 6
    assert found["mse"] < 190  # cutting it off costs 200² / 100,000, the steps of the whole range (200 / 255)² / 12
    assert found["entropy"] < 100


def test_histogram_of_batches_is_the_histogram_of_all() -> None:
    numbers = np.random.default_rng(2).gumbel(size=(64, 50)).astype(np.float32) * np.linspace(0.01, 9, 64)[:, None]
    together, apart = Observed(), Observed()
    together.add(numbers.astype(np.float32))
    for row in numbers.astype(np.float32):
        apart.add(row[None])
    assert together.whole() == apart.whole()
    assert together.counts.sum() == apart.counts.sum() == numbers.size
    np.testing.assert_allclose(together.mean, apart.mean)
    counts, _ = np.histogram(numbers.astype(np.float32), apart.edges)
    assert np.abs(np.cumsum(counts) - np.cumsum(apart.counts)).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 4), (-3, 0), (-1, 7), (0, 0), (-1e-30, 1e-30), (-1e30, 2e30)])
def test_zero_is_exactly_one_of_the_integers(low: float, high: float) -> None:
    span = Range(low, high)
    assert span.scale > 0
    q = ops.QuantizeLinear().kernel((np.zeros(1, np.float32), np.asarray(span.scale), np.asarray(span.zero_point)))[0]
    (zero,) = ops.DequantizeLinear().kernel((q, np.asarray(span.scale), np.asarray(span.zero_point)))
    assert zero[0] == 0


# ---- weights


def test_weights_are_off_by_half_a_step_of_their_filter_at_most() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32) * np.geomspace(1e-3, 1e3, 6)
    narrow, scale = narrowed_kernel(kernel.astype(np.float32), None, None)
    assert np.abs(narrow.astype(int)).max() == 127
    assert (np.abs(narrow * scale.astype(np.float64) - kernel) <= scale * 0.501).all()


def test_a_filter_of_zeros_keeps_its_bias() -> None:
    kernel, bias = np.zeros((4, 2), np.float32), np.array([0.3, -7.0], np.float32)
    narrow, scale = narrowed_kernel(kernel, bias, 0.05)
    assert not narrow.any()
    steps = np.rint(bias / (scale.astype(np.float64) * 0.05))
    assert (np.abs(steps) <= 2**30 * 1.0001).all()
    np.testing.assert_allclose(steps * scale * 0.05, bias, rtol=1e-6)


def test_sums_that_could_leave_int32_are_seen() -> None:
    assert not overflows(np.ones((30_000, 1), np.float32))
    assert overflows(np.ones((40_000, 1), np.float32))


# ---- graphs


def test_quantised_graph_is_near_the_one_it_was_made_from() -> None:
    graph, data = network(), images()
    narrowed = to_int8(graph, read_calibration(graph, data), Settings())
    exact, found = (evaluate(g, images(20, 5))["scores"] for g in (graph, narrowed.graph))
    assert np.abs(exact - found).max() < 0.02
    assert (exact != found).any()
    assert narrowed.report.measure == "agreement"
    assert [(layer.layer, layer.precision) for layer in narrowed.report.layers] == [
        ("first", "int8"),
        ("second", "int8"),
        ("last", "int8"),
    ]
    assert all(0 < (layer.error or 0) < 0.03 for layer in narrowed.report.layers)


def test_native_form_computes_on_integers_what_the_quantised_graph_says() -> None:
    graph = network()
    narrowed = to_int8(graph, read_calibration(graph, images()), Settings()).graph
    native = native_products(narrowed)
    names = op_names(native)
    assert names.count("conv_narrow") == 2
    assert names.count("dense_narrow") == 1
    assert not {"conv", "dense"}.intersection(names)
    expected, found = (evaluate(g, images(20, 5), precision="float64")["scores"] for g in (narrowed, native))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_pooling_and_flattening_move_integers() -> None:
    graph = network()
    native = native_products(to_int8(graph, read_calibration(graph, images()), Settings()).graph)
    types = {node.op.op_name: node.inputs[0].type.dtype for node in native.nodes if node.inputs}
    assert types["max_pool"] == "uint8"
    assert types["reshape"] == "uint8"


@pytest.mark.parametrize("padding", ["same", ((2, 0), (1, 2)), "valid"])
@pytest.mark.parametrize("channels", [3, 4])
def test_padding_counts_as_zero_whatever_the_zero_point(padding: object, channels: int) -> None:
    rng = np.random.default_rng(0)
    b = Builder("one")
    x = b.input("x", TensorType("float32", ("N", 6, 7, channels)))
    kernel = b.constant(rng.normal(size=(3, 3, channels, 4)).astype(np.float32), "k")
    graph = b.build({"y": b(ops.Conv((1, 1), padding), x, kernel)})  # type: ignore[arg-type]
    found = sites(graph, "tensor", calibrated=True)
    quantised = quantize(graph, found, Ranges({x: Range(-3, 5)}))
    native = native_products(quantised)
    assert "conv_narrow" in op_names(native)
    data = {"x": rng.uniform(-3, 5, (2, 6, 7, channels)).astype(np.float32)}
    expected, received = (evaluate(g, data, precision="float64")["y"] for g in (quantised, native))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_bias_is_corrected_by_what_rounding_takes_from_the_mean() -> None:
    graph = network(outlier=1.0)
    data = {"image": images(32)["image"] * 0.1 + 5}  # a mean that is large against the deviation
    errors = []
    for correct in (False, True):
        narrowed = to_int8(graph, read_calibration(graph, data), Settings(correct_bias=correct))
        value, made = (next(n for n in g.nodes if n.op.op_name == "conv").outputs[0] for g in (graph, narrowed.graph))
        exact = evaluate(graph, data, keep=[value])["%0"]
        found = evaluate(narrowed.graph, data, keep=[made])["%0"]
        errors.append(np.abs((found - exact).mean(axis=(0, 1, 2))).max())
    assert errors[1] < errors[0] / 2


def test_layers_that_lose_too_much_stay_in_float32() -> None:
    graph = network()
    rng = np.random.default_rng(0)
    data = images(64)
    data["image"][0, 0, 0, 0] = 300.0  # is cut off, and decides the first image's class
    unlimited = to_int8(graph, read_calibration(graph, data), Settings(method="percentile")).report
    narrowed = to_int8(graph, read_calibration(graph, data), Settings(method="percentile", max_drop=0.03))
    kept = [layer for layer in narrowed.report.layers if layer.precision == "float32"]
    assert [layer.layer for layer in kept] == ["first"]
    assert "0.03" in kept[0].reason
    assert narrowed.report.drop is not None
    assert unlimited.drop is not None
    assert narrowed.report.drop <= 0.03 < unlimited.drop
    none = to_int8(graph, read_calibration(graph, data), Settings(method="percentile", max_drop=0.0))
    assert none.report.drop == 0
    data["labels"] = rng.integers(0, 5, 64)
    labelled = to_int8(graph, read_calibration(graph, data), Settings())
    exact = evaluate(graph, {"image": data["image"]})["scores"].argmax(axis=1)
    assert labelled.report.measure == "accuracy"
    assert labelled.report.before == pytest.approx((exact == data["labels"]).mean())


def test_a_fixed_batch_is_calibrated_batch_by_batch() -> None:
    graph = network(batch=4)
    assert to_int8(graph, read_calibration(graph, images(12)), Settings()).report.samples == 12
    with pytest.raises(InputError, match="multiples of 4"):
        read_calibration(graph, images(10))


def test_without_data_dense_layers_have_a_scale_per_row() -> None:
    graph = network()
    narrowed = to_int8(graph, None, Settings())
    assert [(layer.layer, layer.activations) for layer in narrowed.report.layers] == [("last", "token")]
    assert narrowed.report.notes == ("2 conv in float32",)
    data = images(6)
    data["image"] *= np.geomspace(1e-4, 1e4, 6, dtype=np.float32)[:, None, None, None]
    exact, found = (evaluate(g, data)["scores"] for g in (graph, narrowed.graph))
    assert np.abs(exact - found).max() < 0.05
    native = native_products(narrowed.graph)
    assert "dense_narrow" in op_names(native)
    np.testing.assert_allclose(evaluate(native, data)["scores"], found, rtol=1e-4, atol=1e-6)


def test_bfloat16_rounds_what_is_multiplied_and_nothing_else() -> None:
    graph = network()
    narrowed = to_bf16(graph, read_calibration(graph, images()))
    exact, found = (evaluate(g, images(9))["scores"] for g in (graph, narrowed.graph))
    assert 0 < np.abs(exact - found).max() < 0.02
    assert {"conv_narrow", "dense_narrow"} <= set(op_names(native_products(narrowed.graph)))
    native = evaluate(native_products(narrowed.graph), images(9))["scores"]
    np.testing.assert_allclose(native, found, rtol=2e-3, atol=1e-4)


# ---- data


def test_everything_wrong_with_the_data_is_said_at_once() -> None:
    b = Builder("two")
    x, y = b.input("x", TensorType("float32", ("N", 3))), b.input("y", TensorType("int32", ("N", 4)))
    dense = b(ops.Dense(), x, b.constant(np.ones((3, 4), np.float32)))
    graph = b.build({"z": b(ops.Add(), dense, b(ops.Cast("float32"), y))})
    data = {"x": np.array([[1, np.nan, 2]], np.float32), "y": np.full((1, 4), 0.5, np.float32)}
    with pytest.raises(InputError) as caught:
        read_calibration(graph, data, labels="classes")
    for part in ("input `x` must hold finite numbers", "input `y` must have dtype int32", "`classes`"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"picture": np.zeros((2, 8, 8, 3), np.float32)}, "must hold arrays named image"),
        ({"image": np.zeros((0, 8, 8, 3), np.float32)}, "at least one row"),
        ({"image": np.zeros((2, 8, 9, 3), np.float32)}, "must have shape (N, 8, 8, 3)"),
        ({"image": np.array(["a", "b"])}, "must have dtype float32"),
        ({"image": np.full((2, 8, 8, 3), 1e300)}, "finite numbers in float32"),
        ({**images(3), "labels": np.array([0, 1])}, "one class per row"),
        ({**images(3), "labels": np.array([0, 1, 9])}, "one class per row"),
    ],
)
def test_data_that_do_not_fit_are_refused(data: dict[str, Array], part: str) -> None:
    with pytest.raises(InputError) as caught:
        read_calibration(network(), data)
    assert part in str(caught.value)


def test_pictures_too_small_for_a_layer_are_refused() -> None:
    b = Builder("open")
    x = b.input("x", TensorType("float32", ("N", "H", "W", 2)))
    pooled = b(ops.MaxPool((2, 2), (2, 2)), x)
    graph = b.build({"y": b(ops.Conv((1, 1)), pooled, b.constant(np.ones((1, 1, 2, 3), np.float32)))})
    data = read_calibration(graph, {"x": np.ones((3, 1, 1, 2), np.float32)})
    with pytest.raises(InputError, match=r"large enough for every layer\. Received: shapes of which nothing is left"):
        to_int8(graph, data, Settings())


def test_labels_may_be_numbers_or_rows() -> None:
    graph = network()
    numbers = np.array([4, 0, 2])
    for labels in (numbers, numbers[:, None].astype(np.uint8), numbers * 1.0, np.eye(5, dtype=np.float32)[numbers]):
        found = read_calibration(graph, {**images(3), "labels": labels}).labels
        assert found is not None
        assert found.tolist() == [4, 0, 2]


def test_integers_are_taken_for_a_float_input() -> None:
    data = {"in0": np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)}
    assert read_calibration(network(), data).inputs["image"].dtype == np.float32


def test_whole_numbers_of_any_dtype_are_taken_for_an_integer_input() -> None:
    b = Builder("words")
    ids = b.input("ids", TensorType("int32", ("N", 4)))
    table = b.constant(np.eye(9, dtype=np.float32))
    found = b(ops.Dense(), b(ops.Gather(0), table, ids), b.constant(np.ones((9, 2), np.float32)))
    graph, numbers = b.build({"y": found}), np.array([[1, 2, 8, 0]])
    for dtype in (np.float32, np.float64, np.int64, np.uint8):
        taken = read_calibration(graph, {"ids": numbers.astype(dtype)}).inputs["ids"]
        assert taken.dtype == np.int32
        assert taken.tolist() == numbers.tolist()
    for wrong in (numbers + 0.5, numbers * np.nan, numbers * 1e12):
        with pytest.raises(InputError, match="input `ids` must have dtype int32"):
            read_calibration(graph, {"ids": wrong})


def test_shares_next_to_nothing_count_by_those_that_are_not() -> None:
    b = Builder("rare")
    x = b.input("x", TensorType("float32", ("N", 4)))
    kernel = b.constant(np.random.default_rng(1).normal(size=(4, 1)).astype(np.float32))
    graph = b.build({"y": b(ops.Sigmoid(), b(ops.Dense(), x, kernel, b.constant(np.array([-15], np.float32))))})
    data = np.random.default_rng(2).normal(size=(20, 4)).astype(np.float32)
    data[3] = kernel.constant[:, 0] * 20 if kernel.constant is not None else 0
    drop = to_int8(graph, read_calibration(graph, {"x": data}), Settings()).report.drop
    assert drop is not None
    assert drop < 1e-3


def test_a_model_without_such_layers_is_refused() -> None:
    b = Builder("sums")
    x = b.input("x", TensorType("int32", ("N", 3)))
    with pytest.raises(InputError, match="no convolution and no dense layer in float32"):
        to_int8(b.build({"y": b(ops.Add(), x, x)}), None, Settings())


def test_a_layer_of_a_constant_stays_as_it_is() -> None:
    b = Builder("constant")
    x = b.input("x", TensorType("float32", ("N", 3)))
    kernel = b.constant(np.ones((3, 3), np.float32))
    known = b(ops.Dense(), b.constant(np.ones((1, 3), np.float32)), kernel)
    graph = b.build({"y": b(ops.Add(), b(ops.Dense(), x, kernel), known)})
    data = read_calibration(graph, {"x": np.eye(3, dtype=np.float32)})
    assert len(to_int8(graph, data, Settings()).report.layers) == 1


def test_convolutions_alone_need_data() -> None:
    b = Builder("conv")
    x = b.input("x", TensorType("float32", ("N", 4, 4, 1)))
    graph = b.build({"y": b(ops.Conv((1, 1)), x, b.constant(np.ones((2, 2, 1, 3), np.float32)))})
    with pytest.raises(InputError, match="need calibration data"):
        to_int8(graph, None, Settings())


def perceptron() -> Graph:
    b = Builder("perceptron")
    x = b.input("x", TensorType("float32", ("N", 6)))
    rng = np.random.default_rng(5)
    first, second = (b.constant(rng.normal(size=shape).astype(np.float32)) for shape in ((6, 8), (8, 3)))
    return b.build({"y": b(ops.Dense(), b(ops.Relu(), b(ops.Dense(), x, first)), second)})


def test_layers_whose_weights_are_not_finite_stay_in_float32() -> None:
    b = Builder("infinite")
    x = b.input("x", TensorType("float32", ("N", 3)))
    weights = np.array([[1, 2], [np.inf, 1], [3, 1]], np.float32)
    spoiled = b(ops.Dense(), x, b.constant(weights))
    graph = b.build({"y": spoiled, "z": b(ops.Dense(), x, b.constant(np.ones((3, 2), np.float32)))})
    report = to_int8(graph, None, Settings()).report
    assert [(layer.precision, layer.reason) for layer in report.layers] == [
        ("float32", "its weights are not all finite numbers"),
        ("int8", ""),
    ]


def test_a_limit_holds_for_all_rows_together_too() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    x[:3] *= 6  # "entropy" cuts these rows off
    graph = perceptron()
    narrowed = to_int8(graph, read_calibration(graph, {"x": x}), Settings(method="entropy", max_drop=0.1))
    exact, found = (evaluate(g, {"x": x})["y"] for g in (graph, narrowed.graph))
    assert np.linalg.norm(found - exact) <= 0.1 * np.linalg.norm(exact)


def test_one_row_of_huge_numbers_does_not_hide_what_the_others_lose() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    x[7] *= 1e6
    graph = perceptron()
    data = read_calibration(graph, {"x": x})
    spoiled = to_int8(graph, data, Settings())
    assert spoiled.report.drop is not None
    assert spoiled.report.drop > 0.5
    limited = to_int8(graph, data, Settings(max_drop=0.05))
    usual = {"x": rng.normal(size=(50, 6)).astype(np.float32)}
    exact, found = (evaluate(g, usual)["y"] for g in (graph, limited.graph))
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


def test_outputs_without_an_axis_of_rows_are_measured_too() -> None:
    b = Builder("no_rows")
    x = b.input("x", TensorType("float32", ("N", 6)))
    y = b(ops.Dense(), x, b.constant(np.random.default_rng(7).normal(size=(6, 3)).astype(np.float32)))
    graph = b.build({"turned": b(ops.Transpose((1, 0)), y), "mean": b(ops.ReduceMean((0, 1)), y)})
    data = read_calibration(graph, {"x": np.random.default_rng(8).normal(size=(40, 6)).astype(np.float32)})
    report = to_int8(graph, data, Settings()).report
    assert report.drop is not None
    assert 0 < report.drop < 0.05


def test_numbers_too_small_or_large_for_products_of_scales_are_quantised() -> None:
    graph = perceptron()
    for size in (1e-42, 1e-36, 1e37):
        x = (np.random.default_rng(9).normal(size=(20, 6)) * size).astype(np.float32)
        narrowed = to_int8(graph, read_calibration(graph, {"x": x}), Settings())
        found = evaluate(narrowed.graph, {"x": x})["y"]
        assert np.isfinite(found).all()
        native = evaluate(native_products(narrowed.graph), {"x": x})["y"]
        np.testing.assert_allclose(native, found, rtol=1e-4, atol=max(1e-4 * np.abs(found).max(), 1e-38))
