"""Real trained models through both compilers, against the outputs that the Keras of their own time gave.

`make real` fetches the files and runs this group.
"""

from pathlib import Path

import numpy as np
import pytest

import kcompile
from tests.real.converters import TAUGHT
from tests.real.corpus import corpus, verified
from tests.real.loading import load

pytestmark = pytest.mark.real

TARGETS = {"onnx": ".onnx", "tvm": ".kcb"}

TOLERANCE = 1e-4
"""Of the largest output: f32 sums in another order, through tens of layers, stay two digits below it."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*verified(), *TAUGHT])
def test_compiled_model_gives_the_recorded_outputs(name: str, target: str, tmp_path: Path) -> None:
    model = corpus()[name]
    artifact = tmp_path / f"{name}{TARGETS[target]}"
    kcompile.compile(load(model), target=target, output=artifact)
    session = kcompile.load(artifact)
    inputs, recorded = model.recorded()

    assert_agree(arrays(session.predict(structured(inputs))), recorded)
    assert_agree(arrays(session.predict(structured(inputs), batch_size=1)), recorded)


def test_a_file_itself_is_run_by_the_reference() -> None:
    model = corpus()["digits_k392"]
    inputs, recorded = model.recorded()
    assert_agree(arrays(kcompile.load(model.path).predict(structured(inputs))), recorded)


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_may_be_given_by_name(target: str, tmp_path: Path) -> None:
    model = corpus()["tmseeg_3in"]
    artifact = tmp_path / f"model{TARGETS[target]}"
    kcompile.compile(model.path, target=target, output=artifact)
    inputs, recorded = model.recorded()
    backwards = dict(reversed(list(zip(model.inputs, inputs, strict=True))))
    assert_agree(arrays(kcompile.load(artifact).predict(backwards)), recorded)


def structured(inputs: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """As Keras takes them: the array itself where there is one input."""
    return inputs[0] if len(inputs) == 1 else inputs


def arrays(outputs: object) -> list[np.ndarray]:
    """As Keras gives them: one output is no list."""
    return list(outputs) if isinstance(outputs, list | tuple) else [np.asarray(outputs)]


def assert_agree(outputs: list[np.ndarray], recorded: list[np.ndarray]) -> None:
    assert [y.shape for y in outputs] == [expected.shape for expected in recorded]
    for y, expected in zip(outputs, recorded, strict=True):
        assert np.isfinite(y).all()
        largest = np.abs(expected).max()
        assert largest > 0, "a recording of zeros would prove nothing"
        assert np.abs(y - expected).max() <= TOLERANCE * largest
        if is_distribution(expected):
            np.testing.assert_array_equal(y.argmax(-1), expected.argmax(-1))


def is_distribution(y: np.ndarray) -> bool:
    """Whether the last axis holds the probabilities of classes."""
    return y.shape[-1] > 1 and bool((y >= 0).all()) and np.allclose(y.sum(-1), 1, atol=1e-3)
