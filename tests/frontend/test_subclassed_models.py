"""Models with a `call` of their own, traced to a graph when they first see the shape of their input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, Sequential, layers, ops
from kcompile.errors import ModelError

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


@kcompile.saving.register_keras_serializable(package="tests")
class Classifier(Model):
    """Dense layers, some in a list, with one weight of its own."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.entry = layers.Dense(units, activation="relu")
        self.stack = [layers.Dense(units), layers.BatchNormalization()]
        self.drop = layers.Dropout(0.5)
        self.zoom = layers.Dense(1)
        self.shift = self.add_weight(shape=(1,), initializer="zeros", name="shift")

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.entry(x)
        for layer in self.stack:
            x = layer(x)
        if training:
            x = self.drop(x, training=True)
        return ops.sigmoid(self.zoom(x) + self.shift)


@pytest.fixture
def model() -> Classifier:
    kcompile.utils.set_random_seed(0)
    made = Classifier()
    made.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    made.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    return made


def test_the_first_batch_builds_and_trains(model: Classifier) -> None:
    assert model.built
    assert model.input_shape == (None, 3)
    assert model.output_shape == (None, 1)
    assert [layer.name.rsplit("_", 1)[0] for layer in model.layers][-2:] == ["dropout", "dense"]
    assert model.count_params() == 1 + 16 + 20 + 16 + 5
    losses = model.fit(X, Y, epochs=80, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_predictions_are_those_of_the_code(model: Classifier) -> None:
    kernel, bias = model.entry.get_weights()
    x = np.maximum(X @ kernel + bias, 0)
    kernel, bias = model.stack[0].get_weights()
    gamma, beta, mean, variance = model.stack[1].get_weights()
    x = (x @ kernel + bias - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    kernel, bias = model.zoom.get_weights()
    expected = 1 / (1 + np.exp(-(x @ kernel + bias + model.shift.numpy())))
    assert np.allclose(model.predict(X), expected, atol=1e-5)
    assert np.allclose(model(X), expected, atol=1e-5)


def test_steps_are_traced_once_per_kind(model: Classifier) -> None:
    assert model.topology is model.topology


def test_the_summary_has_the_layers_and_their_shapes(model: Classifier) -> None:
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert 'Model: "classifier' in lines[0]
    assert lines[0].count("(None, 4)") == 3
    assert "Trainable params: 50" in lines[0]


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_both_targets_compile_it(model: Classifier, tmp_path: Path, target: str) -> None:
    artifact = kcompile.compile(model, target, tmp_path / ("m.onnx" if target == "onnx" else "m.kcb"))
    assert np.allclose(kcompile.load(artifact).predict(X), model.predict(X), atol=1e-5)


def test_it_is_saved_loaded_and_trained_on(model: Classifier, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    loaded = kcompile.load_model(tmp_path / "m.keras")
    assert isinstance(loaded, Classifier)
    assert np.array_equal(loaded.predict(X), model.predict(X))
    assert float(loaded.optimizer.iteration.value) == 4
    model.fit(X, Y, shuffle=False, verbose=0)
    loaded.fit(X, Y, shuffle=False, verbose=0)
    assert all(a.shape == b.shape for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


def test_weights_go_to_another_of_its_kind(model: Classifier, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    other = Classifier()
    with pytest.raises(ModelError, match="must know its input shape"):
        other.load_weights(tmp_path / "m.weights.h5")
    other.build((None, 3))
    other.load_weights(tmp_path / "m.weights.h5")
    assert np.array_equal(other.predict(X), model.predict(X))
    wider = Classifier(5)
    wider.build((None, 3))
    with pytest.raises(ModelError, match="must be those of the model"):
        wider.load_weights(tmp_path / "m.weights.h5")


def test_it_is_a_layer_of_others() -> None:
    inner = Classifier()
    model = Sequential([Input((3,)), inner, layers.Dense(2)])
    assert model.predict(X).shape == (8, 2)
    assert len(model.trainable_weights) == 1 + 2 + 2 + 2 + 2 + 2
    inner.trainable = False
    assert len(model.trainable_weights) == 2


def test_dicts_and_lists_go_in_and_come_out() -> None:
    class Two(Model):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = layers.Dense(1), layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return {"a": self.left(inputs["u"]), "b": self.right(inputs["v"])}

    model = Two()
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 2.0})
    data = {"u": X, "v": X[:, :2]}, {"a": Y, "b": np.zeros((8, 2))}
    history = model.fit(*data, verbose=0).history
    assert np.isclose(history["loss"][0], history["a_loss"][0] + 2 * history["b_loss"][0], rtol=1e-5)
    assert sorted(model.predict(data[0])) == ["a", "b"]
    assert model.input_names == ["u", "v"]


def test_integers_stay_integers() -> None:
    class Words(Model):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mean = layers.Embedding(10, 4), layers.GlobalAveragePooling1D()

        def call(self, ids: Any) -> Any:
            return self.mean(self.table(ids))

    model = Words()
    assert model(np.array([[1, 2, 3]])).shape == (1, 4)
    assert model.inputs[0].dtype == "int64"


def test_a_subclass_may_state_its_graph() -> None:
    class Stated(Model):
        def __init__(self, units: int) -> None:
            inputs = Input((3,))
            super().__init__(inputs=inputs, outputs=layers.Dense(units)(inputs))
            self.units = units

    model = Stated(2)
    assert model.predict(X).shape == (8, 2)
    assert len(model.layers) == 2
    assert Stated.from_config(model.get_config()).units == 2


def test_a_build_of_its_own_is_run_once() -> None:
    class Built(Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def build(self, input_shape: Any) -> None:
            self.dense.build(input_shape)
            self.factor = self.add_weight(shape=(2,), initializer="ones", name="factor")
            super().build(input_shape)

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.factor

    model = Built()
    model.build((None, 3))
    assert len(model.weights) == 3
    assert model.predict(X).shape == (8, 2)
    assert len(model.weights) == 3


def test_decisions_on_data_are_refused() -> None:
    class Deciding(Model):
        def call(self, x: Any) -> Any:
            while ops.mean(x) > 1:
                x = x / 2
            return x

    model = Deciding()
    model.compile("sgd", "mse")
    with pytest.raises(ModelError, match="the elements of a symbolic tensor are not known"):
        model.fit(X, Y, verbose=0)
    assert not model.built


def test_a_model_that_has_seen_no_data_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"does not know its input shape yet. Fit it, call it on an array, or"):
        Classifier().trace()
    made = Sequential([layers.Dense(2)])
    made.compile("sgd", "mse")
    made.fit(X, X[:, :2], verbose=0)
    assert made.input_shape == (None, 3)


def test_summaries_look_into_models_inside_and_say_what_trains() -> None:
    inner = Sequential([Input((3,)), layers.Dense(2, name="deep")], name="inner")
    inner.trainable = False
    model = Sequential([Input((3,)), inner, layers.Dense(1, name="last", kernel_regularizer="l2"), layers.ReLU()])
    lines: list[str] = []
    model.summary(line_length=99, print_fn=lines.append, expand_nested=True, show_trainable=True)
    rows = [line.split("│")[1:-1] for line in lines[0].splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert [row[0].split(" (")[0] for row in cells][:3] == ["inner", "└ deep", "last"]
    assert [row[3] for row in cells] == ["N", "N", "Y", "-"]
    assert np.isclose(float(model.losses[0]), 0.01 * (model.get_layer("last").kernel.numpy() ** 2).sum())
