"""Real trained models read, traced and run by the reference, against the outputs that the Keras of their time gave."""

import tracemalloc

import numpy as np
import pytest

from kcompile.errors import UnsupportedLayer
from kcompile.frontend import load_model
from kcompile.runtime.reference import ReferenceSession
from tests.real.converters import TAUGHT
from tests.real.corpus import CUSTOM, corpus, verified
from tests.real.loading import load

pytestmark = pytest.mark.real

TOLERANCE = 1e-4
"""Of the largest output: f32 sums in another order, through tens of layers, stay two digits below it."""


def assert_agree(outputs: list[np.ndarray], recorded: list[np.ndarray]) -> None:
    assert [y.shape for y in outputs] == [expected.shape for expected in recorded]
    for y, expected in zip(outputs, recorded, strict=True):
        assert np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", [*verified(), *TAUGHT])
def test_model_is_read_and_gives_the_recorded_outputs(name: str) -> None:
    real = corpus()[name]
    model = load(real)
    graph = model.trace()
    inputs, recorded = real.recorded()
    outputs = ReferenceSession(graph, model.signature(graph)).predict_named(inputs)
    assert list(model.match_inputs(inputs)) == list(graph.input_types)
    assert_agree(list(outputs.values()), recorded)


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_code_is_refused_and_all_classes_are_named(name: str) -> None:
    with pytest.raises(UnsupportedLayer) as raised:
        load(corpus()[name], taught=False)
    wanted = ", ".join(f'@kcompile.register_layer("{cls}")' for cls in CUSTOM[name])
    assert f"\n  Register a converter with {wanted}, or see `kcompile layers`." in str(raised.value)


@pytest.mark.parametrize("name", ["fer_emotion", "tempocnn_cnn", "tmseeg_3in"])
def test_reading_takes_no_second_copy_of_the_weights(name: str) -> None:
    path = corpus()[name].path
    load_model(path)
    tracemalloc.start()
    model = load_model(path)
    model.trace()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * sum(weight.value.nbytes for weight in model.weights) + (8 << 20)
