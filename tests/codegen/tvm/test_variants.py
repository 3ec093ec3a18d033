"""What kernels may do otherwise than the models of costs say computes the same."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen.tvm.kernels.tile import choose
from kcompile.codegen.tvm.lower import lower
from kcompile.codegen.tvm.targets import host
from kcompile.codegen.tvm.variants import ALTERNATIVES, ANALYTIC, Variant
from kcompile.ir.graph import Graph
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.pipeline import inference
from tests.codegen.tvm.model import Model


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    """Winograd with and without pooling, convolutions by row with pooling and groups, a pointwise one, dense layers."""
    kcompile.utils.set_random_seed(3)
    return kcompile.Sequential(
        [
            kcompile.Input((30, 29, 5), name="x"),
            layers.Conv2D(70, 3, padding="same", activation="relu"),
            layers.Conv2D(36, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(33, (5, 3), padding="same", strides=(2, 1)),
            layers.Conv2D(66, 3, groups=3, activation="silu"),
            layers.Conv2D(130, 1, activation="relu"),
            layers.Conv2D(20, (3, 2), activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(200, activation="relu"),
            layers.Dense(7),
        ]
    )


@pytest.fixture(scope="module")
def graph(model: kcompile.Model) -> Graph:
    return fuse(inference(model.trace()))


@pytest.fixture(scope="module")
def compiled(graph: Graph) -> Callable[[Variant], Model]:
    """The model with one variant for all stages."""
    return cache(lambda variant: Model(graph, variants=lambda number: variant))


@pytest.mark.parametrize("variant", [ANALYTIC, *ALTERNATIVES], ids=str)
def test_every_variant_computes_the_same(
    model: kcompile.Model, compiled: Callable[[Variant], Model], variant: Variant
) -> None:
    x = np.random.default_rng(0).standard_normal((3, 30, 29, 5)).astype(np.float32)
    expected = model.predict(x)
    for threads in (1, 2):
        (found,) = compiled(variant).run({"x": x}, threads).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ALTERNATIVES[:4], ids=str)
def test_each_departure_makes_other_code(compiled: Callable[[Variant], Model], variant: Variant) -> None:
    base, other = compiled(ANALYTIC).compiled, compiled(variant).compiled
    assert base.library != other.library
    assert [call.number for call in base.calls] == [call.number for call in other.calls]


def test_a_variant_is_that_of_its_stage_alone(graph: Graph, compiled: Callable[[Variant], Model]) -> None:
    base = compiled(ANALYTIC).compiled
    first = next(call for call in base.calls if call.family == "winograd")
    other = lower(graph, host(), "kc", variants=lambda n: Variant(direct=n == first.number))
    changed = [a.number for a, b in zip(base.calls, other.table, strict=True) if a.family != b.family]
    assert changed == [first.number]


def test_tiles_of_higher_rank_are_of_other_widths_and_the_last_stands_for_all_beyond() -> None:
    tiles = [choose(host(), 56, 256, rank=rank) for rank in range(12)]
    distinct = list(dict.fromkeys(tiles))
    assert len({columns for _, columns in distinct}) == len(distinct) > 1
    assert tiles[: len(distinct)] == distinct
    assert tiles[len(distinct) - 1] == tiles[-1]
