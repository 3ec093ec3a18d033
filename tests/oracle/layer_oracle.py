"""The same few lines of model run by Keras and by kcompile, with the same random weights, and compared.

A case is a function of the layers' module and the inputs' symbolic tensors, so that arguments, defaults, the order of
weights, masks and numbers are all held against Keras at once.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kcompile.frontend import layers as kcompile_layers
from kcompile.frontend.functional import Functional
from kcompile.frontend.inputs import Input
from kcompile.frontend.layer import LAYERS, Layer, reset_names
from kcompile.frontend.tracing import flatten
from kcompile.ir.evaluate import evaluate

Build = Callable[..., Any]


def random_weights(weights: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Arrays for `weights`: variances and counts positive, everything else around 0."""
    arrays: list[Any] = []
    for weight in weights:
        values = rng.normal(size=weight.shape) * 0.5
        if "variance" in weight.path or "stddev" in weight.path:
            values = np.abs(values) + 0.1
        dtype = np.dtype(str(weight.dtype))
        arrays.append(values.astype(dtype))
    return arrays


def plain(config: Any) -> Any:
    """A config as JSON holds it, with dtype policies by name."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config["config"]["name"]
        return {key: plain(value) for key, value in config.items() if key not in ("build_config", "shared_object_id")}
    return [plain(item) for item in config] if isinstance(config, list | tuple) else config


def assert_same_config(theirs: keras.layers.Layer, ours: Layer) -> None:
    """The configs are equal, and a layer made from Keras's config has the same one."""
    expected = json.loads(json.dumps(plain(theirs.get_config())))
    made = type(ours).from_config(expected)
    for layer in (ours, made):
        received = json.loads(json.dumps(plain(layer.get_config())))
        keys = sorted({*expected, *received})
        pairs = {key: (expected.get(key, "missing"), received.get(key, "missing")) for key in keys}
        different = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        assert not different, f"Keras's and kcompile's configs differ: {different}"


def leaves(structure: Any) -> list[Any]:
    """The tensors of a result, in order."""
    return list(flatten(structure))


def check(
    build: Build,
    *inputs: np.ndarray,
    shapes: Sequence[tuple[int | None, ...]] | None = None,
    rtol: float = 1e-5,
    atol: float = 5e-6,
    configs: bool = True,
    seed: int = 0,
) -> Functional:
    """Build the case with both, and compare weights' shapes, configs, masks and outputs.

    `shapes` are those of the symbolic inputs without the batch axis; by default those of the arrays.
    """
    rng = np.random.default_rng(seed)
    shapes = shapes or [array.shape[1:] for array in inputs]
    dtypes = [array.dtype.name for array in inputs]
    keras.utils.clear_session()
    reset_names()
    tensors = [keras.Input(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    theirs = keras.Model(tensors, build(keras.layers, *tensors))
    symbols = [Input(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    ours = Functional(symbols, build(kcompile_layers, *symbols))

    weights_of = [[w.shape for w in model.weights] for model in (theirs, ours)]
    assert weights_of[0] == weights_of[1], weights_of
    arrays = random_weights(theirs.weights, rng)
    theirs.set_weights(arrays)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    ours.set_weights(arrays)

    expected = leaves(theirs(inputs[0] if len(inputs) == 1 else list(inputs), training=False))
    graph = ours.trace()
    feed = dict(zip(graph.input_types, inputs, strict=True))
    received = list(evaluate(graph, feed).values())
    for symbol, theirs_out, ours_out in zip(ours.outputs, expected, received, strict=True):
        reference = np.asarray(theirs_out)
        assert ours_out.dtype == reference.dtype, (ours_out.dtype, reference.dtype)
        assert all(d in (None, n) for d, n in zip(symbol.shape, reference.shape, strict=True)), symbol
        largest = max(1.0, float(np.abs(reference).max(initial=0)))
        np.testing.assert_allclose(ours_out, reference, rtol=rtol, atol=atol * largest)
    if configs:
        # Keras adds operations of its own for masks; only its layers are compared.
        known = [layer for layer in theirs.layers if f"keras>{type(layer).__name__}" in LAYERS]
        known = [layer for layer in known if not isinstance(layer, keras.layers.InputLayer)]
        own = [layer for layer in ours.layers if type(layer).__name__ != "InputLayer"]
        by_name = {layer.name: layer for layer in own}
        for layer in known:
            assert_same_config(layer, by_name[layer.name])
    return ours
