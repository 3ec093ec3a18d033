"""Initializers: their distributions, their names, and their seeds."""

import math

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from tests.frontend.errors import error_of

SHAPE = (3, 5, 40, 60)
FAN_IN, FAN_OUT = 15 * 40, 15 * 60

SPREADS = {
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "he_uniform": 2 / FAN_IN,
    "he_normal": 2 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
    "random_normal": 0.05**2,
    "random_uniform": 0.1**2 / 12,
    "truncated_normal": (0.05 * 0.87962566) ** 2,
}


@pytest.mark.parametrize("name", sorted(SPREADS))
def test_random_initializers_have_the_variance_of_their_formula(name: str) -> None:
    initializers.set_seed(3)
    values = initializers.get(name)(SHAPE, "float32")
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 * math.sqrt(SPREADS[name] / values.size)
    assert values.var() == pytest.approx(SPREADS[name], rel=0.03)


def test_normal_presets_cut_off_at_two_deviations_and_uniform_ones_at_their_limit() -> None:
    values = initializers.get("he_normal")(SHAPE, "float32")
    assert np.abs(values).max() <= 2 * math.sqrt(2 / FAN_IN) / 0.87962566
    assert np.abs(initializers.get("glorot_uniform")(SHAPE, "float32")).max() <= math.sqrt(6 / (FAN_IN + FAN_OUT))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 3, 5)])
def test_orthogonal_matrices_are_orthonormal(shape: tuple[int, ...]) -> None:
    matrix = initializers.get({"class_name": "Orthogonal", "config": {"gain": 2.0}})(shape, "float64")
    flat = matrix.reshape(-1, shape[-1]) / 2
    product = flat.T @ flat if flat.shape[0] >= flat.shape[1] else flat @ flat.T
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-12)


def test_constants_are_constant() -> None:
    assert (initializers.get("ones")((2, 3), "float32") == 1).all()
    assert (initializers.get({"class_name": "Constant", "config": {"value": 0.5}})((2,), "float32") == 0.5).all()
    np.testing.assert_array_equal(initializers.get("identity")((2, 2), "float32"), np.eye(2))


def test_seeds_repeat() -> None:
    seeded = {"class_name": "GlorotUniform", "config": {"seed": 5}}
    np.testing.assert_array_equal(
        initializers.get(seeded)((3, 4), "float32"), initializers.get(seeded)((3, 4), "float32")
    )
    drawn = []
    for _ in range(2):
        initializers.set_seed(9)
        drawn.append([initializers.get("he_normal")((3, 4), "float32") for _ in range(2)])
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert (drawn[0][0] != drawn[0][1]).any()


def test_inside_skipped_any_initializer_gives_zeros() -> None:
    with initializers.skipped():
        assert not initializers.get("orthogonal")((3, 4), "float32").any()
        assert not initializers.get({"class_name": "Mine", "config": {}})((3, 4), "float32").any()
    assert initializers.get("orthogonal")((3, 4), "float32").any()


def test_unknown_initializers_are_refused_by_name() -> None:
    text = error_of(ModelError, lambda: initializers.get("he"))
    assert text.startswith("an initializer must be one of Constant, GlorotNormal, ")
    assert text.endswith(" Received: 'he'.")
    text = error_of(ModelError, lambda: initializers.get({"class_name": "Zeros", "config": {"gain": 2}}))
    assert text == "initializer Zeros does not take these arguments: {'gain': 2}."
    text = error_of(ModelError, lambda: initializers.get("identity")((2, 2, 2), "float32"))
    assert text == "initializer Identity fills matrices only. Received: shape=(2, 2, 2)."


def test_an_unknown_initializer_stays_in_a_config_as_it_is() -> None:
    spec = {"class_name": "Mine", "config": {}}
    assert initializers.serialize(spec) is spec
    assert initializers.serialize("zeros")["class_name"] == "Zeros"
