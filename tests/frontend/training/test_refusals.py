"""What training refuses names the argument and what was received."""

from typing import Any

import numpy as np
import pytest

from kcompile import Input, Model, Sequential, layers
from kcompile.callbacks import TerminateOnNaN
from kcompile.errors import InputError, ModelError

X = np.ones((8, 3), "float32")
Y = np.ones((8, 2), "float32")


def regression() -> Model:
    model = Sequential([Input((3,), name="x"), layers.Dense(2, name="y")])
    model.compile("sgd", "mse")
    return model


def classification() -> Model:
    model = Sequential([Input((3,), name="x"), layers.Dense(4, activation="softmax", name="y")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer above 0. Received: batch_size=0."),
        ({"batch_size": "8"}, "`batch_size` must be an integer above 0. Received: batch_size='8'."),
        ({"epochs": -1}, "`epochs` must be an integer from 0 on. Received: epochs=-1."),
        ({"epochs": 1.5}, "`epochs` must be an integer from 0 on. Received: epochs=1.5."),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` must be an integer above 0. Received: steps_per_epoch=0."),
        (
            {"validation_split": 1.5},
            "`validation_split` must be a number from 0 to below 1. Received: validation_split=1.5.",
        ),
        ({"class_weight": [1, 2]}, "`class_weight` must be a dict of weights by class. Received: class_weight=[1, 2]."),
        (
            {"callbacks": ["stop"]},
            "`callbacks` must be a callback or a list of callbacks. Received: callbacks=['stop'].",
        ),
        (
            {"batch_size": 0, "epochs": "3"},
            "`batch_size` must be an integer above 0. Received: batch_size=0.\n"
            "`epochs` must be an integer from 0 on. Received: epochs='3'.",
        ),
    ],
)
def test_arguments_of_another_kind_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as raised:
        regression().fit(X, Y, verbose=0, **options)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.arange(8), "labels of output `y` must be classes from 0 to 3 for the loss sparse_categorical_crossentropy"),
        (np.full(8, 0.5), "labels of output `y` must be classes from 0 to 3"),
        (np.full(8, -1), "Received: -1."),
        (np.array(["a"] * 8), "labels of output `y` must be numbers. Received: dtype <U1. Map classes to 0, 1, 2"),
        (np.zeros(7), "all inputs, labels and sample weights must have the same number of samples"),
    ],
    ids=["large", "parts", "negative", "texts", "few"],
)
def test_labels_that_are_no_classes_are_refused(labels: Any, text: str) -> None:
    with pytest.raises(InputError) as raised:
        classification().fit(X, labels, verbose=0)
    assert text in str(raised.value)


def test_labels_of_another_shape_are_refused_with_both_types() -> None:
    with pytest.raises(ModelError) as raised:
        regression().fit(X, np.ones((8, 3)), verbose=0)
    law = "the loss mse must fit the labels and predictions of output `y`"
    assert str(raised.value).startswith(f"{law}. Received: labels f32[N, 3], predictions f32[N, 2]")


def test_a_loss_that_is_no_number_is_told_once_with_its_cause() -> None:
    with pytest.warns(
        UserWarning, match=r"the loss is NaN from step 2 of epoch 1 on. Received: `x` \(x\) holds NaN"
    ) as seen:
        regression().fit(
            np.where(np.arange(8)[:, None] < 4, X, np.nan), Y, batch_size=4, epochs=2, verbose=0, shuffle=False
        )
    assert len(seen) == 1
    model = regression()
    model.compile("sgd", "mse")
    model.set_weights([np.full((3, 2), np.inf), np.zeros(2)])
    with pytest.warns(UserWarning, match="all data is finite; the learning rate may be too large"):
        model.fit(X - 1, Y, verbose=0)
    with pytest.raises(ModelError, match="the loss must be a finite number"):
        regression().fit(X * np.nan, Y, verbose=0, callbacks=[TerminateOnNaN(raise_error=True)])


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="there must be at least one sample"):
        regression().fit(X[:0], Y[:0], verbose=0)
    with pytest.raises(InputError, match="the data must give at least one batch"):
        regression().fit(iter([]), verbose=0)
