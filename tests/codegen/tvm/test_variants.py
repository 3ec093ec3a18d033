"""What kernels may do otherwise than the models of costs say computes the same."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen.tuning_search import Subject, kinds_of
from kcompile.codegen.tvm.kernels.depthwise import PLANES, Depthwise
from kcompile.codegen.tvm.kernels.tile import choose
from kcompile.codegen.tvm.targets import host
from kcompile.codegen.tvm.tir import Kernel
from kcompile.codegen.tvm.variants import Variant
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.graph import Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.pipeline import inference
from tests.codegen.tvm.model import Model

# The rounds in which kernels depart in one way; later ones join two.
_SINGLE = 6


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    """Winograd with pooling, convolutions by row with pooling, residual and groups, pointwise ones, dense layers."""
    kcompile.utils.set_random_seed(3)
    image = kcompile.Input((14, 13, 5), name="x")
    x = layers.Conv2D(20, (3, 2), padding="same", activation="relu")(image)
    x = layers.Conv2D(37, 3, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Add()([x, layers.Conv2D(37, (1, 3), padding="same", strides=1)(x)])
    x = layers.Conv2D(33, 1, activation="silu")(x)
    x = layers.AveragePooling2D(2)(layers.Conv2D(36, (3, 2), groups=3, padding="same")(x))
    x = layers.Flatten()(x)
    x = layers.Dense(130, activation="relu")(x)
    return kcompile.Model(image, layers.Dense(7)(x))


@pytest.fixture(scope="module")
def graph(model: kcompile.Model) -> Graph:
    return fuse(inference(model.trace()))


def rounds(graph: Graph) -> list[Mapping[int, Variant]]:
    """The variants of each round, in which every kind of kernel has its next alternative."""
    kinds = kinds_of(Subject(graph, host(), fast_math=False, rows=1))
    return [
        {n: kind.alternatives[i] for kind in kinds if i < len(kind.alternatives) for n in kind.numbers}
        for i in range(max(len(kind.alternatives) for kind in kinds))
    ]


@pytest.fixture(scope="module")
def tried(graph: Graph) -> list[Mapping[int, Variant]]:
    return rounds(graph)


def test_every_alternative_computes_the_same_within_its_buffers_and_the_same_bits_on_two_threads(
    model: kcompile.Model, graph: Graph, tried: list[Mapping[int, Variant]]
) -> None:
    x = np.random.default_rng(0).standard_normal((3, 14, 13, 5)).astype(np.float32)
    expected = model.predict(x)
    assert {field for variants in tried[:_SINGLE] for v in variants.values() for field in str(v).split(", ")} >= {
        *("tile 2", "tile 3", "loops exchanged", "other sums", "smaller units", "pooling apart")
    }
    for number, variants in enumerate(tried[:_SINGLE]):
        fixed = bind_graph(graph, {"N": 3}) if number % 2 else graph
        compiled = Model(fixed, variants=variants)
        (found,), (shared,) = (compiled.run({"x": x}, threads).values() for threads in (1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=str(variants))
        np.testing.assert_array_equal(found, shared, err_msg=str(variants))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_depthwise_tiles_of_every_shape_fit_images_of_any_extent(rank: int) -> None:
    kcompile.utils.set_random_seed(4)
    image = kcompile.Input((7, 9, 21), name="x")
    made = [
        layers.DepthwiseConv2D(3, padding="same", activation="relu")(image),
        layers.DepthwiseConv2D((5, 3), strides=2, padding="same")(image),
        layers.DepthwiseConv2D(3, dilation_rate=2)(image),
        layers.DepthwiseConv2D((3, 1))(layers.DepthwiseConv2D((7, 1), use_bias=False)(layers.ZeroPadding2D(1)(image))),
    ]
    model = kcompile.Model(image, made)
    graph = fuse(inference(model.trace()))
    variants = dict.fromkeys(range(99), Variant(tile=rank))
    subject = Subject(graph, host(), fast_math=False, rows=1)
    assert {plane for kernels in subject.kernels(variants).values() for plane in planes(kernels)} == {PLANES[rank]}
    x = np.random.default_rng(0).standard_normal((3, 7, 9, 21)).astype(np.float32)
    compiled = Model(graph, variants=variants)
    for threads in (1, 2):
        for found, expected in zip(compiled.run({"x": x}, threads).values(), model.predict(x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def planes(kernels: Sequence[Kernel]) -> list[tuple[int, int]]:
    return [kernel.plane for kernel in kernels if isinstance(kernel, Depthwise)]


def test_groups_keep_their_numbers_whatever_their_variants(graph: Graph, tried: list[Mapping[int, Variant]]) -> None:
    subject = Subject(graph, host(), fast_math=False, rows=1)
    base = subject.kernels()
    for variants in tried:
        other = subject.kernels(variants)
        assert list(other) == list(base)
        assert {number for number in base if other[number] != base[number]} == set(variants)


def test_a_pooling_apart_is_a_stage_of_its_own(graph: Graph) -> None:
    subject = Subject(graph, host(), fast_math=False, rows=1)
    base = subject.kernels()
    (number,) = (n for n, kernels in base.items() if [k.family for k in kernels] == ["winograd"])
    assert [k.family for k in subject.kernels({number: Variant(apart=True)})[number]] == ["winograd", "pool"]
    assert [k.family for k in subject.kernels({number: Variant(sums=True)})[number]] == ["conv_pool"]


def test_tiles_of_higher_rank_are_of_other_widths_and_the_last_stands_for_all_beyond() -> None:
    tiles = [choose(host(), 56, 256, rank=rank) for rank in range(12)]
    distinct = list(dict.fromkeys(tiles))
    assert len({columns for _, columns in distinct}) == len(distinct) > 1
    assert tiles[: len(distinct)] == distinct
    assert tiles[len(distinct) - 1] == tiles[-1]
