"""Models saved in the middle of training, and files that say how a model was compiled."""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, Sequential, layers, losses, metrics, optimizers
from kcompile.errors import ModelError
from kcompile.frontend.training.saving import compile_from


def small() -> Sequential:
    return Sequential([Input((3,)), layers.Dense(4, activation="tanh"), layers.Dense(2, activation="softmax")])


def data(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.standard_normal((16, 3)).astype(np.float32), rng.integers(0, 2, 16)


def step(model: Model, rng: np.random.Generator) -> Any:
    return model.train_on_batch(*data(rng), return_dict=True)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(suffix: str, tmp_path: Path) -> None:
    model, path = small(), tmp_path / f"model{suffix}"
    rate = optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=3)
    model.compile(optimizers.Adam(rate), loss, metrics=["accuracy", metrics.SparseTopKCategoricalAccuracy(1, "top")])
    step(model, np.random.default_rng(0))
    model.save(path)
    again = kcompile.load_model(path)
    assert again.optimizer.iterations == 1
    assert step(model, np.random.default_rng(1)) == step(again, np.random.default_rng(1))
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    apart = kcompile.load_model(path, compile=False)
    assert not apart.compiled


def test_several_outputs_keep_their_losses(tmp_path: Path, rng: np.random.Generator) -> None:
    x = Input((3,))
    model = Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    model.compile("sgd", {"a": "mse", "b": "mae"}, {"a": 1.0, "b": 2.0}, metrics={"a": ["mae"], "b": ["mse", "mae"]})
    y = {"a": np.ones((4, 1), np.float32), "b": np.ones((4, 2), np.float32)}
    model.save(tmp_path / "model.keras")
    again = kcompile.load_model(tmp_path / "model.keras")
    first = np.ones((4, 3), np.float32)
    assert model.train_on_batch(first, y, return_dict=True) == again.train_on_batch(first, y, return_dict=True)


def test_weights_files_give_a_built_optimizer_its_state(tmp_path: Path) -> None:
    model, other, fresh = small(), small(), small()
    for made in (model, other, fresh):
        made.compile("adam", "sparse_categorical_crossentropy")
    step(model, np.random.default_rng(0))
    step(other, np.random.default_rng(5))
    step(model, np.random.default_rng(1))
    model.save_weights(tmp_path / "model.weights.h5")
    for made, expected in ((other, 2), (fresh, 0)):
        made.load_weights(tmp_path / "model.weights.h5")
        assert made.optimizer.iterations == expected


def test_code_in_the_arguments_of_compile_is_not_saved(tmp_path: Path) -> None:
    def own(y_true: Any, y_pred: Any) -> Any:
        return (y_pred - y_true).square()

    class Own(losses.MeanSquaredError):
        pass

    for loss in (own, Own()):
        model = Sequential([Input((3,)), layers.Dense(1)])
        model.compile("sgd", loss)
        with pytest.warns(
            UserWarning, match="without the arguments of `compile`, which hold code of your own: (own|Own)"
        ):
            model.save(tmp_path / "model.keras")
        again = kcompile.load_model(tmp_path / "model.keras")
        with pytest.raises(ModelError, match="`optimizer` needs a compiled model"):
            _ = again.optimizer


def with_config(path: Path, target: Path, config: Any) -> Model:
    """The model in `path` as if its file said that it was compiled with `config`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps({**json.loads(content), "compile_config": config}).encode()
            new.writestr(name, content)
    return kcompile.load_model(target)


SGD = {"class_name": "SGD", "config": {"learning_rate": 0.5}}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"optimizer": {"class_name": "Own", "config": {}}, "loss": "mse"}, "an optimizer must be"),
        ({"optimizer": {"class_name": "SGD", "config": {"size": 1}}, "loss": "mse"}, "does not take these arguments"),
        ({"optimizer": SGD, "loss": {"class_name": "Own", "config": {}}}, "a loss must be"),
        ({"optimizer": SGD, "loss": "mse", "metrics": [["own"]]}, "a metric must be"),
        ({"optimizer": SGD, "loss": {"class_name": "Huber"}}, "are damaged"),
        ({"optimizer": [1], "loss": "mse"}, "are damaged"),
        ({"optimizer": {"class_name": "Adam", "config": {"beta_1": "x"}}, "loss": 3}, "a loss must be"),
        ({"loss": "mse"}, "are damaged"),
    ],
)
def test_a_model_whose_compilation_is_unknown_still_loads(config: Any, reason: str, tmp_path: Path) -> None:
    small().save(tmp_path / "model.keras")
    again = with_config(tmp_path / "model.keras", tmp_path / "other.keras", config)
    assert again.predict(np.zeros((1, 3), np.float32)).shape == (1, 2)
    with pytest.raises(ModelError, match=f"It could not be compiled as its file says: .*{reason}"):
        again.fit(np.zeros((1, 3)), np.zeros(1))


@pytest.mark.parametrize("config", [None, [], 3, {}])
def test_a_config_that_says_nothing_compiles_nothing(config: Any, tmp_path: Path) -> None:
    small().save(tmp_path / "model.keras")
    again = with_config(tmp_path / "model.keras", tmp_path / "other.keras", config)
    assert not again.compiled
    assert not again.not_compiled


def test_configs_of_keras_2_are_understood() -> None:
    model = small()
    compile_from(
        model,
        {
            "optimizer_config": {
                "class_name": "Custom>RMSprop",
                "config": {"name": "RMSprop", "lr": 0.25, "decay": 0.5, "rho": 0.8, "jit_compile": True},
            },
            "loss": {
                "class_name": "SparseCategoricalCrossentropy",
                "config": {"reduction": "auto", "fn": "sparse_categorical_crossentropy", "from_logits": True},
            },
            "metrics": [
                [
                    "accuracy",
                    {"class_name": "MeanMetricWrapper", "config": {"fn": "sparse_categorical_accuracy", "name": "own"}},
                    {"class_name": "function", "config": "sparse_categorical_crossentropy"},
                ]
            ],
            "weighted_metrics": None,
            "loss_weights": None,
            "sample_weight_mode": None,
        },
    )
    assert isinstance(model.optimizer, optimizers.RMSprop)
    assert model.optimizer.get_config()["rho"] == 0.8
    assert model.optimizer.learning_rate == 0.25
    model.optimizer.iteration.value = np.asarray(2)
    assert model.optimizer.learning_rate == 0.125  # 0.25 / (1 + 0.5 * 2)
    assert model.compile_arguments["loss"].from_logits
    assert set(step(model, np.random.default_rng(0))) == {"loss", "accuracy", "own", "sparse_categorical_crossentropy"}


def test_state_of_another_optimizer_is_refused_or_left_alone(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "model.keras"
    model.compile("adam", "sparse_categorical_crossentropy")
    step(model, np.random.default_rng(0))
    model.save(path)
    with zipfile.ZipFile(path) as zipped:
        parts = {name: zipped.read(name) for name in zipped.namelist()}
    for change, expected in (("fewer", 0), ("other", None)):
        stored = tmp_path / "stored.h5"
        stored.write_bytes(parts["model.weights.h5"])
        with h5py.File(stored, "r+") as root:
            del root["optimizer/vars/5"]
            if change == "other":
                root["optimizer/vars/5"] = np.zeros((7, 7))
        with zipfile.ZipFile(tmp_path / "changed.keras", "w") as zipped:
            for name, content in {**parts, "model.weights.h5": stored.read_bytes()}.items():
                zipped.writestr(name, content)
        if expected is None:
            with pytest.raises(ModelError, match=r"the state of optimizer `adam` in changed\.keras must have shape"):
                kcompile.load_model(tmp_path / "changed.keras")
        else:
            assert kcompile.load_model(tmp_path / "changed.keras").optimizer.iterations == expected
