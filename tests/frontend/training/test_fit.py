"""The loops: what fit, evaluate and predict do with data, and what they refuse."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, Sequential, layers, ops
from kcompile.errors import InputError, ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training import callbacks
from kcompile.frontend.training.data import Reader
from kcompile.frontend.training.loop import make_source
from tests.frontend.errors import error_of


@pytest.fixture(autouse=True)
def _seeded() -> None:
    initializers.set_seed(11)


def linear(units: int = 1) -> Sequential:
    model = Sequential([Input((3,)), layers.Dense(units, kernel_initializer="zeros")])
    model.compile(kcompile.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


def line(rng: np.random.Generator, count: int = 40) -> tuple[Any, Any]:
    x = rng.standard_normal((count, 3)).astype(np.float32)
    return x, (x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3).astype(np.float32)


def descend(x: Any, y: Any, batch_size: int, epochs: int) -> tuple[Any, list[float]]:
    """Linear regression by hand: weights, and the mean loss of each epoch."""
    w, b, losses = np.zeros((3, 1)), 0.0, []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, len(x), batch_size):
            part, target = x[start : start + batch_size], y[start : start + batch_size]
            error = part @ w + b - target
            total += float((error**2).mean()) * len(part)
            w, b = w - 0.1 * 2 * part.T @ error / len(part), b - 0.1 * 2 * float(error.mean())
        losses.append(total / len(x))
    return w, losses


@pytest.mark.parametrize("batch_size", [8, 16, 40, 100])
def test_fit_descends_batch_by_batch(batch_size: int, rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    history = model.fit(x, y, batch_size=batch_size, epochs=3, shuffle=False, verbose=0)
    w, losses = descend(x, y, batch_size, 3)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-4)
    assert history.epoch == [0, 1, 2]
    assert sorted(history.history) == ["loss", "mae"]
    assert int(model.optimizer.iteration.value) == 3 * math.ceil(40 / batch_size)


def test_fit_learns_and_evaluate_and_predict_agree(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    model.fit(x, y, epochs=30, batch_size=8, verbose=0)
    loss, mae = model.evaluate(x, y, verbose=0)
    errors = model.predict(x) - y
    assert loss < 1e-4
    assert np.isclose(loss, (errors**2).mean(), rtol=1e-3)
    assert np.isclose(mae, np.abs(errors).mean(), rtol=1e-3)
    assert model.evaluate(x, y, verbose=0, return_dict=True) == {"loss": loss, "mae": mae}


def test_one_batch_at_a_time(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    before = model.test_on_batch(x, y)
    loss, mae = model.train_on_batch(x, y)
    assert [loss, mae] == before
    assert np.isclose(loss, (y**2).mean(), rtol=1e-5)
    assert model.test_on_batch(x, y, return_dict=True)["loss"] < loss
    np.testing.assert_array_equal(model.predict_on_batch(x), model.predict(x, batch_size=40))


def test_shuffling_changes_the_order_alone(rng: np.random.Generator) -> None:
    x, y = line(rng)
    models = [linear(), linear()]
    for model, shuffle in zip(models, (False, True), strict=True):
        model.fit(x, y, batch_size=40, epochs=2, shuffle=shuffle, verbose=0)
    np.testing.assert_allclose(models[0].get_weights()[0], models[1].get_weights()[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [1, 9000])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 100])
def test_a_shuffled_epoch_has_each_sample_once_with_its_label(width: int, batch_size: int) -> None:
    model = Sequential([Input((width,)), layers.Dense(1)])
    numbers = np.arange(64, dtype=np.float32)
    x = np.repeat(numbers[:, None], width, axis=1)
    source = make_source(Reader(model, model.output_names), (x, -numbers[:, None], None), batch_size, shuffle=True)
    for _ in range(2):
        initializers.set_seed(5)
        source.restart()
        batches = [batch for _, batch in source.epoch()]
        inputs = np.concatenate([next(iter(batch.x.values())) for batch in batches])
        labels = np.concatenate([next(iter(batch.y.values())) for batch in batches])
        assert {batch.size for batch in batches[:-1]} <= {batch_size}
        np.testing.assert_array_equal(inputs, -np.repeat(labels, width, axis=1))
        np.testing.assert_array_equal(labels[:, 0], -np.random.default_rng(5).permutation(64))


def test_a_seed_makes_training_repeat_itself(rng: np.random.Generator) -> None:
    x, y = line(rng)
    found = []
    for _ in range(2):
        initializers.set_seed(3)
        model = Sequential([Input((3,)), layers.Dense(8), layers.Dropout(0.5), layers.Dense(1)])
        model.compile("adam", "mse")
        found.append(model.fit(x, y, epochs=3, verbose=0).history["loss"])
    assert found[0] == found[1]


def test_validation_is_the_last_share_of_the_samples(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    history = model.fit(x, y, epochs=2, validation_split=0.25, verbose=0, batch_size=10)
    assert sorted(history.history) == ["loss", "mae", "val_loss", "val_mae"]
    assert int(model.optimizer.iteration.value) == 2 * 3
    loss, mae = model.evaluate(x[30:], y[30:], verbose=0)
    assert np.isclose(history.history["val_loss"][-1], loss)
    assert np.isclose(history.history["val_mae"][-1], mae)


def test_validation_happens_as_often_as_asked(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    history = model.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=2, verbose=0)
    assert len(history.history["val_loss"]) == 2
    history = model.fit(x, y, epochs=5, validation_data=(x, y, np.ones(40)), validation_freq=[1, 4, 5], verbose=0)
    assert len(history.history["val_loss"]) == 3


def test_sample_weights_of_zero_leave_samples_out(rng: np.random.Generator) -> None:
    x, y = line(rng)
    one, other = linear(), linear()
    weights = np.r_[np.ones(20), np.zeros(20)]
    one.fit(x, y, sample_weight=weights, batch_size=40, epochs=3, shuffle=False, verbose=0)
    other.compile(kcompile.optimizers.SGD(0.05), "mse")
    other.fit(x[:20], y[:20], batch_size=20, epochs=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(one.get_weights()[0], other.get_weights()[0], rtol=1e-4, atol=1e-6)


def test_class_weights_are_sample_weights_by_label(rng: np.random.Generator) -> None:
    x, labels = rng.standard_normal((30, 3)), rng.integers(0, 3, 30)

    def trained(**options: Any) -> Any:
        model = Sequential([Input((3,)), layers.Dense(3, activation="softmax", kernel_initializer="zeros")])
        model.compile("sgd", options.pop("loss", "sparse_categorical_crossentropy"))
        model.fit(x, options.pop("y", labels), epochs=2, shuffle=False, verbose=0, **options)
        return model.get_weights()[0]

    expected = trained(sample_weight=np.array([2.0, 1.0, 0.5])[labels])
    np.testing.assert_array_equal(trained(class_weight={0: 2.0, 2: 0.5}), expected)
    one_hot = trained(class_weight={0: 2.0, 2: 0.5}, y=np.eye(3)[labels], loss="categorical_crossentropy")
    np.testing.assert_allclose(one_hot, expected, rtol=1e-5)


class Dataset:
    """Batches by index, as PyDataset has them."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y, self.epochs = x, y, 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.x[index * 10 : index * 10 + 10], self.y[index * 10 : index * 10 + 10]

    def on_epoch_end(self) -> None:
        self.epochs += 1


def test_sources_of_batches_train_like_arrays(rng: np.random.Generator) -> None:
    x, y = line(rng)

    def forever() -> Iterator[tuple[Any, Any]]:
        while True:
            for start in range(0, 40, 10):
                yield x[start : start + 10], y[start : start + 10]

    dataset = Dataset(x, y)
    expected = linear()
    expected.fit(x, y, batch_size=10, epochs=3, shuffle=False, verbose=0)
    for source, steps in ((dataset, None), (forever(), 4)):
        model = linear()
        model.fit(source, epochs=3, shuffle=False, verbose=0, steps_per_epoch=steps)
        np.testing.assert_array_equal(model.get_weights()[0], expected.get_weights()[0])
        assert np.isclose(model.evaluate(source, steps=4, verbose=0)[0], model.evaluate(x, y, verbose=0)[0])
    assert dataset.epochs == 4
    np.testing.assert_allclose(expected.predict(Dataset(x, y)), expected.predict(x), rtol=1e-6)


def test_steps_per_epoch_go_on_where_the_last_epoch_stopped(rng: np.random.Generator) -> None:
    x, y = line(rng)
    seen: list[int] = []

    def numbered() -> Iterator[tuple[Any, Any]]:
        for i in range(7):
            seen.append(i)
            yield x[:4], y[:4]

    linear().fit(numbered(), epochs=3, steps_per_epoch=2, verbose=0)
    assert seen == [0, 1, 2, 3, 4, 5]


def two_ended() -> Model:
    a, b = Input((3,), name="a"), Input((2,), name="b")
    hidden = layers.Concatenate()([a, b])
    return Model(
        {"a": a, "b": b}, [layers.Dense(1, name="size")(hidden), layers.Dense(3, "softmax", name="kind")(hidden)]
    )


def test_several_inputs_and_outputs_by_name_and_in_lists(rng: np.random.Generator) -> None:
    x = {"a": rng.standard_normal((20, 3)), "b": rng.standard_normal((20, 2))}
    y = {"size": rng.standard_normal((20, 1)), "kind": rng.integers(0, 3, 20)}
    found = []
    for form in ("names", "lists"):
        initializers.set_seed(5)
        model = two_ended()
        losses: Any = {"size": "mse", "kind": "sparse_categorical_crossentropy"}
        metrics: Any = {"kind": ["accuracy"], "size": ["mae"]}
        weights: Any = {"size": 0.5, "kind": 2.0}
        labels: Any = y
        if form == "lists":
            losses, metrics, weights = list(losses.values()), [["mae"], ["accuracy"]], [0.5, 2.0]
            labels = [y["size"], y["kind"]]
        model.compile("sgd", losses, loss_weights=weights, metrics=metrics)
        found.append(model.fit(x, labels, epochs=2, shuffle=False, verbose=0).history)
    assert found[0] == found[1]
    assert sorted(found[0]) == ["kind_accuracy", "kind_loss", "loss", "size_loss", "size_mae"]
    total = 0.5 * found[0]["size_loss"][0] + 2.0 * found[0]["kind_loss"][0]
    assert np.isclose(found[0]["loss"][0], total, rtol=1e-5)


def test_an_output_without_a_loss_needs_no_labels(rng: np.random.Generator) -> None:
    model = two_ended()
    model.compile("sgd", {"size": "mse"})
    x = {"a": rng.standard_normal((20, 3)), "b": rng.standard_normal((20, 2))}
    before = model.get_layer("kind").get_weights()
    assert sorted(model.fit(x, rng.standard_normal((20, 1)), verbose=0).history) == ["loss"]
    for a, b in zip(before, model.get_layer("kind").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_functions_serve_as_losses_and_metrics(rng: np.random.Generator) -> None:
    def cubic(y_true: Any, y_pred: Any) -> Any:
        return ops.abs(y_true - y_pred) ** 3.0

    def largest(y_true: Any, y_pred: Any) -> Any:
        return ops.abs(y_true - y_pred)

    model, (x, y) = linear(), line(rng)
    model.compile("sgd", cubic, metrics=[largest])
    loss, mean = model.test_on_batch(x, y)
    assert np.isclose(loss, (np.abs(y) ** 3).mean(), rtol=1e-5)
    assert np.isclose(mean, np.abs(y).mean(), rtol=1e-5)
    assert model.metrics_names == ["loss", "largest"]


def test_frozen_layers_do_not_change(rng: np.random.Generator) -> None:
    base = Sequential([Input((3,)), layers.Dense(4), layers.BatchNormalization()])
    base.trainable = False
    model = Sequential([base, layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = line(rng)
    before = base.get_weights()
    head = model.layers[-1].get_weights()
    model.fit(x, y, verbose=0, epochs=2)
    assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
    assert not np.array_equal(head[0], model.layers[-1].get_weights()[0])


def test_training_goes_on_after_weights_are_set(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    model.fit(x, y, verbose=0)
    model.set_weights([np.zeros((3, 1)), np.zeros(1)])
    assert np.isclose(model.evaluate(x, y, verbose=0)[0], (y**2).mean(), rtol=1e-5)
    model.fit(x, y, batch_size=40, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], descend(x, y, 40, 1)[0], rtol=1e-4, atol=1e-6)


def test_arrays_got_before_a_step_stay_as_they_are(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    copies = [array.copy() for array in before]
    traced = model.trace()
    model.fit(x, y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, copies, strict=True))
    assert str(traced) == str(traced)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_a_batch_normalization_moves_its_averages(rng: np.random.Generator) -> None:
    model = Sequential([Input((4,)), layers.BatchNormalization(momentum=0.9)])
    model.compile("sgd", "mse")
    x = 3 * rng.standard_normal((50, 4)) + 1
    model.train_on_batch(x, x)
    np.testing.assert_allclose(model.layers[0].get_weights()[2], 0.1 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.layers[0].get_weights()[3], 0.9 + 0.1 * x.var(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "mean", "variance"),
    [
        (layers.Dropout(0.25), 1.0, 1 / 0.75 - 1),
        (layers.GaussianDropout(0.2), 1.0, 0.25),
        (layers.GaussianNoise(0.5), 1.0, 0.25),
        (layers.SpatialDropout1D(0.5), 1.0, 1.0),
    ],
)
def test_noise_of_layers_has_its_distribution_in_training_alone(layer: Any, mean: float, variance: float) -> None:
    x = np.ones((400, 20, 30), np.float32)

    def seen(y_true: Any, y_pred: Any) -> Any:
        return y_pred

    model = Sequential([Input((20, 30)), layer])
    model.compile("sgd", "mse", metrics=[seen, kcompile.metrics.MeanSquaredError("square")])
    found = model.train_on_batch(x, x, return_dict=True)
    assert abs(found["seen"] - mean) < 0.02
    assert abs(found["square"] - variance) < 0.05
    np.testing.assert_array_equal(model.predict(x[:2]), x[:2])
    assert model.test_on_batch(x, x, return_dict=True)["square"] == 0


def test_alpha_dropout_keeps_mean_and_variance(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2000, 50)).astype(np.float32)
    model = Sequential([Input((50,)), layers.AlphaDropout(0.3)])
    mean = kcompile.metrics.MeanMetricWrapper(lambda t, p: p, "mean")
    square = kcompile.metrics.MeanMetricWrapper(lambda t, p: p * p, "square")
    model.compile("sgd", "mse", metrics=[mean, square])
    found = model.train_on_batch(x, x, return_dict=True)
    assert abs(found["mean"]) < 0.03
    assert abs(found["square"] - 1) < 0.05


def test_every_step_draws_other_numbers(rng: np.random.Generator) -> None:
    model = Sequential([Input((50,)), layers.Dropout(0.5)])
    model.compile(kcompile.optimizers.SGD(0.1), "mse")
    x = np.ones((4, 50), np.float32)
    assert len({model.train_on_batch(x, 0 * x) for _ in range(5)}) == 5


# ---- what is refused


def test_a_model_must_be_compiled(rng: np.random.Generator) -> None:
    model = Sequential([Input((3,)), layers.Dense(1)])
    for call in (lambda: model.fit(*line(rng)), lambda: model.evaluate(*line(rng)), lambda: model.optimizer):
        with pytest.raises(
            ModelError, match=r"needs a compiled model\. Call model\.compile\(optimizer, loss\) first\."
        ):
            call()


def test_wrong_data_is_refused(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: model.fit(x[:, :2], y), InputError, "shape"),
        (lambda: model.fit(x, y[:30]), InputError, "all inputs, labels and sample weights must have the same number"),
        (lambda: model.fit(x[:0], y[:0]), InputError, "there must be at least one sample"),
        (lambda: model.fit(x), ModelError, "which need labels. Give them as `y`."),
        (lambda: model.fit(iter([(x, y)]), y), InputError, "`y` and `sample_weight` go with arrays"),
        (lambda: model.fit(iter([])), InputError, "the data must give at least one batch"),
        (lambda: model.fit(iter([(x, y, None, None)])), InputError, "a batch must be x, (x, y) or"),
        (lambda: model.fit(x, y, validation_split=1.0), InputError, "`validation_split` must be a number from 0 to"),
        (lambda: model.fit(x, y, class_weight={0: 1.0}, sample_weight=np.ones(40)), InputError, "cannot both"),
        (lambda: model.fit(3), InputError, "`x` must be arrays, or something that gives batches"),
        (lambda: model.fit(x, {"other": y}), InputError, "`y` must name outputs of the model: dense"),
    ]
    for call, kind, text in cases:
        assert text in error_of(kind, call)


def test_wrong_arguments_of_compile_are_refused(rng: np.random.Generator) -> None:
    model, (x, y) = linear(), line(rng)
    assert "an optimizer must be" in error_of(ModelError, lambda: model.compile("fastest", "mse"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"loss": "unknown"}, "a loss must be a function, a loss object, or one of"),
        ({"loss": "mse", "metrics": ["unknown"]}, "a metric must be a function, a metric object, or one of"),
        ({"loss": {"other": "mse"}}, "`loss` must name outputs of the model"),
        ({"loss": ["mse", "mse"]}, "`loss` must hold one entry for each of the outputs"),
        ({}, "there is no loss to minimize. Give `loss` to `compile`."),
    ]
    for arguments, text in cases:
        model.compile("sgd", **arguments)
        assert text in error_of(ModelError, lambda: model.fit(x, y, verbose=0))


@pytest.mark.parametrize(
    ("loss", "metrics", "y", "kind", "text"),
    [
        ("mse", None, np.zeros(4), ModelError, "the loss mse must fit the labels and predictions of output `dense`"),
        ("mse", ["f1_score"], np.zeros((4, 3)), ModelError, "Received: labels f32[N, 3], predictions f32[N, 2]"),
        ("mse", ["sparse_top_k_categorical_accuracy"], np.zeros((4, 2)), ModelError, "the metric sparse_top_k"),
        ("sparse_categorical_crossentropy", None, np.array([0, 1, 2, 0]), InputError, "classes from 0 to 1"),
        ("sparse_categorical_crossentropy", None, np.array([[0], [1], [-1], [0]]), InputError, "Received: -1."),
        ("sparse_categorical_crossentropy", None, np.array([0, np.nan, 1, 0]), InputError, "Received: nan."),
    ],
)
def test_labels_that_do_not_fit_are_refused(loss: str, metrics: Any, y: Any, kind: Any, text: str) -> None:
    model = Sequential([Input((3,)), layers.Dense(2, name="dense", activation="softmax")])
    model.compile("sgd", loss, metrics=metrics)
    before = [weight.value.copy() for weight in model.weights]
    for method in (model.fit, model.evaluate):
        assert text in error_of(kind, lambda method=method: method(np.zeros((4, 3), np.float32), y, verbose=0))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.value, value)


def test_labels_that_do_not_count_may_be_anything() -> None:
    model = Sequential([Input((3,)), layers.Dense(2, activation="softmax")])
    x, y = np.zeros((3, 3), np.float32), np.array([0, 9, 1])
    model.compile("sgd", kcompile.losses.SparseCategoricalCrossentropy(ignore_class=9))
    assert math.isfinite(model.train_on_batch(x, y))
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert math.isfinite(model.train_on_batch(x, y, sample_weight=np.array([1.0, 0.0, 1.0])))


def test_callbacks_without_a_model_say_so() -> None:
    with pytest.raises(ModelError, match="EarlyStopping has no model"):
        _ = callbacks.EarlyStopping().model
