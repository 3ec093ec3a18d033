"""The architectures of keras.applications as Keras saves them, with random weights and statistics, compiled.

`make oracle` runs the small ones, `make applications` the others, which take up to 10 GB of memory and an hour.
"""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kcompile
from kcompile import frontend

pytestmark = pytest.mark.oracle

SMALL = {"MobileNetV2": 64, "EfficientNetB0": 64, "ResNet50": 64, "NASNetMobile": 64, "MobileNetV3Small": 64}
"""What every change is tested on. The numbers are heights and widths of images, least where a network is large."""

LARGE = {
    **dict.fromkeys(["VGG16", "VGG19", "MobileNet", "MobileNetV3Large"], 64),
    **dict.fromkeys(["ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"], 64),
    **dict.fromkeys(["DenseNet121", "DenseNet169", "DenseNet201"], 64),
    **dict.fromkeys(["Xception", "InceptionV3", "InceptionResNetV2", "NASNetLarge"], 96),
    **dict.fromkeys([f"EfficientNetB{i}" for i in range(1, 8)], 64),
    **dict.fromkeys([f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")], 64),
    **dict.fromkeys([f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")], 64),
}
SIZES = {**SMALL, **LARGE}
TARGETS = {"onnx": ".onnx", "tvm": ".kcb"}
TOLERANCE = 1e-4
"""Of the largest output: f32 through hundreds of layers."""

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


def test_every_architecture_is_listed() -> None:
    builders = {name for name, value in vars(keras.applications).items() if callable(value)}
    assert builders == set(SIZES)


def randomised(model: keras.Model, rng: np.random.Generator) -> keras.Model:
    """Statistics and scales at random, so that no normalization is the identity and no layer scale near zero."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            arrays = [rng.normal(0, 0.3, weight.shape) for weight in layer.weights]
            arrays = [np.abs(array) / 2 + 0.3 for array in arrays[:1]] + arrays[1:-1] + [np.abs(arrays[-1]) + 0.6]
            layer.set_weights(arrays)
        elif type(layer).__name__ == "LayerScale":
            layer.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in layer.weights])
    return model


def build(name: str, size: int, classes: int = 10) -> keras.Model:
    """The architecture up to its logits: with random weights, its probabilities are 0 and 1 to the last digits."""
    keras.utils.set_random_seed(1)
    keras.utils.clear_session()
    builder = getattr(keras.applications, name)
    model = builder(weights=None, input_shape=(size, size, 3), classes=classes, classifier_activation=None)
    return randomised(model, np.random.default_rng(0))


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_an_application_is_compiled_for_both_targets(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    model = build(name, SIZES[name])
    model.save(tmp_path / "model.keras")
    x = rng.uniform(-1, 1, (2, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict(x, verbose=0)
    del model
    for target, suffix in TARGETS.items():
        artifact = kcompile.compile(tmp_path / "model.keras", target, tmp_path / f"model{suffix}")
        session = kcompile.load(artifact)
        for rows in (2, 1):
            y = session.predict(x[:rows])
            assert np.abs(y - expected[:rows]).max() <= TOLERANCE * np.abs(expected).max()
            assert (y.argmax(-1) == expected[:rows].argmax(-1)).all()


@pytest.fixture(scope="module", params=["MobileNetV2", "ResNet50", "EfficientNetB0"])
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    model = build(request.param, 224, classes=1000)
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
