"""Metrics against those of real Keras: three batches with and without weights, then the result and a reset."""

from typing import Any

import keras
import numpy as np
import pytest

from kcompile.frontend.training import metrics

pytestmark = pytest.mark.oracle

CLASSES = 6
EVEN = [i / 10 for i in range(11)]

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("values", "Mean", {}),
    ("values", "Sum", {}),
    ("regression", "MeanSquaredError", {}),
    ("regression", "RootMeanSquaredError", {}),
    ("regression", "MeanAbsoluteError", {}),
    ("regression", "MeanAbsolutePercentageError", {}),
    ("regression", "MeanSquaredLogarithmicError", {}),
    ("regression", "CosineSimilarity", {}),
    ("regression", "LogCoshError", {}),
    ("regression", "R2Score", {}),
    ("regression", "R2Score", {"class_aggregation": None}),
    ("regression", "R2Score", {"class_aggregation": "variance_weighted_average", "num_regressors": 2}),
    ("regression", "PearsonCorrelation", {}),
    ("regression", "ConcordanceCorrelation", {}),
    ("regression", "Poisson", {}),
    ("integers", "Accuracy", {}),
    ("binary", "BinaryAccuracy", {}),
    ("binary", "BinaryAccuracy", {"threshold": 0.3}),
    ("binary", "BinaryCrossentropy", {}),
    ("binary", "BinaryCrossentropy", {"label_smoothing": 0.1}),
    ("binary", "Hinge", {}),
    ("binary", "SquaredHinge", {}),
    ("binary", "TruePositives", {}),
    ("binary", "TrueNegatives", {"thresholds": 0.4}),
    ("binary", "FalsePositives", {"thresholds": [0.2, 0.7]}),
    ("binary", "FalseNegatives", {"thresholds": EVEN}),
    ("binary", "Precision", {}),
    ("binary", "Precision", {"thresholds": [0.1, 0.6]}),
    ("binary", "Precision", {"thresholds": EVEN}),
    ("binary", "Recall", {"thresholds": 0.7}),
    ("one_hot", "Precision", {"top_k": 2}),
    ("one_hot", "Recall", {"top_k": 3, "class_id": 1}),
    ("one_hot", "Recall", {"class_id": 2, "thresholds": 0.3}),
    ("binary", "SensitivityAtSpecificity", {"specificity": 0.5}),
    ("binary", "SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 30}),
    ("binary", "PrecisionAtRecall", {"recall": 0.7, "num_thresholds": 1}),
    ("binary", "RecallAtPrecision", {"precision": 0.6}),
    ("binary", "AUC", {}),
    ("binary", "AUC", {"num_thresholds": 11, "summation_method": "majoring"}),
    ("binary", "AUC", {"thresholds": [0.1, 0.25, 0.7], "summation_method": "minoring"}),
    ("binary", "AUC", {"curve": "PR"}),
    ("binary", "AUC", {"curve": "PR", "summation_method": "minoring"}),
    ("binary", "AUC", {"curve": "PRGAIN"}),
    ("multi_label", "AUC", {"multi_label": True}),
    ("multi_label", "AUC", {"multi_label": True, "label_weights": [0.1, 0.5, 1.0, 0.2, 0.3, 0.9], "curve": "PR"}),
    ("multi_label", "AUC", {"label_weights": [0.1, 0.5, 1.0, 0.2, 0.3, 0.9]}),
    ("logits", "AUC", {"from_logits": True}),
    ("one_hot", "CategoricalAccuracy", {}),
    ("one_hot", "CategoricalCrossentropy", {"label_smoothing": 0.1}),
    ("one_hot", "CategoricalHinge", {}),
    ("one_hot", "KLDivergence", {}),
    ("one_hot", "TopKCategoricalAccuracy", {"k": 2}),
    ("one_hot", "F1Score", {}),
    ("one_hot", "F1Score", {"average": "micro", "threshold": 0.2}),
    ("one_hot", "F1Score", {"average": "macro"}),
    ("one_hot", "FBetaScore", {"average": "weighted", "beta": 2.0}),
    ("one_hot", "OneHotIoU", {"num_classes": CLASSES, "target_class_ids": [0, 2]}),
    ("one_hot", "OneHotMeanIoU", {"num_classes": CLASSES}),
    ("sparse", "SparseCategoricalAccuracy", {}),
    ("sparse", "SparseCategoricalCrossentropy", {}),
    ("sparse", "SparseCategoricalCrossentropy", {"ignore_class": 1}),
    ("sparse", "SparseTopKCategoricalAccuracy", {"k": 3}),
    ("sparse", "MeanIoU", {"num_classes": CLASSES, "sparse_y_pred": False}),
    ("integers", "IoU", {"num_classes": CLASSES, "target_class_ids": [1, 3], "ignore_class": 0}),
    ("binary_column", "BinaryIoU", {"threshold": 0.4}),
]


def batch(kind: str, rng: np.random.Generator) -> tuple[Any, ...]:
    size = 12
    scores = rng.random((size, CLASSES)).astype(np.float32)
    scores = np.round(scores, 1) if rng.random() < 0.3 else scores  # ties
    labels = rng.integers(0, CLASSES, size)
    shares = scores / scores.sum(1, keepdims=True)
    return {
        "values": (rng.standard_normal((size, 2)).astype(np.float32),),
        "regression": (rng.random((size, 3)).astype(np.float32), rng.random((size, 3)).astype(np.float32)),
        "integers": (labels, rng.integers(0, CLASSES, size)),
        "binary": (rng.integers(0, 2, (size, 1)), scores[:, :1]),
        "binary_column": (rng.integers(0, 2, size), scores[:, 0]),
        "multi_label": (rng.integers(0, 2, (size, CLASSES)), scores),
        "logits": (rng.integers(0, 2, (size, 1)), 3 * rng.standard_normal((size, 1)).astype(np.float32)),
        "one_hot": (np.eye(CLASSES, dtype=np.float32)[labels], shares),
        "sparse": (labels, shares),
    }[kind]


@pytest.mark.parametrize(("kind", "name", "arguments"), CASES, ids=[f"{k}-{n}-{a}" for k, n, a in CASES])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics(kind: str, name: str, arguments: dict[str, Any], weighted: bool, rng: np.random.Generator) -> None:
    ours, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    assert ours.name == theirs.name.removesuffix("_1") or theirs.name.rstrip("0123456789").rstrip("_") == ours.name
    for _ in range(3):
        values = batch(kind, rng)
        weights = rng.integers(1, 4, 12).astype(np.float32) if weighted else None
        theirs.update_state(*values, sample_weight=weights)
        ours.update_state(*values, sample_weight=weights)
        expected = np.asarray(theirs.result())
        found = ours.result()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    for mine, their in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(mine.value, np.asarray(their.value), rtol=2e-5, atol=1e-5)
    ours.reset_state()
    theirs.reset_state()
    np.testing.assert_allclose(ours.result(), np.asarray(theirs.result()), equal_nan=True)


@pytest.mark.parametrize(("kind", "name", "arguments"), CASES, ids=[f"{k}-{n}-{a}" for k, n, a in CASES])
def test_keras_reads_the_configs_and_the_other_way_round(
    kind: str, name: str, arguments: dict[str, Any], rng: np.random.Generator
) -> None:
    theirs = keras.metrics.serialize(getattr(keras.metrics, name)(name="own", **arguments))
    values = batch(kind, rng)
    ours = getattr(metrics, name)(name="own", **arguments)
    expected = ours(*values)
    np.testing.assert_allclose(metrics.get(theirs)(*values), expected)
    written = keras.metrics.deserialize(metrics.serialize(ours))
    np.testing.assert_allclose(np.asarray(written(*values)), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mse", "MAE", "bce", "sparse_categorical_accuracy", "AUC", "auc", "io_u"])
def test_names_of_metrics_are_those_of_keras(name: str) -> None:
    try:
        theirs = keras.metrics.get(name)
    except TypeError:
        return  # needs arguments
    assert type(metrics.get(name)).__name__ == type(theirs).__name__
