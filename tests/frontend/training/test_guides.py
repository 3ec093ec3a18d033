"""What programs of Keras's guides do with models, layers and optimizers, where nothing but their own results tells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile as keras
from kcompile import layers, ops
from kcompile.errors import InputError, ModelError
from tests.frontend.errors import error_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")
Y = RNG.normal(size=(20, 1)).astype("float32")


def linear(**options: Any) -> keras.Sequential:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    return model


class Largest(keras.metrics.Metric):
    def __init__(self, name: str = "largest", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.found = self.add_variable(shape=(), initializer="zeros", name="found")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.found.assign(ops.maximum(self.found.value, ops.max(y_true)))

    def result(self) -> Any:
        return self.found.value


def test_the_value_of_a_variable_is_the_present_one_where_it_is_read() -> None:
    model = linear(metrics=[Largest()])
    assert np.isclose(model.fit(X, Y, batch_size=5, verbose=0).history["largest"][0], Y.max())


def test_weights_are_compared_with_numbers_element_by_element() -> None:
    kernel = layers.Dense(1, kernel_initializer="ones")
    kernel(X)
    assert (kernel.kernel == 1.0).all()
    assert not (kernel.kernel != 1.0).any()
    assert kernel.kernel == kernel.kernel
    assert kernel.kernel != kernel.bias
    assert kernel.kernel.path == f"{kernel.name}/kernel"


def test_a_model_that_states_a_number_of_samples_takes_any() -> None:
    inputs = keras.Input(batch_shape=(8, 4))
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(inputs))
    model.compile("sgd", "mse")
    assert np.allclose(model.predict(X), X.sum(1, keepdims=True), atol=1e-6)
    assert len(model.fit(X, Y, batch_size=6, verbose=0).epoch) == 1
    assert np.isfinite(model.evaluate(X, Y, verbose=0))


class PerRow(layers.Layer):
    def call(self, x: Any) -> Any:
        return ops.stack([x[i] * float(i) for i in range(x.shape[0])])


def test_code_that_counts_on_the_number_of_samples_gets_it() -> None:
    inputs = keras.Input(batch_shape=(5, 4), name="x")
    model = keras.Model(inputs, PerRow()(inputs))
    expected = X * (np.arange(20) % 5)[:, None].astype("float32")
    assert np.allclose(model.predict(X, batch_size=5), expected)
    with pytest.raises(InputError, match=r"input `x` must have shape \(5, 4\)\. Received: \(3, 4\)"):
        model.predict(X[:3])


def test_fit_trains_what_a_call_says_is_not_to_train_as_keras_does() -> None:
    inputs = keras.Input((4,))
    norm, drop = layers.BatchNormalization(), layers.Dropout(0.5)
    model = keras.Model(inputs, drop(norm(inputs, training=False), training=True))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    assert np.allclose(model.predict(X), X / np.sqrt(1.001), atol=1e-6)
    assert (model(X) == 0).any()
    model.fit(X, X, batch_size=20, verbose=0)
    assert np.allclose(norm.moving_mean.numpy(), 0.01 * X.mean(0), atol=1e-6)


def test_a_summary_counts_the_state_of_the_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    model = linear()
    model.summary()
    assert "Optimizer" not in capsys.readouterr().out
    model.fit(X, Y, verbose=0)
    model.summary()
    shown = capsys.readouterr().out
    assert " Total params: 7 (28.00 B)" in shown
    assert " Optimizer params: 2 (8.00 B)" in shown


def test_the_learning_rate_is_a_number_and_a_variable() -> None:
    optimizer = keras.optimizers.SGD(np.float32(0.5))
    assert optimizer.learning_rate == optimizer.learning_rate.numpy() == 0.5
    optimizer.learning_rate.assign(0.25)
    assert f"{optimizer.learning_rate:.2f}" == "0.25"


def test_a_learning_rate_is_logged_last() -> None:
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss")
    assert list(linear().fit(X, Y, verbose=0, callbacks=[plateau]).history) == ["loss", "learning_rate"]


class Scaled(layers.Layer):
    """A layer whose config holds no name."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}


def test_models_are_made_from_configs_with_custom_objects(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(Scaled(2.0)(inputs)))
    known: dict[str, Any] = {"Scaled": Scaled}
    for again in (
        keras.Model.from_config(model.get_config(), custom_objects=known),
        keras.models.model_from_json(model.to_json(), custom_objects=known),
    ):
        again.set_weights(model.get_weights())
        assert np.array_equal(again.predict(X), model.predict(X))
    model.save(filepath=tmp_path / "m.keras")
    loaded = keras.saving.load_model(filepath=tmp_path / "m.keras", custom_objects=known, compile=False, safe_mode=True)
    assert np.array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize(
    "made",
    [
        keras.initializers.HeNormal(seed=3),
        keras.regularizers.L2(0.5),
        keras.constraints.MaxNorm(3.0),
        keras.metrics.AUC(num_thresholds=7),
        keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5),
        keras.losses.Huber(0.5),
        keras.optimizers.Adam(0.5),
    ],
    ids=lambda made: type(made).__name__,
)
def test_objects_are_made_again_from_their_configs(made: Any) -> None:
    again = type(made).from_config(made.get_config())
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_saved_by_the_name_of_its_function(tmp_path: Path, suffix: str) -> None:
    def doubled(x: Any, by: float) -> Any:
        return x * by

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(doubled, output_shape=(4,), arguments={"by": 2.0})(inputs))
    model.save(tmp_path / f"m{suffix}")
    loaded = keras.load_model(tmp_path / f"m{suffix}", custom_objects={"doubled": doubled})
    assert np.array_equal(loaded.predict(X), 2 * X)


def test_a_lambda_of_code_is_not_saved(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x + 1, name="more")(inputs))
    assert error_of(ModelError, lambda: model.save(tmp_path / "m.keras")) == (
        "layer `more` holds a lambda, which no file of kcompile's does. "
        "Give it a function that @kcompile.saving.register_keras_serializable() registers."
    )


@keras.saving.register_keras_serializable(package="guides")
class OwnCompile(keras.Model):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compile(self, optimizer: Any, loss_fn: Any) -> None:  # type: ignore[override]
        super().compile(optimizer, loss_fn)
        self.loss_fn = loss_fn

    def get_compile_config(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "loss_fn": self.loss_fn}

    def compile_from_config(self, config: Any) -> None:
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        self.compile(optimizer, keras.saving.deserialize_keras_object(config["loss_fn"]))


def test_a_model_with_its_own_compile_says_what_files_keep_of_it(tmp_path: Path) -> None:
    model = OwnCompile()
    model.compile(keras.optimizers.SGD(0.25), keras.losses.Huber(0.5))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.load_model(tmp_path / "m.keras")
    assert loaded.loss_fn.delta == 0.5
    options: dict[str, Any] = {"verbose": 0, "shuffle": False}
    assert loaded.fit(X, Y, **options).history == model.fit(X, Y, **options).history


@keras.saving.register_keras_serializable(package="guides")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        return 0.1 * ops.minimum(1.0, (ops.cast(step, "float32") + 1.0) / self.steps)

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps}


def test_a_schedule_of_the_users_own_is_saved(tmp_path: Path) -> None:
    model = linear()
    model.compile(keras.optimizers.SGD(Warmup(4)), "mse")
    model.fit(X, Y, batch_size=10, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.load_model(tmp_path / "m.keras")
    assert np.isclose(loaded.optimizer.learning_rate, 0.1 * 3 / 4)


class Biased(layers.Dense):
    """A layer of Keras's with a variable of its own, whose `__init__` takes what the base takes."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(units, **options)
        self.shift = self.add_weight(shape=(units,), initializer="ones", name="shift")

    def call(self, inputs: Any) -> Any:
        return super().call(inputs) + self.shift


def test_a_subclass_of_a_layer_is_loaded_with_its_initializers(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Biased(2)(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.load_model(tmp_path / "m.keras", custom_objects={"Biased": Biased})
    assert np.array_equal(loaded.predict(X), model.predict(X))


def test_a_model_is_built_by_a_shape_under_its_name() -> None:
    model = keras.Sequential([layers.Dense(2)])
    named: dict[str, Any] = {"input_shape": (None, 4)}
    model.build(**named)
    assert model.count_params() == 10


def test_functions_of_numpy_on_tensors_say_what_to_use() -> None:
    text = error_of(ModelError, lambda: layers.Lambda(lambda x: np.mean(x, axis=-1))(keras.Input((4,))))
    assert "used as an argument of numpy.mean. Use kcompile.ops.mean" in text


def test_a_generator_that_ends_too_soon_is_told() -> None:
    text = error_of(InputError, lambda: linear().fit(((X, Y) for _ in range(3)), epochs=2, verbose=0))
    assert text == (
        "the data must give batches for every epoch. Received: an end after 3 batches and 1 epochs. "
        "Give a generator that goes on, with `steps_per_epoch`, or fewer `epochs`."
    )


def test_a_generator_has_no_validation_split() -> None:
    text = error_of(InputError, lambda: linear().fit(iter([(X, Y)]), validation_split=0.25, verbose=0))
    assert text == (
        "`validation_split` is for arrays; of other data, give a part as `validation_data`. Received: list_iterator."
    )


def test_spectral_normalization_trains_through_the_largest_singular_value() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.SpectralNormalization(layers.Dense(2, use_bias=False))])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    w, u = model.get_weights()
    v = (u @ w.T) / np.linalg.norm(u @ w.T)
    after = (v @ w) / np.linalg.norm(v @ w)

    def loss(kernel: Any) -> float:
        return float(((X @ (kernel / (v @ kernel @ after.T)) - Y) ** 2).mean())

    found = model.train_on_batch(X, np.repeat(Y, 2, axis=1))
    assert np.isclose(found, loss(w.astype("float64")), rtol=1e-5)
    new_w, new_u = model.get_weights()
    assert np.allclose(new_u, after, atol=1e-6)
    for place in np.ndindex(w.shape):
        step = np.zeros(w.shape)
        step[place] = 1e-5
        slope = (loss(w + step) - loss(w - step)) / 2e-5
        assert np.isclose(w[place] - new_w[place], slope, rtol=1e-3, atol=1e-5)


def test_spectral_normalization_leaves_a_kernel_of_zeros() -> None:
    dense = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Sequential([keras.Input((4,)), layers.SpectralNormalization(dense)])
    model.compile("sgd", "mse")
    u = model.get_weights()[1]
    assert np.isfinite(model.train_on_batch(X, np.repeat(Y, 2, axis=1)))
    assert np.array_equal(model.get_weights()[1], u)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
