"""Muon: which weights it makes orthogonal steps for, and how."""

from pathlib import Path

import numpy as np
import pytest

import kcompile
from kcompile import layers


def fitted(optimizer: kcompile.optimizers.Optimizer, steps: int = 1) -> kcompile.Sequential:
    kcompile.utils.set_random_seed(0)
    head = kcompile.Sequential([layers.Dense(3, name="out")], name="head")
    model = kcompile.Sequential([kcompile.Input((6,)), layers.Dense(4, name="body"), head])
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8 * steps, 6)), rng.normal(size=(8 * steps, 3)), batch_size=8, verbose=0)
    return model


def test_steps_of_matrices_have_singular_values_near_one() -> None:
    optimizer = kcompile.optimizers.Muon(learning_rate=1.0, weight_decay=None, adam_weight_decay=None, rms_rate=None)
    before = fitted(kcompile.optimizers.SGD(0.0)).get_weights()
    after = fitted(optimizer).get_weights()
    for old, new in zip(before[::2], after[::2], strict=True):
        sizes = np.linalg.svd(new - old, compute_uv=False)[:3]  # three results give gradients of rank 3
        # The quintic brings what is not tiny to between 0.7 and 1.2.
        assert ((sizes > 0.6) & (sizes < 1.3)).all()


@pytest.mark.parametrize(
    ("excluded", "adam"),
    [((), ["bias", "bias"]), (("head",), ["bias", "kernel", "bias"]), (("/body/k",), ["kernel", "bias", "bias"])],
)
def test_weights_whose_path_holds_a_pattern_are_left_to_adam(excluded: tuple[str, ...], adam: list[str]) -> None:
    optimizer = kcompile.optimizers.Muon(exclude_layers=excluded)
    fitted(optimizer)
    assert [weight.name for weight in optimizer.slots["velocity"]] == adam
    assert len(optimizer.slots["momentum"]) == 4
    assert len(optimizer.variables) == 2 + 4 + len(adam)


def test_a_saved_model_goes_on_with_muon(tmp_path: Path) -> None:
    model = fitted(kcompile.optimizers.Muon(learning_rate=0.01, exclude_layers=["head"]), 3)
    model.save(tmp_path / "m.keras")
    again = kcompile.load_model(tmp_path / "m.keras")
    x, y = np.ones((8, 6), "float32"), np.zeros((8, 3), "float32")
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
