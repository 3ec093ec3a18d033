"""Layers as Keras's users write them: `build` and `call` on tensors, with ``kcompile.ops``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import Input, Model, layers, ops
from kcompile.errors import ModelError


@kcompile.saving.register_keras_serializable(package="tests")
class Scaled(layers.Layer):
    """``activation(x @ w) * scale``, with a dense layer beside it."""

    def __init__(self, units: int, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = kcompile.activations.get(activation)
        self.beside = layers.Dense(units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="w")
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False, name="scale")

    def call(self, x: Any) -> Any:
        return self.activation(ops.matmul(x, self.w)) * self.scale + self.beside(x)

    def get_config(self) -> dict[str, Any]:
        activation = kcompile.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}


@pytest.fixture
def model() -> Model:
    inputs = Input((3,), name="x")
    return Model(inputs, Scaled(2, activation="tanh", name="scaled")(inputs))


X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def expected(model: Model) -> Any:
    layer = model.layers[-1]
    kernel, bias = layer.beside.get_weights()
    return np.tanh(X @ layer.w.numpy()) * 1.0 + X @ kernel + bias


def test_a_layer_computes_what_it_says(model: Model) -> None:
    assert np.allclose(model.predict(X), expected(model), atol=1e-6)


def test_its_weights_are_its_own_and_those_of_layers_inside(model: Model) -> None:
    layer = model.layers[-1]
    assert [weight.name for weight in layer.weights] == ["w", "scale", "kernel", "bias"]
    assert [weight.name for weight in layer.trainable_weights] == ["w", "kernel", "bias"]
    assert layer.count_params() == 6 + 1 + 6 + 2
    assert layer.compute_output_shape((None, 3)) == (None, 2)


def test_it_trains(model: Model) -> None:
    model.compile(kcompile.optimizers.Adam(0.05), "mse")
    before = model.get_weights()
    losses = model.fit(X, np.ones((4, 2)), epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.05 * losses[0]
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True, False, True, True]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_it_is_saved_and_loaded(model: Model, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    loaded = kcompile.load_model(path)
    assert type(loaded.layers[-1]) is Scaled
    assert np.array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_it_compiles_to_both_targets(model: Model, tmp_path: Path, target: str) -> None:
    artifact = kcompile.compile(model, target, tmp_path / ("m.onnx" if target == "onnx" else "m.kcb"))
    assert np.allclose(kcompile.load(artifact).predict(X), expected(model), atol=1e-5)


def test_classes_are_given_for_one_file(tmp_path: Path) -> None:
    class Twice(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    inputs = Input((3,))
    Model(inputs, Twice()(inputs)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="Twice"):
        kcompile.load_model(tmp_path / "m.keras")
    loaded = kcompile.load_model(tmp_path / "m.keras", custom_objects={"Twice": Twice})
    assert np.array_equal(loaded.predict(X), X * 2)


def test_the_arguments_of_init_are_the_config_where_none_is_stated() -> None:
    class Power(layers.Layer):
        def __init__(self, exponent: float, shift: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.exponent, self.shift = exponent, shift

        def call(self, x: Any) -> Any:
            return x**self.exponent + self.shift

    layer = Power(2.0, name="p")
    config = layer.get_config()
    assert config == {"name": "p", "trainable": True, "dtype": "float32", "exponent": 2.0, "shift": 1.0}
    assert np.allclose(Power.from_config(config)(X), X**2 + 1)


def test_layers_act_otherwise_in_training() -> None:
    class Noisy(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.drop = layers.Dropout(0.5, seed=1)
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

        def call(self, x: Any, training: Any = None) -> Any:
            if training:
                self.seen.assign_add(1.0)
            return self.drop(x, training=training)

    layer = Noisy()
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1)(layer(inputs)))
    model.compile("sgd", "mse")
    model.fit(X, np.ones((4, 1)), batch_size=2, epochs=3, verbose=0)
    assert float(layer.seen) == 6
    assert np.array_equal(layer(X), X)
    assert (layer(X, training=True) == 0).any()
    assert float(layer.seen) == 7


def test_a_stopped_gradient_leaves_what_lies_before_alone(tmp_path: Path) -> None:
    inputs = Input((3,))
    before, after = layers.Dense(3), layers.Dense(2)
    model = Model(inputs, after(ops.stop_gradient(before(inputs))))
    model.compile("sgd", "mse")
    first, second = before.get_weights(), after.get_weights()
    model.fit(X, np.ones((4, 2)), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, before.get_weights(), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(second, after.get_weights(), strict=True))
    kcompile.compile(model, output=tmp_path / "m.onnx")


def test_costs_are_added_to_the_loss() -> None:
    class Costly(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.k = self.add_weight(shape=(3,), initializer="ones", regularizer=kcompile.regularizers.L2(0.5))

        def call(self, x: Any) -> Any:
            self.add_loss(2.0 * ops.mean(ops.square(x)))
            return x * self.k

    inputs = Input((3,))
    model = Model(inputs, Costly(activity_regularizer=kcompile.regularizers.L1(0.1))(inputs))
    model.compile("sgd", "mse")
    loss = model.test_on_batch(X, X)
    assert np.isclose(loss, 2 * (X**2).mean() + 0.5 * 3 + 0.1 * np.abs(X).sum() / 4, rtol=1e-5)


def test_masks_reach_the_layers_that_ask() -> None:
    class Average(layers.Layer):
        def call(self, x: Any, mask: Any = None) -> Any:
            kept = ops.expand_dims(ops.cast(mask, x.dtype), -1)
            return ops.sum(x * kept, axis=1) / ops.sum(kept, axis=1)

    class Pass(layers.Layer):
        supports_masking = True

        def call(self, x: Any) -> Any:
            return x + 1.0

    class Drop(layers.Layer):
        def call(self, x: Any, mask: Any = None) -> Any:
            return x

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return ops.logical_not(mask)

    words = np.array([[1, 2, 0], [3, 0, 0]])
    inputs = Input((3,), dtype="int32")
    vectors = layers.Embedding(4, 2, mask_zero=True)
    model = Model(inputs, [Average()(Pass()(vectors(inputs))), Average()(Drop()(vectors(inputs)))])
    table = vectors.embeddings.numpy()
    kept, left_out = model.predict(words)
    assert np.allclose(kept, [(table[1] + table[2]) / 2 + 1, table[3] + 1])
    assert np.allclose(left_out, [table[0], table[0]])


def test_several_inputs_have_shapes_of_their_own() -> None:
    class Mixed(layers.Layer):
        def build(self, left_shape: Any, right_shape: Any) -> None:
            self.w = self.add_weight(shape=(left_shape[-1], right_shape[-1]), initializer="ones")

        def call(self, left: Any, right: Any) -> Any:
            return ops.sum((left @ self.w) * right, axis=-1, keepdims=True)

    class Listed(layers.Layer):
        def build(self, input_shape: Any) -> None:
            assert input_shape == [(None, 3), (None, 2)]

        def call(self, inputs: Any) -> Any:
            left, right = inputs
            return ops.concatenate([left, right], axis=-1)

    left, right = Input((3,)), Input((2,))
    model = Model([left, right], [Mixed()(left, right), Listed()([left, right])])
    found = model.predict([X, X[:, :2]])
    assert np.allclose(found[0], X.sum(-1, keepdims=True) * X[:, :2].sum(-1, keepdims=True), atol=1e-6)
    assert np.array_equal(found[1], np.concatenate([X, X[:, :2]], -1))


def test_a_subclass_of_a_built_in_layer_calls_it() -> None:
    class Doubled(layers.Dense):
        def call(self, inputs: Any) -> Any:
            found: Any = super().call(inputs)
            return found * 2.0

    layer = Doubled(2, activation="relu")
    found = layer(X)
    kernel, bias = layer.get_weights()
    assert np.allclose(found, np.maximum(X @ kernel + bias, 0) * 2, atol=1e-6)
    assert layer.kernel is layer.weights[0]


def test_lambdas_call_functions() -> None:
    inputs = Input((3,))
    scaled = layers.Lambda(lambda x, factor: x * factor + ops.mean(x), arguments={"factor": 3.0})(inputs)
    model = Model(inputs, layers.Dense(2, activation=lambda x: ops.maximum(x, 0.1))(scaled))
    kernel, bias = model.get_weights()
    assert np.allclose(model.predict(X), np.maximum((X * 3 + X.mean()) @ kernel + bias, 0.1), atol=1e-5)
    with pytest.raises(ModelError, match="holds a lambda, which no file of kcompile's does"):
        model.to_json()


def test_open_extents_are_numbers_to_shapes() -> None:
    class Pairs(layers.Layer):
        def call(self, x: Any) -> Any:
            batch, steps, features = ops.shape(x)
            assert x.shape == (None, None, 4)
            halves = ops.reshape(x, (batch, steps * 2, features // 2))
            return ops.concatenate([halves, ops.zeros((batch, steps, 2))], axis=1)

    inputs = Input((None, 4))
    model = Model(inputs, Pairs()(inputs))
    x = np.arange(24, dtype="float32").reshape(2, 3, 4)
    assert np.array_equal(model.predict(x)[:, :6], x.reshape(2, 6, 2))
    assert model.predict(x).shape == (2, 9, 2)


def test_decisions_on_elements_are_refused_with_what_to_do() -> None:
    class Deciding(layers.Layer):
        def call(self, x: Any) -> Any:
            return x if ops.sum(x) > 0 else -x

    with pytest.raises(ModelError) as raised:
        Deciding()(Input((3,)))
    law = "the elements of a symbolic tensor are not known while the graph is written"
    assert str(raised.value).startswith(f"{law}. Received: <tensor bool[]>, used as a condition of Python")
    assert str(raised.value).endswith(
        "Choose between tensors with kcompile.ops.where, and take known extents from its shape."
    )


@pytest.mark.parametrize("use", [np.sin, float, range, lambda x: 1 in x], ids=["numpy", "float", "range", "in"])
def test_other_uses_of_elements_are_refused(use: Any) -> None:
    class Using(layers.Layer):
        def call(self, x: Any) -> Any:
            use(x)
            return x

    with pytest.raises((ModelError, TypeError)):
        Using()(Input((3,)))


def test_what_is_returned_must_be_tensors() -> None:
    class Nothing(layers.Layer):
        def call(self, x: Any) -> Any:
            return None

    with pytest.raises(ModelError, match=r"`call` of layer `nothing\w*` \(Nothing\) must return tensors.*NoneType"):
        Nothing()(Input((3,)))


def test_a_layer_whose_init_is_not_finished_says_so() -> None:
    class Early(layers.Layer):
        def __init__(self) -> None:
            self.w = self.add_weight(shape=(1,))
            super().__init__()

        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelError, match=r"`__init__` of Early must call super\(\).__init__\(\) first"):
        Early()


def test_unknown_arguments_are_named() -> None:
    class Plain(layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelError, match="Received: sideways"):
        Plain(sideways=1)


def test_state_that_a_compiled_model_would_keep_is_refused(tmp_path: Path) -> None:
    class Counting(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.n = self.add_weight(shape=(), initializer="zeros", trainable=False, name="n")

        def call(self, x: Any) -> Any:
            self.n.assign(self.n + 1.0)
            return x * self.n

    inputs = Input((3,))
    model = Model(inputs, Counting(name="counting")(inputs))
    with pytest.raises(ModelError, match="`counting/n` is given a new value, but a compiled model keeps no state"):
        kcompile.compile(model, output=tmp_path / "m.onnx")


@kcompile.saving.register_keras_serializable(package="tests")
class MinimalCell(layers.Layer):
    """The cell of Keras's guide: its state is its output before the shift."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="uniform", name="kernel")
        self.inner = self.add_weight(shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel")

    def call(self, inputs: Any, states: Any) -> Any:
        state = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.inner)
        return state + 1.0, [state]


def test_cells_of_ones_own_run_over_the_steps(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    inputs = Input((5, 4))
    model = Model(inputs, layers.RNN(MinimalCell(3), return_state=True)(inputs))
    output, state = model.predict(x)
    kernel, recurrent = model.get_weights()
    expected = np.zeros((2, 3))
    for step in range(5):
        expected = x[:, step] @ kernel + expected @ recurrent
    assert np.allclose(state, expected, atol=1e-6)
    assert np.allclose(output, expected + 1, atol=1e-6)
    model.save(tmp_path / "m.keras")
    assert np.array_equal(kcompile.load_model(tmp_path / "m.keras").predict(x)[0], output)
    artifact = kcompile.compile(model, output=tmp_path / "m.onnx")
    assert np.allclose(kcompile.load(artifact).predict(x)[0], output, atol=1e-6)
    with pytest.raises(ModelError, match="a cell must say how large its states are, in `state_size`"):
        layers.RNN(Scaled(2))
