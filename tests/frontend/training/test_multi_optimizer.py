"""Weights with optimizers of their own, and the policy under which `compile` wraps an optimizer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.errors import ModelError
from kcompile.optimizers import SGD, Adam, LossScaleOptimizer, MultiOptimizer, OptimizerMap, RMSprop

X, Y = np.random.default_rng(0).normal(size=(2, 12, 3)).astype("float32")


def compiled(optimizer: Any) -> kcompile.Sequential:
    kcompile.utils.set_random_seed(0)
    model = kcompile.Sequential(
        [kcompile.Input((3,)), layers.Dense(4, name="encoder"), layers.Dense(3, name="decoder")], name="whole"
    )
    model.compile(optimizer, "mse")
    return model


def test_each_weight_changes_as_its_optimizer_alone_would_change_it() -> None:
    adam, sgd = Adam(0.1), SGD(0.05, momentum=0.9)
    optimizer = MultiOptimizer(OptimizerMap(adam, {"whole/encoder/.*": sgd}), loss_scale_factor=4.0)
    models = [compiled(optimizer), compiled(SGD(0.05, momentum=0.9)), compiled(Adam(0.1))]
    for model in models:
        model.train_on_batch(X, Y)
    mixed, slow, fast = ([w.numpy() for w in model.weights] for model in models)
    for found, expected in zip(mixed, [*slow[:2], *fast[2:]], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [weight.name for weight in sgd.weights] == ["kernel", "bias"]
    assert (optimizer.iterations, adam.iterations, sgd.iterations) == (1, 1, 1)
    assert optimizer.optimizers == [sgd, adam]


def test_a_function_chooses_optimizers_by_paths() -> None:
    seen: list[str] = []
    slow, fast = SGD(0.0), SGD(0.1)

    def choose(variable: Any) -> Any:
        seen.append(variable.path)
        return slow if variable.name == "bias" or variable.shape == (3, 4) else fast

    model = compiled(MultiOptimizer(choose))
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, False, True, False]
    assert seen == ["whole/encoder/kernel", "whole/encoder/bias", "whole/decoder/kernel", "whole/decoder/bias"]


def test_a_saved_model_goes_on_with_its_optimizers(tmp_path: Path) -> None:
    model = compiled(MultiOptimizer(OptimizerMap(RMSprop(0.01), {".*kernel": Adam(0.1), "whole/decoder/bias": SGD()})))
    model.fit(X, Y, epochs=2, verbose=0)
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        again = kcompile.load_model(tmp_path / name)
        loaded: Any = again.optimizer
        assert [type(each).__name__ for each in loaded.optimizers] == ["Adam", "SGD", "RMSprop"]
        for mine, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(mine.value, theirs.value)
    kept = model.get_weights()
    expected = model.train_on_batch(X, Y)
    model.set_weights(kept)
    assert again.train_on_batch(X, Y) == expected


def test_moving_averages_become_the_weights_of_those_that_keep_them() -> None:
    averaged = SGD(0.5, use_ema=True, ema_momentum=0.9)
    model = compiled(MultiOptimizer(OptimizerMap(SGD(0.5), {".*encoder.*": averaged})))
    plain = compiled(SGD(0.5))
    for each in (model, plain):
        each.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    same = [np.allclose(a, b) for a, b in zip(model.get_weights(), plain.get_weights(), strict=True)]
    assert same == [False, False, True, True]


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"`default_optimizer` must be an optimizer, .* Received: str"):
        OptimizerMap("adam")
    with pytest.raises(ModelError, match=r"none that wraps others. Received: LossScaleOptimizer"):
        OptimizerMap(Adam(), {".*": LossScaleOptimizer(SGD())})
    with pytest.raises(ModelError, match=r"`optimizer_map` of optimizer MultiOptimizer must be an OptimizerMap"):
        MultiOptimizer({".*": Adam()})
    with pytest.raises(ModelError, match=r"may match the weight 'whole/encoder/kernel'. Received: '\.\*', 'whole"):
        compiled(MultiOptimizer(OptimizerMap(Adam(), {".*": SGD(), "whole/.*": SGD()}))).fit(X, Y, verbose=0)
    with pytest.raises(ModelError, match=r"has no learning rate of its own. Each of `optimizers` has one"):
        print(MultiOptimizer(OptimizerMap(Adam())).learning_rate)


@pytest.fixture
def mixed_float16() -> Iterator[None]:
    kcompile.mixed_precision.set_global_policy("mixed_float16")
    yield
    kcompile.utils.clear_session()
    assert kcompile.config.dtype_policy() == "float32"


@pytest.mark.usefixtures("mixed_float16")
def test_compile_scales_the_loss_of_a_model_in_mixed_precision() -> None:
    model = compiled(Adam(0.01))
    assert isinstance(model.optimizer, LossScaleOptimizer)
    assert (model.layers[0].compute_dtype, model.layers[0].kernel.dtype) == ("float16", "float32")
    assert model.layers[0].dtype == "mixed_float16"
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, epochs=30, verbose=0)
    assert model.evaluate(X, Y, verbose=0) < before
    assert model.predict(X).dtype == np.float16
    assert int(model.optimizer.step_counter.value) == 30
    model.compile("adam", "mse", auto_scale_loss=False)
    assert isinstance(model.optimizer, Adam)
    given = LossScaleOptimizer(SGD())
    model.compile(given, "mse")
    assert model.optimizer is given
    assert layers.Dense(1, dtype="float32").compute_dtype == "float32"


def test_other_policies_are_refused_and_others_than_mixed_float16_leave_the_optimizer_alone() -> None:
    with pytest.raises(ModelError, match=r"a dtype policy must be one of .* Received: 'half'"):
        kcompile.config.set_dtype_policy("half")
    assert isinstance(compiled(Adam()).optimizer, Adam)
