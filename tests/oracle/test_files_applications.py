"""The architectures of keras.applications as Keras saves them, with random weights and statistics."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kcompile import frontend

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

NAMES = ["MobileNetV2", "ResNet50", "EfficientNetB0"]
TOLERANCE = 1e-4
"""Of the largest output: f32 through some 200 layers."""

# Run in a process of its own, so that its peak of memory is that of reading alone.
READING = """
import json, resource, sys, time
from kcompile.frontend import load_model
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before, start = peak(), time.process_time()
model = load_model(sys.argv[1])
model.trace()
seconds = time.process_time() - start
weights = sum(weight.value.nbytes for weight in model.weights)
print(json.dumps({"seconds": seconds, "copies": (peak() - before) / weights}))
"""


@pytest.fixture(scope="module", params=NAMES)
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, request.param)(weights=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            statistics = [rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape), rng.uniform(0.5, 1.5, shape)]
            layer.set_weights([rng.uniform(0.5, 1.5, shape), *statistics])
    path = tmp_path_factory.mktemp("applications") / f"{request.param}.keras"
    model.save(path)
    return model, path


def test_application_is_read_and_agrees(application: tuple[keras.Model, Path], rng: np.random.Generator) -> None:
    model, path = application
    x = rng.uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    got, expected = frontend.load_model(path).predict(x), model.predict(x, verbose=0)
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert got.argmax() == expected.argmax()


def test_reading_takes_under_two_seconds_and_two_copies_of_the_weights(
    application: tuple[keras.Model, Path],
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READING, str(application[1])], capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert measured["seconds"] < 2.0
    assert measured["copies"] < 2.0


def test_summary_of_an_application_is_keras_own(application: tuple[keras.Model, Path]) -> None:
    model, path = application
    texts: list[str] = []
    model.summary(line_length=78, print_fn=lambda text, **_: texts.append(text.rstrip()))
    frontend.load_model(path).summary(line_length=78, print_fn=texts.append)
    assert texts[1] == texts[0]
