"""Normalizations and merging layers against Keras."""

from typing import Any

import numpy as np
import pytest

from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(13)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize(("center", "scale"), [(True, True), (False, True), (True, False), (False, False)])
def test_batch_normalization_agrees(axis: int, center: bool, scale: bool) -> None:
    check(lambda L, x: L.BatchNormalization(axis, center=center, scale=scale)(x), floats(2, 3, 4, 5))


def test_batch_normalization_agrees_on_vectors_and_with_renorm() -> None:
    check(lambda L, x: L.BatchNormalization(epsilon=1e-5)(x), floats(2, 3))
    check(lambda L, x: L.BatchNormalization(renorm=True)(x), floats(2, 3))


@pytest.mark.parametrize("axis", [-1, 1, [1, 2], [-1, -2], (2, 3), [-1, 1], [1, 3]])
def test_layer_normalization_agrees(axis: Any) -> None:
    x = floats(2, 3, 4, 5)
    check(lambda L, x: L.LayerNormalization(axis)(x), x, rtol=1e-4, atol=1e-5, configs=False)
    check(lambda L, x: L.LayerNormalization(axis, 1e-5, False, True)(x), x, rtol=1e-4, atol=1e-5, configs=False)
    check(lambda L, x: L.LayerNormalization(axis, scale=False)(x), x, rtol=1e-4, atol=1e-5, configs=False)
    check(lambda L, x: L.LayerNormalization(axis, rms_scaling=True)(x), x, rtol=1e-4, atol=1e-5, configs=False)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4, -1])
def test_group_normalization_agrees(axis: int, groups: int) -> None:
    x = floats(2, 4, 4, 4)
    check(lambda L, x: L.GroupNormalization(groups, axis)(x), x, rtol=1e-4, atol=1e-5, configs=False)
    check(
        lambda L, x: L.GroupNormalization(groups, axis, center=False, scale=False)(x),
        x,
        rtol=1e-4,
        atol=1e-5,
        configs=False,
    )


def test_other_normalizations_agree() -> None:
    x = floats(2, 3, 4)
    check(lambda L, x: L.RMSNormalization()(x), x, configs=False)
    check(lambda L, x: L.RMSNormalization([1, 2], 1e-3)(x), x, configs=False)
    check(lambda L, x: L.UnitNormalization()(x), x)
    check(lambda L, x: L.UnitNormalization([1, 2])(x), x)
    check(lambda L, x: L.UnitNormalization(1)(x), np.zeros_like(x))
    check(lambda L, x: L.SpectralNormalization(L.Dense(3))(x), x, configs=False)
    check(lambda L, x: L.SpectralNormalization(L.Conv1D(3, 2), power_iterations=2)(x), x, configs=False)


ELEMENTWISE = ["Add", "Multiply", "Average", "Maximum", "Minimum"]


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Subtract"])
def test_merging_agrees_and_broadcasts(name: str) -> None:
    check(lambda L, x, y: getattr(L, name)()([x, y]), floats(2, 3, 4), floats(2, 3, 4))
    check(lambda L, x, y: getattr(L, name)()([x, y]), floats(2, 3, 4), floats(2, 1, 4))
    check(lambda L, x, y: getattr(L, name)()([x, y]), floats(2, 3, 4), floats(2, 4))
    if name != "Subtract":
        check(lambda L, x, y, z: getattr(L, name)()([x, y, z]), floats(2, 3), floats(2, 3), floats(2, 3))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_merging_treats_masks_as_keras_does(name: str) -> None:
    x, y = floats(3, 5, 2), floats(3, 5, 2)
    x[RNG.random((3, 5)) > 0.5] = 0
    y[RNG.random((3, 5)) > 0.5] = 0

    def both(L: Any, x: Any, y: Any) -> Any:
        merged = getattr(L, name)()([L.Masking()(x), L.Masking()(y)])
        return [merged, L.GlobalAveragePooling1D()(merged)]

    check(both, x, y)
    check(lambda L, x, y: getattr(L, name)()([L.Masking()(x), y]), x, y)
    check(lambda L, x, y: getattr(L, name)()([x, L.Masking()(y)]), x, y)


@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
def test_concatenate_agrees_and_joins_masks(axis: int) -> None:
    x, y = floats(3, 4, 4), floats(3, 4, 4)
    x[RNG.random((3, 4)) > 0.5] = 0
    check(lambda L, x, y: L.Concatenate(axis)([x, y]), x, y)

    def masked(L: Any, x: Any, y: Any) -> Any:
        merged = L.Concatenate(axis)([L.Masking()(x), y])
        return [merged, L.GlobalAveragePooling1D()(merged)]

    check(masked, x, y)


def test_concatenate_joins_two_masks() -> None:
    x, y = floats(3, 4, 4), floats(3, 4, 4)
    x[0, 2:], y[0, 3:], x[1], y[1] = 0, 0, 0, 0

    def masked(L: Any, x: Any, y: Any) -> Any:
        return L.LSTM(3, return_sequences=True)(L.Concatenate()([L.Masking()(x), L.Masking()(y)]))

    check(masked, x, y)


@pytest.mark.parametrize(
    ("axes", "x", "y"),
    [
        (1, (2, 3), (2, 3)),
        (-1, (2, 3), (2, 3)),
        ((1, 2), (2, 3), (2, 4, 3)),
        ((2, 1), (2, 4, 3), (2, 3, 5)),
        (1, (2, 4, 3), (2, 4, 5)),
        (2, (2, 4, 3), (2, 5, 3)),
        ((2, 1), (2, 4, 3), (2, 3)),
        ((3, 1), (2, 4, 5, 3), (2, 3, 6)),
        ((1, 2), (2, 3, 4), (2, 5, 3, 6)),
        ((2, 3), (2, 3, 4, 5), (2, 5, 3, 4)),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_dot_agrees(axes: Any, x: tuple[int, ...], y: tuple[int, ...], normalize: bool) -> None:
    check(lambda L, x, y: L.Dot(axes, normalize)([x, y]), floats(*x), floats(*y))
