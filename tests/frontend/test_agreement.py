"""Open extents that meet: equal where Keras asks for it at run time."""

import numpy as np
import pytest

import kcompile
from kcompile.errors import InputError, ModelError
from kcompile.frontend import Functional, Input, layers
from kcompile.runtime.reference import ReferenceSession
from tests.frontend.errors import error_of


def u_net(shape: tuple[int | None, ...]) -> Functional:
    x = Input(shape)
    a = layers.Conv2D(4, 3, padding="same", kernel_initializer="ones")(x)
    b = layers.MaxPooling2D()(a)
    c = layers.AveragePooling2D(2, padding="same")(b)
    d = layers.Concatenate()([layers.UpSampling2D()(c), b])
    return Functional(x, layers.Add(name="add")([layers.Conv2DTranspose(4, 2, 2, kernel_initializer="ones")(d), a]))


@pytest.mark.parametrize("size", [(8, 8), (16, 4)])
def test_a_network_that_halves_and_doubles_takes_open_extents(size: tuple[int, int], rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    np.testing.assert_array_equal(u_net((None, None, 3)).predict(x), u_net((*size, 3)).predict(x))


def test_extents_that_do_not_meet_are_refused_before_anything_is_computed(rng: np.random.Generator) -> None:
    open_model = u_net((None, None, 3))
    assert next(iter(open_model.trace().output_types.values())).shape == ("N", "H", "W", 4)
    session = ReferenceSession(open_model.trace())
    text = error_of(InputError, lambda: session.predict(rng.normal(size=(1, 9, 8, 3)).astype(np.float32)))
    assert text == "extents must be such that 2*(H//2) is H in layer `add`. Received: H=9. Make H 8 or 12."


def test_extents_that_are_never_equal_are_refused() -> None:
    def make() -> object:
        x = Input((None, 3))
        return layers.Add(name="a")([x, layers.Cropping1D(1)(x)])

    text = error_of(ModelError, make)
    assert text.startswith("layer `a` (Add) does not accept its inputs (f32[N, T, 3], f32[N, T-2, 3]): ")


def test_extents_of_two_inputs_are_not_taken_for_each_other(rng: np.random.Generator) -> None:
    x, y = Input((None, 3)), Input((None, 3))
    model = Functional([x, y], layers.Concatenate(1)([x, layers.Add()([y, y])]))
    result = model.predict([rng.normal(size=(1, n, 3)).astype(np.float32) for n in (4, 6)])
    assert result.shape == (1, 10, 3)


@pytest.mark.parametrize(
    ("target", "fitting", "law"),
    [
        ((-1, 8), 6, "4*T is 8*(T//2) in layer `r`. Received: T=5. Make T 4 or 6."),
        ((3, 8), 6, "4*T is 24 in layer `r`. Received: T=5. Make T 6."),
        ((2, -1), 7, None),
    ],
)
def test_a_reshape_of_an_open_extent_asks_for_one_that_fits(
    target: tuple[int, int], fitting: int, law: str | None, rng: np.random.Generator
) -> None:
    x = Input((None, 4))
    session = ReferenceSession(Functional(x, layers.Reshape(target, name="r")(x)).trace())
    data = rng.normal(size=(2, fitting, 4)).astype(np.float32)
    np.testing.assert_array_equal(session.predict(data), data.reshape(2, *target))
    if law is not None:
        text = error_of(InputError, lambda: session.predict(data[:, :5]))
        assert text == f"extents must be such that {law}"


def test_a_reshape_across_the_batch_takes_as_many_rows_as_fit(rng: np.random.Generator) -> None:
    x = Input((4,))
    session = ReferenceSession(Functional(x, kcompile.ops.reshape(x, (-1, 8))).trace())
    data = rng.normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(session.predict(data), data.reshape(-1, 8))
    assert "Received: N=3. Make N 2 or 4." in error_of(InputError, lambda: session.predict(data[:3]))


def test_operations_and_layers_take_an_open_extent_for_a_fixed_one_beside_it(rng: np.random.Generator) -> None:
    x, y = Input((None, 3)), Input((5, 3))
    joined = layers.Concatenate()([kcompile.ops.maximum(x, y), layers.Multiply()([x, y])])
    session = ReferenceSession(Functional([x, y], joined).trace())
    a, b = (rng.normal(size=(2, 5, 3)).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(session.predict([a, b]), np.concatenate([np.maximum(a, b), a * b], axis=-1))
    assert "T is 5" in error_of(InputError, lambda: session.predict([a[:, :4], b]))
