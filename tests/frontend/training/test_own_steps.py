"""Steps that subclasses of models say themselves: `train_step`, `predict_step`, `compute_loss` and so on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers, ops
from kcompile.errors import InputError, KCompileError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = RNG.normal(size=(20, 1)).astype("float32")


class Plain(kcompile.Model):
    """The step of Keras's guide, word by word but for the tape."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with kcompile.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply(gradients, trainable_vars)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class Traced(kcompile.Model):
    """Steps that say what the defaults do."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        return super().predict_step(data)


class Losing(kcompile.Model):
    """A loss that says what the default does, which is traced beside the weights in one vector."""

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        return super().compute_loss(x, y, y_pred, sample_weight)


def made(cls: Any, **compile_with: Any) -> Any:
    kcompile.utils.set_random_seed(3)
    inputs = kcompile.Input((3,))
    x = layers.Dense(6, activation="relu", kernel_regularizer="l2", activity_regularizer="l1", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Dropout(0.2, name="drop")(x))
    outputs = layers.Dense(1, kernel_constraint=kcompile.constraints.MaxNorm(0.5), name="last")(x)
    model = cls(inputs, outputs)
    model.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"]} | compile_with)
    return model


@pytest.mark.parametrize("cls", [Traced, Losing])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: kcompile.optimizers.Adam(0.01),
        lambda: kcompile.optimizers.Adam(0.01, clipnorm=0.1, use_ema=True),
        lambda: kcompile.optimizers.LossScaleOptimizer(kcompile.optimizers.SGD(0.1, momentum=0.9)),
        lambda: kcompile.optimizers.SGD(0.1, gradient_accumulation_steps=2, loss_scale_factor=8.0),
    ],
)
def test_steps_that_say_what_the_defaults_do_give_their_numbers(cls: Any, optimizer: Callable[[], Any]) -> None:
    weights = np.linspace(0.5, 2.0, 20)
    models: list[Any] = []
    runs: list[dict[str, Any]] = []
    for each in (kcompile.Model, cls):
        models.append(made(each, optimizer=optimizer(), weighted_metrics=["mse"]))
        data = {"sample_weight": weights, "validation_data": (X, Y, weights)}
        runs.append(models[-1].fit(X, Y, 8, 3, 0, **data).history)
    assert runs[0].keys() == runs[1].keys()
    for name, values in runs[0].items():
        np.testing.assert_allclose(runs[1][name], values, rtol=1e-5, err_msg=name)
    for mine, theirs in zip(models[1].get_weights(), models[0].get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(models[1].predict(X), models[0].predict(X), rtol=1e-4, atol=1e-6)


def test_the_step_of_the_guide_descends_by_the_gradient() -> None:
    model = Plain(inputs := kcompile.Input((3,)), layers.Dense(1)(inputs))
    model.compile(kcompile.optimizers.SGD(0.1), "mse", metrics=["mae"])
    w, b = model.get_weights()
    errors = []
    for _ in range(3):
        error = X @ w + b - Y
        errors.append((error**2).mean())
        w, b = w - 0.1 * 2 * X.T @ error / len(X), b - 0.1 * 2 * error.mean(0)
    history = model.fit(X, Y, batch_size=20, epochs=3, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], errors, rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-4, atol=1e-6)
    assert sorted(history) == ["loss", "mae"]
    loss, mae = model.evaluate(X, Y, verbose=0)
    assert np.isclose(mae, np.abs(X @ w + b - Y).mean(), rtol=1e-5)
    assert np.isclose(loss, ((X @ w + b - Y) ** 2).mean(), rtol=1e-5)


class Pair(kcompile.Model):
    """Two parts with an optimizer each, and no `call`, as adversarial networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = kcompile.Sequential([kcompile.Input((3,)), layers.Dense(1)])
        self.maker = kcompile.Sequential([kcompile.Input((3,)), layers.Dense(3)])
        self.critic_tracker = kcompile.metrics.Mean(name="critic_loss")

    @property
    def metrics(self) -> Any:
        return [self.critic_tracker]

    def compile(self, critic_optimizer: Any, maker_optimizer: Any) -> None:  # type: ignore[override]
        super().compile()
        self.critic_optimizer, self.maker_optimizer = critic_optimizer, maker_optimizer

    def train_step(self, data: Any) -> Any:
        batch = ops.shape(data)[0]
        fake = self.maker(kcompile.random.normal((batch, 3)))
        with kcompile.GradientTape() as tape:
            predictions = self.critic(ops.concatenate([fake, data], axis=0))
            labels = ops.concatenate([ops.ones((batch, 1)), ops.zeros((batch, 1))], axis=0)
            loss = ops.mean(ops.square(predictions - labels))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with kcompile.GradientTape() as tape:
            cost = ops.mean(ops.square(self.critic(self.maker(data))))
        weights = self.maker.trainable_weights
        self.maker_optimizer.apply_gradients(zip(tape.gradient(cost, weights), weights, strict=True))
        self.critic_tracker.update_state(loss, sample_weight=batch)
        return {"critic_loss": self.critic_tracker.result(), "maker_loss": cost}


def test_two_optimizers_change_their_parts_in_turn() -> None:
    model = Pair()
    model.compile(kcompile.optimizers.SGD(0.1), kcompile.optimizers.SGD(0.1))
    (w, b), (v, c) = model.critic.get_weights(), model.maker.get_weights()
    kcompile.utils.set_random_seed(0)
    logs = model.fit(X, epochs=1, batch_size=20, shuffle=False, verbose=0).history
    new_w, new_b = model.critic.get_weights()
    # What the maker's gradient sees is the critic after its step.
    made = X @ v + c
    cost = made @ new_w + new_b
    dmade = 2 * cost / len(X) @ new_w.T
    np.testing.assert_allclose(logs["maker_loss"], [(cost**2).mean()], rtol=1e-5)
    np.testing.assert_allclose(model.maker.get_weights()[0], v - 0.1 * X.T @ dmade, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.maker.get_weights()[1], c - 0.1 * dmade.sum(0), rtol=1e-4, atol=1e-6)
    assert not np.array_equal(w, new_w)
    assert not np.array_equal(b, new_b)
    first, second = (model.train_on_batch(X) for _ in range(2))
    assert first != second
    with pytest.raises(ModelError, match="no `call` that says what it computes"):
        model.predict(X)


def test_an_interrupted_fit_with_two_optimizers_comes_to_the_same_numbers(tmp_path: Path) -> None:
    def fitted(*callbacks: Any) -> Pair:
        kcompile.utils.set_random_seed(5)
        model = Pair()
        model.compile(kcompile.optimizers.Adam(0.1), kcompile.optimizers.RMSprop(0.1, momentum=0.5))
        model.fit(X, epochs=4, batch_size=8, verbose=0, callbacks=list(callbacks))
        return model

    def fail(batch: int, logs: Any) -> None:
        if batch == 1 and (tmp_path / "backup").exists() and any((tmp_path / "backup").iterdir()):
            raise KeyboardInterrupt

    whole, stop = fitted(), kcompile.callbacks.LambdaCallback(on_train_batch_end=fail)
    backup = {"backup_dir": tmp_path / "backup", "save_freq": 2}
    with pytest.raises(KeyboardInterrupt):
        fitted(kcompile.callbacks.BackupAndRestore(**backup), stop)
    resumed = fitted(kcompile.callbacks.BackupAndRestore(**backup))
    for mine, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


class Gradients(kcompile.Model):
    """Logs what it takes gradients of, of one weight."""

    def __init__(self, write: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.write = write
        self.w = self.add_weight(shape=(2,), initializer="ones", name="w")
        self.v = self.add_weight(shape=(2,), initializer="ones", name="v")

    def train_step(self, data: Any) -> Any:
        return self.write(self, data)


def logs_of(write: Callable[[Any, Any], Any], x: Any = (1.0, 2.0)) -> dict[str, Any]:
    model = Gradients(write)
    model.compile()
    return model.train_on_batch(np.asarray([x], "float32"), return_dict=True)


def test_what_was_computed_before_a_tape_is_constant_to_it() -> None:
    def write(model: Any, x: Any) -> Any:
        before = ops.sum(model.w * 3.0)
        with kcompile.GradientTape() as tape:
            loss = before * ops.sum(model.w * x)
        return {"dw": tape.gradient(loss, model.w)}

    assert np.array_equal(logs_of(write)["dw"], [6.0, 12.0])


def test_gradients_are_by_the_values_that_a_tape_saw() -> None:
    def write(model: Any, x: Any) -> Any:
        model.w.assign(model.w * 2.0)
        with kcompile.GradientTape() as tape:
            loss = ops.sum(model.w**3.0)
        model.w.assign(model.w * 0.0)
        dw, (dv, dx) = tape.gradient(loss, [model.w, (model.v, x)])
        assert dv is None
        assert dx is None
        zeros = tape.gradient(loss, {"v": model.v}, unconnected_gradients="zero")
        return {"dw": dw, "w": model.w, **zeros}

    found = logs_of(write)
    assert np.array_equal(found["dw"], [12.0, 12.0])
    assert np.array_equal(found["w"], [0.0, 0.0])
    assert np.array_equal(found["v"], [0.0, 0.0])


def test_tapes_stand_in_each_other_for_gradients_of_gradients() -> None:
    def write(model: Any, x: Any) -> Any:
        with kcompile.GradientTape() as outer:
            with kcompile.GradientTape(persistent=True) as inner:
                inner.watch(x)
                y = model.w * x**3.0
            dx = inner.gradient(y, x)
            again = inner.gradient(y, model.w, output_gradients=ops.ones_like(y) * 2.0)
            cost = ops.sum(dx**2.0)
        return {"dw": outer.gradient(cost, model.w), "dx": ops.sum(dx, 0), "again": again}

    found = logs_of(write)
    assert np.allclose(found["dx"], [3.0, 12.0])
    assert np.allclose(found["dw"], [2 * 9.0, 2 * 144.0])
    assert np.allclose(found["again"], [2.0, 16.0])


def test_costs_of_a_layer_are_those_of_its_last_call() -> None:
    class Costly(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.sum(x))
            return x * 2.0

    class Counting(kcompile.Model):
        def __init__(self) -> None:
            super().__init__()
            self.costly = Costly()
            self.dense = layers.Dense(1, kernel_initializer="ones", kernel_regularizer=kcompile.regularizers.L2(0.5))

        def train_step(self, data: Any) -> Any:
            self.costly(data)
            self.dense(self.costly(data * 3.0))
            found = {f"cost_{i}": cost for i, cost in enumerate(self.losses)}
            return {**found, "inside": sum(self.costly.losses)}

    model = Counting()
    model.compile()
    logs = model.train_on_batch(np.ones((2, 3), "float32"), return_dict=True)
    assert logs == {"cost_0": 18.0, "cost_1": 1.5, "inside": 18.0}


def test_metrics_of_a_models_own_are_among_its_logs_and_begin_anew_each_epoch() -> None:
    class Watching(kcompile.Model):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen = {"sum": kcompile.metrics.Sum(name="seen")}

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            self.seen["sum"].update_state(ops.ones_like(y))
            return {**super().compute_metrics(x, y, y_pred, sample_weight), "nested": {"twice": 2.0}}

    model = made(Watching)
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    assert history["seen"] == [20.0, 20.0]
    assert history["twice"] == [2.0, 2.0]
    assert sorted(history) == ["loss", "mae", "seen", "twice"]
    assert model.metrics_names == ["loss", "mae", "seen"]
    assert len(model.evaluate(X, Y, verbose=0)) == 4


def test_data_keeps_the_structure_that_it_is_given_in() -> None:
    seen: list[Any] = []

    class Structured(kcompile.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs["a"]) + ops.cast(inputs["b"], "float32")

        def train_step(self, data: Any) -> Any:
            x, (first, second), weights = data
            seen.append((x["a"].shape, x["b"].dtype, first.dtype, second.dtype, weights.shape))
            return {"loss": ops.mean(self(x, training=True) * weights)}

        def predict_step(self, data: Any) -> Any:
            found = self(data)
            return {"twice": found * 2.0, "parts": [found, data["b"]]}

    model = Structured()
    model.compile()
    x = {"a": X.astype("float64"), "b": np.arange(20)[:, None]}
    y = (Y.astype("float64"), np.arange(20))
    model.fit(x, y, sample_weight=np.ones((20, 1)), batch_size=8, verbose=0)
    assert seen == [((None, 3), "int64", "float32", "int32", (None, 1))]
    found = model.predict(x, batch_size=7)
    assert np.array_equal(found["twice"], 2 * found["parts"][0])
    assert np.array_equal(found["parts"][1], x["b"])
    one = model.predict_on_batch(x)
    np.testing.assert_allclose(one["twice"], found["twice"], rtol=1e-6)


def test_generators_and_weights_of_classes_reach_a_step() -> None:
    class Weighing(Plain):
        def train_step(self, data: Any) -> Any:
            *_, weights = data
            return {"loss": ops.sum(weights) if len(data) == 3 else ops.sum(data[0])}

    model = made(Weighing)
    labels = np.asarray([0, 1, 1, 0])
    logs = model.fit(X[:4], labels, class_weight={0: 2.0, 1: 0.5}, verbose=0).history
    assert logs["loss"] == [5.0]
    logs = model.fit(((X[:4], Y[:4]) for _ in range(2)), verbose=0).history
    assert np.isclose(logs["loss"][0], X[:4].sum(), rtol=1e-5)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "condition": (lambda model, x: {"loss": 1.0 if ops.sum(x) > 0 else 0.0}, "elements of a symbolic tensor"),
    "numpy": (lambda model, x: {"loss": np.mean(x)}, "used as an argument of numpy.mean"),
    "item": (lambda model, x: {"loss": x.numpy()}, "`train_step` of Gradients must be written with kcompile.ops"),
    "no_logs": (lambda model, x: ops.sum(x), "must return a dict of what the logs say"),
    "text": (lambda model, x: {"loss": "low"}, "`loss`, which `train_step` returns, must return a tensor"),
    "missing": (lambda model, x: model.optimizer.apply([None, None], [model.w, model.v]), "None for all weights"),
    "count": (lambda model, x: model.optimizer.apply([x], [model.w, model.v]), "1 gradients for 2 weights"),
    "not_entered": (lambda model, x: kcompile.GradientTape().gradient(x, x), "a tape that this step has not entered"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_graph_cannot_say_is_refused(case: str) -> None:
    write, law = REFUSED[case]
    with pytest.raises(KCompileError, match=law):
        logs_of(write)


def test_weights_that_an_optimizer_was_not_built_for_are_refused_and_missing_gradients_warned_of() -> None:
    def unknown(model: Any, x: Any) -> Any:
        model.optimizer.apply([x[0]], [model.w])
        model.optimizer.apply([x[0]], [model.v])

    with pytest.raises(ModelError, match=r"that it was built for. Received: `v` \[2\]"):
        logs_of(unknown)

    def missing(model: Any, x: Any) -> Any:
        model.optimizer.apply([x[0], None], [model.w, model.v])
        return {"w": model.w, "v": model.v}

    with pytest.warns(UserWarning, match=r"does not depend on the weights gradients.*/v, which stay"):
        found = logs_of(missing)
    assert np.array_equal(found["v"], [1.0, 1.0])
    assert not np.array_equal(found["w"], [1.0, 1.0])


def test_tapes_and_optimizers_say_where_they_belong() -> None:
    with pytest.raises(ModelError, match="a GradientTape is for the code of a step"), kcompile.GradientTape():
        pass
    with pytest.raises(ModelError, match="`apply` of an optimizer is for the code of a step"):
        kcompile.optimizers.SGD().apply([X], [])


@kcompile.saving.register_keras_serializable(package="tests")
class Halves(kcompile.Model):
    """Two parts and no `call`."""

    def __init__(self, low: Any, high: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def train_step(self, data: Any) -> Any:
        with kcompile.GradientTape() as tape:
            loss = ops.mean(ops.square(self.high(self.low(data)) - data))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.weights), self.weights, strict=True))
        return {"loss": loss}


def halves() -> Halves:
    low = kcompile.Sequential([kcompile.Input((3,)), layers.Dense(2)])
    model = Halves(low, kcompile.Sequential([kcompile.Input((2,)), layers.Dense(3)]))
    model.compile("adam")
    return model


def test_files_keep_a_model_without_a_call(tmp_path: Path) -> None:
    model = halves()
    callbacks = [
        kcompile.callbacks.ModelCheckpoint(tmp_path / "m.keras", monitor="loss"),
        kcompile.callbacks.TensorBoard(tmp_path),
    ]
    model.fit(X, epochs=2, verbose=0, callbacks=callbacks)
    model.save_weights(tmp_path / "m.weights.h5")
    other, again = halves(), kcompile.load_model(tmp_path / "m.keras")
    other.load_weights(tmp_path / "m.weights.h5")
    for weights in (other.get_weights(), again.get_weights()):
        assert all(map(np.array_equal, weights, model.get_weights()))
    assert again.train_on_batch(X) == model.train_on_batch(X)
    for refused in (model.evaluate, model.predict, model):
        with pytest.raises(ModelError, match="no `call` that says what it computes"):
            refused(X)


def test_data_of_a_step_may_be_something_else_than_the_models_input() -> None:
    class Drawing(Halves):
        def call(self, noise: Any) -> Any:
            return self.high(noise)

    model = halves()
    drawing = Drawing(model.low, model.high)
    drawing.compile("adam")
    assert drawing.fit(X, epochs=1, verbose=0).history["loss"]
    assert drawing.predict(X[:, :2]).shape == (20, 3)


def test_labels_out_of_range_are_refused_where_a_loss_takes_them_as_they_are() -> None:
    class Shifted(kcompile.Model):
        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
            return super().compute_loss(x, y - 5, y_pred, sample_weight)

    inputs = kcompile.Input((3,))
    outputs = layers.Dense(3, activation="softmax", name="scores")(inputs)
    for cls in (Losing, Shifted):
        model = cls(inputs, outputs)
        model.compile("sgd", "sparse_categorical_crossentropy")
        if cls is Shifted:
            assert model.fit(X, np.arange(20) % 3 + 5, verbose=0).history["loss"][0] > 0
        else:
            with pytest.raises(InputError, match=r"`scores` must be classes from 0 to 2 .* Received: 7"):
                model.fit(X, np.full(20, 7), verbose=0)


def test_a_loss_over_the_samples_of_a_batch_knows_their_number() -> None:
    class Contrasting(kcompile.Model):
        def train_step(self, data: Any) -> Any:
            similar = ops.matmul(data, ops.transpose(data))
            labels = ops.arange(ops.shape(data)[0])
            losses = kcompile.losses.sparse_categorical_crossentropy(labels, similar, from_logits=True)
            return {"loss": ops.mean(losses)}

    model = Contrasting(inputs := kcompile.Input((3,)), layers.Dense(1)(inputs))
    model.compile()
    for rows in (X[:8], X[8:], X[:8] * 2.0):
        similar = (rows @ rows.T).astype("float64")
        expected = np.mean(np.log(np.exp(similar).sum(1)) - np.diag(similar))
        assert np.isclose(model.train_on_batch(rows), expected, rtol=1e-5)


def test_rates_and_numbers_of_steps_are_those_of_each_step() -> None:
    class Telling(Plain):
        def train_step(self, data: Any) -> Any:
            told = {"rate": self.optimizer.learning_rate, "made": self.optimizer.iterations}
            return {**super().train_step(data), **told}

    schedule = kcompile.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.01, 0.001])
    model = made(Telling, optimizer=kcompile.optimizers.SGD(schedule))
    logs = [model.train_on_batch(X, Y, return_dict=True) for _ in range(4)]
    assert [each["made"] for each in logs] == [0, 1, 2, 3]
    assert np.allclose([each["rate"] for each in logs], [0.1, 0.1, 0.01, 0.001])
    model.compile(kcompile.optimizers.SGD(0.1), "mse")
    model.train_on_batch(X, Y)
    model.optimizer.learning_rate = 0.5
    assert model.train_on_batch(X, Y, return_dict=True)["rate"] == 0.5
