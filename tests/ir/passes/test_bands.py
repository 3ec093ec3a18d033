"""Bands of rows: the same results as all rows at once, whatever the windows, strides and heights."""

from collections.abc import Callable

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.passes.bands import bands, in_bands, regions
from kcompile.ir.types import TensorType

RNG = np.random.default_rng(5)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def conv(b: Builder, x: Value, filters: int, size: int = 3, **attributes: object) -> Value:
    channels = int(x.type.shape[-1]) // int(attributes.get("groups", 1))  # type: ignore[call-overload]
    rank = x.type.rank - 2
    op = ops.Conv(**{"strides": (1,) * rank, "padding": "same", **attributes})  # type: ignore[arg-type]
    return b(op, x, b.constant(weights(*(size,) * rank, channels, filters)), b.constant(weights(filters)))


def image(b: Builder, *spatial: int, channels: int = 3) -> Value:
    return b.input("x", TensorType("float64", (1, *spatial, channels)))


def strided(b: Builder) -> Value:
    x = conv(b, image(b, 21, 10), 4, strides=(2, 2))
    return b(ops.MaxPool((3, 3), (2, 2), "same"), b(ops.Relu(), conv(b, x, 5, strides=(3, 1), padding="valid")))


def dilated(b: Builder) -> Value:
    x = conv(b, image(b, 24, 9), 4, dilation=(3, 1))
    return conv(b, x, 2, 5, strides=(2, 1), padding=((4, 1), (0, 2)))


def means_over_padding(b: Builder) -> Value:
    return b(ops.AvgPool((4, 3), (2, 1), "same"), conv(b, image(b, 13, 6), 3))


def residual(b: Builder) -> Value:
    x = conv(b, image(b, 17, 7), 6)
    y = conv(b, b(ops.Relu(), conv(b, x, 12, 1)), 12, groups=12)
    z = b(ops.Add(), conv(b, y, 6, 1), x)
    return conv(b, b(ops.Concat(3), z, x), 4, strides=(2, 2))


def padded(b: Builder) -> Value:
    x = b(ops.Pad((0, 2, 1, 0), (0, 2, 0, 0), "constant", 1.5), image(b, 12, 6))
    x = b(ops.Mul(), conv(b, x, 4, padding="valid"), b.constant(weights(14, 1, 1)))
    return b(ops.Softmax(-1), b(ops.Dense(), x, b.constant(weights(4, 5))))


def sequence(b: Builder) -> Value:
    x = conv(b, image(b, 40), 4, 7)
    return b(ops.LayerNorm(1e-3), conv(b, x, 6, 5, strides=(2,)), b.constant(weights(6)), b.constant(weights(6)))


def graph_of(make: Callable[[Builder], Value]) -> Graph:
    b = Builder("bands")
    return b.build([make(b)])


@pytest.mark.parametrize("make", [strided, dilated, means_over_padding, residual, padded, sequence])
def test_bands_of_every_height_give_the_same_rows(make: Callable[[Builder], Value]):
    graph = graph_of(make)
    given = {"x": weights(*graph.inputs[0].type.static_shape())}
    (expected,) = evaluate(graph, given).values()
    region = regions(graph)[-1]
    assert region.result is graph.outputs[0]
    for height in range(1, region.height + 1):
        found = bands(region, height)
        assert found, height
        (result,) = evaluate(in_bands(graph, region, found), given).values()
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_a_band_computes_no_more_rows_than_its_windows_see():
    graph = graph_of(lambda b: conv(b, conv(b, image(b, 32, 8), 4), 4, 5))
    found = bands(regions(graph)[-1], 8)
    assert found
    first, second, *_, last = ([rows for value, rows in part.rows.items() if value.producer] for part in found)
    assert sorted(first) == [(0, 8), (0, 10)]
    assert sorted(second) == [(6, 18), (8, 16)]
    assert sorted(last) == [(22, 32), (24, 32)]


def test_regions_end_where_all_rows_are_needed():
    b = Builder("scaled")
    x = conv(b, image(b, 8, 8), 4)
    mean = b(ops.ReduceMean((1, 2), keepdims=True), x)
    graph = b.build([conv(b, b(ops.Mul(), x, mean), 2)])
    assert [region.result.type.shape for region in regions(graph)] == [(1, 8, 8, 4)]


def test_what_two_read_is_no_end_of_a_region_for_one_of_them():
    b = Builder("branches")
    x = image(b, 8, 8)
    one, other = conv(b, x, 4), conv(b, x, 4)
    graph = b.build([b(ops.Add(), one, other)])
    assert [len(region.nodes) for region in regions(graph)] == [1, 1, 3]


def test_several_images_are_left_alone():
    b = Builder("images")
    x = b.input("x", TensorType("float64", (2, 8, 8, 3)))
    assert regions(b.build([conv(b, x, 4)])) == []


def test_there_is_no_band_of_padding_alone():
    graph = graph_of(lambda b: conv(b, b(ops.Pad((0, 4, 0, 0), (0, 0, 0, 0)), image(b, 8, 4)), 2, padding="valid"))
    region = regions(graph)[-1]
    assert bands(region, 2) is None
    assert bands(region, 3)
