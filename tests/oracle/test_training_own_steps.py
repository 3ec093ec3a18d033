"""Steps of users' own against Keras: as written where Keras takes them so, elsewhere as the same maths in JAX."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import pytest

import kcompile
from tests.oracle.training_pairs import classes_data, compare_training, mlp, twin

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.normal(size=(24, 1)).astype("float32")
BATCHES = [slice(i, i + 8) for i in range(0, 24, 8)]


def losing(k: Any, base: Any) -> Any:
    """A model with a loss, metrics and logs of its own, and costs of layers, as Keras's documentation writes them."""

    class Losing(base):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.hidden = k.layers.Dense(4, activation="relu", activity_regularizer="l2", kernel_regularizer="l1")
            self.norm = k.layers.BatchNormalization()
            self.first, self.second = k.layers.Dense(1), k.layers.Dense(2)
            self.penalty = k.metrics.Mean(name="penalty")
            self.largest = k.metrics.MeanAbsoluteError(name="first_mae")

        def call(self, x: Any, training: bool = False) -> Any:
            x = self.norm(self.hidden(x), training=training)
            self.add_loss(0.1 * k.ops.mean(k.ops.square(x)))
            return {"a": self.first(x), "b": self.second(x)}

        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True) -> Any:
            penalty = k.ops.mean(k.ops.abs(y_pred["a"])) * (0.5 if training else 2.0)
            self.penalty.update_state(penalty)
            return super().compute_loss(x, y, y_pred, sample_weight) + penalty + 0.01 * k.ops.sum(x) / 24

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            found = super().compute_metrics(x, y, y_pred, sample_weight)
            self.largest.update_state(y["a"], y_pred["a"])
            found["first_mae"] = self.largest.result()
            return {**found, "twice": 2.0 * found["loss"]}

    model = Losing()
    model.compile(
        k.optimizers.Adam(0.01, clipnorm=1.0),
        loss={"a": "mse", "b": "mae"},
        loss_weights={"a": 2.0, "b": 0.5},
        metrics={"b": ["mse"]},
        weighted_metrics={"a": ["mae"]},
    )
    model(X[:2])
    return model


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_metrics_of_a_models_own_give_the_same_logs(weighted: bool) -> None:
    theirs, ours = losing(keras, keras.Model), losing(kcompile, kcompile.Model)
    ours.set_weights(theirs.get_weights())
    y = {"a": Y, "b": np.concatenate([Y, -Y], 1)}
    weights = np.linspace(0.2, 2.0, 24, dtype="float32") if weighted else None
    options: dict[str, Any] = {"batch_size": 10, "epochs": 3, "shuffle": False, "verbose": 0, "sample_weight": weights}
    expected, found = (model.fit(X, y, validation_data=(X, y), **options).history for model in (theirs, ours))
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)
    for mine, their in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-4, atol=1e-5)
    logs = [model.evaluate(X, y, verbose=0, return_dict=True) for model in (theirs, ours)]
    assert sorted(logs[0]) == sorted(logs[1])
    np.testing.assert_allclose([logs[1][name] for name in logs[0]], list(logs[0].values()), rtol=1e-4)


def parts(k: Any) -> tuple[Any, Any]:
    """A critic of pictures, and a maker of them."""
    layers = k.layers
    critic = [k.Input((4, 4, 1)), layers.Conv2D(4, 3, strides=2, padding="same"), layers.LeakyReLU(negative_slope=0.2)]
    maker = [k.Input((6,)), layers.Dense(2 * 2 * 3), layers.Reshape((2, 2, 3)), layers.BatchNormalization()]
    maker.append(layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"))
    return k.Sequential([*critic, layers.GlobalMaxPooling2D(), layers.Dense(1)]), k.Sequential(maker)


class Adversarial(kcompile.Model):
    """The step of Keras's guide on generative adversarial networks; noise is a function of the pictures."""

    def __init__(self, critic: Any, maker: Any) -> None:
        super().__init__()
        self.critic, self.maker = critic, maker
        self.trackers = [kcompile.metrics.Mean(name="d_loss"), kcompile.metrics.Mean(name="g_loss")]

    @property
    def metrics(self) -> Any:
        return self.trackers

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:  # type: ignore[override]
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def train_step(self, data: Any) -> Any:
        ops = kcompile.ops
        pictures, noise = data
        batch = ops.shape(pictures)[0]
        both = ops.concatenate([self.maker(noise), pictures], axis=0)
        labels = ops.concatenate([ops.ones((batch, 1)), ops.zeros((batch, 1))], axis=0)
        with kcompile.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.critic(both))
        weights = self.critic.trainable_weights
        self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)
        with kcompile.GradientTape() as tape:
            g_loss = self.loss_fn(ops.zeros((batch, 1)), self.critic(self.maker(noise, training=True)))
        weights = self.maker.trainable_weights
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
        for tracker, value in zip(self.trackers, (d_loss, g_loss), strict=True):
            tracker.update_state(value)
        return {tracker.name: tracker.result() for tracker in self.trackers}


def values_of(weights: Any) -> list[Any]:
    return [weight.value for weight in weights]


def test_an_adversarial_step_gives_the_numbers_of_the_same_maths_in_jax(tmp_path: Path) -> None:
    critic, maker = parts(keras)
    model = Adversarial(*(twin(each, tmp_path) for each in (critic, maker)))
    model.compile(kcompile.optimizers.Adam(0.02), kcompile.optimizers.RMSprop(0.01), loss_of(kcompile))
    pictures = RNG.random((24, 4, 4, 1)).astype("float32")
    found = model.fit(pictures, X, epochs=4, batch_size=8, shuffle=False, verbose=0).history
    loss_fn, optimizers = loss_of(keras), [keras.optimizers.Adam(0.02), keras.optimizers.RMSprop(0.01)]
    trained, kept, slots = [], [], []
    for part, optimizer in zip((critic, maker), optimizers, strict=True):
        optimizer.build(part.trainable_variables)
        trained.append(values_of(part.trainable_variables))
        kept.append(values_of(part.non_trainable_variables))
        slots.append(values_of(optimizer.variables))

    def d_loss(variables: Any, both: Any, labels: Any) -> Any:
        return loss_fn(labels, critic.stateless_call(variables, kept[0], both)[0])

    def g_loss(variables: Any, noise: Any) -> Any:
        made, state = maker.stateless_call(variables, kept[1], noise, training=True)
        return loss_fn(np.zeros((8, 1)), critic.stateless_call(trained[0], kept[0], made)[0]), state

    expected: list[list[float]] = []
    for rows in BATCHES * 4:
        made, _ = maker.stateless_call(trained[1], kept[1], X[rows])
        both, labels = np.concatenate([made, pictures[rows]]), np.repeat([[1.0], [0.0]], 8, 0)
        first, gradients = jax.value_and_grad(d_loss)(trained[0], both, labels)
        trained[0], slots[0] = optimizers[0].stateless_apply(slots[0], gradients, trained[0])
        (second, kept[1]), gradients = jax.value_and_grad(g_loss, has_aux=True)(trained[1], X[rows])
        trained[1], slots[1] = optimizers[1].stateless_apply(slots[1], gradients, trained[1])
        expected.append([float(first), float(second)])
    means = np.asarray(expected).reshape(4, 3, 2).mean(1)
    np.testing.assert_allclose(np.stack([found["d_loss"], found["g_loss"]], 1), means, rtol=1e-4)
    for mine, theirs in zip((model.critic, model.maker), trained, strict=True):
        for one, other in zip(mine.trainable_weights, theirs, strict=True):
            np.testing.assert_allclose(one.value, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.maker.non_trainable_weights[0].value, kept[1][0], rtol=1e-4, atol=1e-6)


def loss_of(k: Any) -> Any:
    return k.losses.BinaryCrossentropy(from_logits=True)


def test_gradients_of_gradients_are_those_of_jax() -> None:
    critic = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(1)])
    ours = kcompile.Sequential(
        [kcompile.Input((6,)), kcompile.layers.Dense(5, activation="tanh"), kcompile.layers.Dense(1)]
    )
    ours.set_weights(critic.get_weights())

    class Penalized(kcompile.Model):
        def __init__(self) -> None:
            super().__init__()
            self.critic = ours

        def train_step(self, data: Any) -> Any:
            ops = kcompile.ops
            with kcompile.GradientTape() as tape:
                with kcompile.GradientTape() as inner:
                    inner.watch(data)
                    y = self.critic(data, training=True)
                norm = ops.sqrt(ops.sum(ops.square(inner.gradient(y, [data])[0]), axis=[1]))
                loss = ops.mean((norm - 1.0) ** 2)
            gradients = tape.gradient(loss, self.critic.trainable_variables)
            return {"loss": loss, **{str(i): dw for i, dw in enumerate(gradients) if dw is not None}}

    def penalty(variables: Any) -> Any:
        dx = jax.grad(lambda x: critic.stateless_call(variables, [], x)[0].sum())(X)
        return ((((dx**2).sum(1)) ** 0.5 - 1.0) ** 2).mean()

    model = Penalized()
    model.compile()
    found = model.train_on_batch(X, return_dict=True)
    loss, gradients = jax.value_and_grad(penalty)(values_of(critic.trainable_variables))
    assert np.isclose(found.pop("loss"), loss, rtol=1e-5)
    assert sorted(found) == ["0", "1", "2"]  # the last bias does not matter
    for name, dw in found.items():
        np.testing.assert_allclose(dw, gradients[int(name)], rtol=1e-4, atol=1e-6)


def several(k: Any) -> Any:
    optimizers = k.optimizers
    # A Sequential that Keras loads has paths without its name.
    first = optimizers.RMSprop(0.01, clipnorm=0.1)
    by_path = {".*bias": optimizers.SGD(0.1, momentum=0.9), "(sequential[^/]*/)?dense(_[0369])?/kernel": first}
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(0.01), by_path), loss_scale_factor=8.0)


def test_several_optimizers_make_the_same_steps(rng: np.random.Generator, tmp_path: Path) -> None:
    def compile_with(module: Any) -> dict[str, Any]:
        return {"optimizer": several(module), "loss": "sparse_categorical_crossentropy"}

    compare_training(mlp, compile_with, classes_data(rng), tmp_path)


@pytest.mark.parametrize("saver", ["keras", "kcompile"])
def test_training_with_several_optimizers_goes_on_from_a_file(
    saver: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    batches = classes_data(rng)[:6]
    first: Any = mlp() if saver == "keras" else twin(mlp(), tmp_path)
    first.compile(several(keras if saver == "keras" else kcompile), "sparse_categorical_crossentropy")
    for batch in batches[:3]:
        first.train_on_batch(*batch)
    first.save(tmp_path / "m.keras")
    theirs, ours = keras.models.load_model(tmp_path / "m.keras"), kcompile.load_model(tmp_path / "m.keras")
    for mine, their in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(mine.value), np.asarray(their.value), err_msg=mine.name)
    for batch in batches[3:]:
        assert np.isclose(ours.train_on_batch(*batch), theirs.train_on_batch(*batch), rtol=1e-5)


def test_weights_have_the_paths_of_keras() -> None:
    def made(k: Any) -> Any:
        class Block(k.layers.Layer):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.inside = k.layers.Dense(2, name="inside")

            def call(self, x: Any) -> Any:
                return self.inside(x)

        class Whole(k.Model):
            def __init__(self, stack: Any, graph: Any) -> None:
                super().__init__(name="whole")
                self.graph, self.stack, self.block = graph, stack, Block(name="block")

            def call(self, x: Any) -> Any:
                return self.block(self.graph(self.stack(x)))

        stack = k.Sequential([k.Input((6,)), k.layers.Dense(3, name="low"), Block(name="inner")], name="stack")
        inputs = k.Input((2,))
        graph = k.Model(inputs, k.layers.Dense(2, name="high")(inputs), name="graph")
        model = Whole(stack, graph)
        model(X)
        return model

    from kcompile.frontend.training.paths import weight_paths

    ours = made(kcompile)
    assert [weight_paths(ours)[weight] for weight in ours.weights] == [weight.path for weight in made(keras).weights]


@pytest.fixture
def mixed_float16() -> Iterator[None]:
    for k in (keras, kcompile):
        k.mixed_precision.set_global_policy("mixed_float16")
    yield
    for k in (keras, kcompile):
        k.mixed_precision.set_global_policy("float32")


@pytest.mark.usefixtures("mixed_float16")
def test_mixed_precision_scales_the_loss_as_keras_does(rng: np.random.Generator) -> None:
    def made(k: Any) -> Any:
        hidden = k.layers.Dense(16, activation="relu")
        model = k.Sequential([k.Input((8,)), hidden, k.layers.Dense(4, activation="softmax", dtype="float32")])
        model.compile(k.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    theirs, ours = made(keras), made(kcompile)
    ours.set_weights(theirs.get_weights())
    assert type(ours.optimizer).__name__ == type(theirs.optimizer).__name__ == "LossScaleOptimizer"
    for batch in classes_data(rng)[:8]:
        assert np.allclose(ours.train_on_batch(*batch), theirs.train_on_batch(*batch), rtol=2e-3)
    assert float(ours.optimizer.dynamic_scale.value) == float(theirs.optimizer.dynamic_scale.value)
    for mine, their in zip(ours.weights, theirs.weights, strict=True):
        assert mine.dtype == "float32"
        np.testing.assert_allclose(mine.value, their.value, rtol=0, atol=5e-3)
