"""Losses against those of real Keras: values, reductions, weights, masks."""

from typing import Any

import keras
import numpy as np
import pytest

from kcompile.frontend.training import losses

pytestmark = pytest.mark.oracle

CLASSES = 5

# Per loss: how labels and predictions look, and arguments.
REGRESSION = [
    ("MeanSquaredError", {}),
    ("MeanAbsoluteError", {}),
    ("MeanAbsolutePercentageError", {}),
    ("MeanSquaredLogarithmicError", {}),
    ("CosineSimilarity", {}),
    ("CosineSimilarity", {"axis": 1}),
    ("Huber", {}),
    ("Huber", {"delta": 0.3}),
    ("LogCosh", {}),
    ("Poisson", {}),
]
SIGNED = [("Hinge", {}), ("SquaredHinge", {})]
ONE_HOT = [
    ("CategoricalCrossentropy", {}),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2}),
    ("CategoricalFocalCrossentropy", {}),
    ("CategoricalFocalCrossentropy", {"alpha": 0.5, "gamma": 1.5, "label_smoothing": 0.1}),
    ("CategoricalHinge", {}),
    ("KLDivergence", {}),
    ("BinaryCrossentropy", {}),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}),
    ("BinaryFocalCrossentropy", {}),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4, "gamma": 3.0, "label_smoothing": 0.1}),
    ("Dice", {}),
    ("Dice", {"axis": (1, 2)}),
    ("Tversky", {}),
    ("Tversky", {"alpha": 0.3, "beta": 0.8, "axis": (1,)}),
]
LOGITS = [
    ("CategoricalCrossentropy", {"from_logits": True}),
    ("CategoricalFocalCrossentropy", {"from_logits": True}),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}),
    ("BinaryFocalCrossentropy", {"from_logits": True}),
]
SPARSE = [
    ("SparseCategoricalCrossentropy", {}),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.3}),
]
SPARSE_LOGITS = [
    ("SparseCategoricalCrossentropy", {"from_logits": True}),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": -1}),
]
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", "mean_with_sample_weight"]


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def pair(kind: str, rng: np.random.Generator, shape: tuple[int, ...] = (6, 3)) -> tuple[np.ndarray, np.ndarray]:
    logits = 2 * rng.standard_normal((*shape, CLASSES))
    labels = rng.integers(0, CLASSES, shape)
    y_true: Any = {
        "regression": np.abs(rng.standard_normal(logits.shape)),
        "signed": rng.choice([-1.0, 1.0], logits.shape),
        "binary": rng.choice([0, 1], logits.shape),
        "one_hot": np.eye(CLASSES)[labels],
        "logits": np.eye(CLASSES)[labels],
        "sparse": labels,
        "sparse_logits": np.where(rng.random(shape) < 0.2, -1, labels),
    }[kind]
    if kind == "regression":
        return y_true.astype(np.float32), np.abs(rng.standard_normal(logits.shape)).astype(np.float32)
    y_pred = softmax(logits) if kind in ("one_hot", "sparse") else logits
    return y_true, y_pred.astype(np.float32)


CASES = [
    *(
        (kind, name, arguments)
        for kind, group in [
            ("regression", REGRESSION),
            ("signed", SIGNED),
            ("binary", SIGNED),
            ("one_hot", ONE_HOT),
            ("logits", LOGITS),
            ("sparse", SPARSE),
            ("sparse_logits", SPARSE_LOGITS),
        ]
        for name, arguments in group
    )
]


@pytest.mark.parametrize(("kind", "name", "arguments"), CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(
    kind: str, name: str, arguments: dict[str, Any], reduction: str, weighted: bool, rng: np.random.Generator
) -> None:
    y_true, y_pred = pair(kind, rng)
    ours = getattr(losses, name)(**arguments, reduction=reduction)
    theirs = getattr(keras.losses, name)(**arguments, reduction=reduction)
    shape = np.shape(theirs.call(y_true.astype("float32"), y_pred))
    weight = rng.uniform(0.1, 2.0, shape).astype(np.float32) if weighted else None
    expected = np.asarray(theirs(y_true, y_pred, sample_weight=weight))
    found = ours(y_true, y_pred, sample_weight=weight)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("remove_diagonal", [True, False])
def test_circle(reduction: str, remove_diagonal: bool, rng: np.random.Generator) -> None:
    embeddings = rng.standard_normal((8, 4)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 3])
    arguments = {"gamma": 20.0, "margin": 0.3, "remove_diagonal": remove_diagonal, "reduction": reduction}
    expected = np.asarray(keras.losses.Circle(**arguments)(labels, embeddings))
    np.testing.assert_allclose(losses.Circle(**arguments)(labels, embeddings), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("steps", "labels"), [(12, 4), (4, 4), (3, 5), (6, 1)])
def test_ctc(reduction: str, steps: int, labels: int, rng: np.random.Generator) -> None:
    logits = 3 * rng.standard_normal((6, steps, CLASSES)).astype(np.float32)
    # Few classes, so that labels repeat; zeros end them.
    y_true = rng.integers(1, 3, (6, labels)) * (np.arange(labels) < rng.integers(0, labels + 1, (6, 1)))
    expected = np.asarray(keras.losses.CTC(reduction=reduction)(y_true, logits))
    np.testing.assert_allclose(losses.CTC(reduction=reduction)(y_true, logits), expected, rtol=2e-5, atol=1e-5)


def _theirs(name: str) -> Any:
    # The registry of Keras 3.15 leaves this one out.
    return getattr(keras.losses, name) if "generalized" in name else keras.losses.get(name)


@pytest.mark.parametrize("name", sorted(losses.FUNCTIONS.keys() - {"circle", "ctc"}))
def test_functions_have_the_names_of_keras(name: str, rng: np.random.Generator) -> None:
    kind = "sparse" if name.startswith(("sparse", "categorical_generalized")) else "one_hot"
    y_true, y_pred = pair(kind, rng, (6,))
    arguments = {"q": 0.5} if "generalized" in name else {}
    expected = np.asarray(_theirs(name)(y_true, y_pred, **arguments))
    found = losses.FUNCTIONS[name](y_true, y_pred, **arguments)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)
    assert losses.get(name).name == name


@pytest.mark.parametrize(
    ("true_shape", "pred_shape"), [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3), (4, 3, 1)), ((4, 3, 1), (4, 3))]
)
def test_a_last_axis_of_extent_one_may_be_left_out(
    true_shape: tuple[int, ...], pred_shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    y_true, y_pred = rng.random(true_shape).astype(np.float32), rng.random(pred_shape).astype(np.float32)
    for name in ("MeanSquaredError", "BinaryCrossentropy", "Hinge"):
        expected = np.asarray(getattr(keras.losses, name)(reduction="none")(y_true, y_pred))
        found = getattr(losses, name)(reduction="none")(y_true, y_pred)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "name", "arguments"), CASES)
def test_keras_reads_the_configs_and_the_other_way_round(
    kind: str, name: str, arguments: dict[str, Any], rng: np.random.Generator
) -> None:
    y_true, y_pred = pair(kind, rng)
    theirs = keras.losses.serialize(getattr(keras.losses, name)(**arguments))
    read = losses.serialize(losses.get(theirs))
    assert theirs["config"].items() <= read["config"].items()
    if "Generalized" in name:
        return  # Keras 3.15 does not know it by name
    # Keras leaves some arguments out of its configs; ours must not.
    written = losses.serialize(getattr(losses, name)(**arguments))
    expected = np.asarray(getattr(keras.losses, name)(**arguments)(y_true, y_pred))
    np.testing.assert_allclose(np.asarray(keras.losses.deserialize(written)(y_true, y_pred)), expected)
