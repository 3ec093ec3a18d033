"""The same few lines of model run by Keras and by kcompile, with the same random weights, and compared.

A case is a function of the layers' module and the inputs' symbolic tensors, so that arguments, defaults, the order of
weights, masks and numbers are all held against Keras at once. `check` then goes the whole way: Keras saves the model in
both formats, kcompile reads them, and the reference and what both targets compile give Keras's numbers for batches of
several sizes. `check_files` does that part alone, for models that only Keras can build.

Compiling takes ten times as long as all the rest, so a share of the cases is compiled, the same ones in each run; with
HYPOTHESIS_PROFILE=thorough all are.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kcompile
from kcompile.errors import UnsupportedOp
from kcompile.frontend import layers as kcompile_layers
from kcompile.frontend.functional import Functional
from kcompile.frontend.inputs import Input
from kcompile.frontend.layer import LAYERS, Layer
from kcompile.frontend.naming import reset_names
from kcompile.ir.evaluate import evaluate

Build = Callable[..., Any]
FORMATS = (".keras", ".h5")
TARGETS = {"onnx": ".onnx", "tvm": ".kcb"}
# One of so many cases is compiled.
SHARE = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 5


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


def check(
    build: Build,
    *inputs: np.ndarray,
    shapes: Sequence[tuple[int | None, ...]] | None = None,
    rtol: float = 1e-5,
    atol: float = 5e-6,
    configs: bool = True,
    seed: int = 0,
    refused: Mapping[str, str] | None = None,
    targets: Sequence[str] = tuple(TARGETS),
    formats: Sequence[str] = FORMATS,
) -> Functional:
    """Build the case with both, and compare weights' shapes, configs, masks and outputs, through files and artifacts.

    `shapes` are those of the symbolic inputs without the batch axis; by default those of the arrays. `refused` says
    which of `targets` refuse the model, and with what words.
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

    expected = outputs_of(theirs, inputs)
    assert_close(reference_of(ours, inputs), expected, rtol, atol, "the model made in Python")
    for symbol, y in zip(ours.outputs, expected, strict=True):
        assert all(d in (None, n) for d, n in zip(symbol.shape, y.shape, strict=True)), symbol
    if configs:
        # Keras adds operations of its own for masks; only its layers are compared.
        known = [layer for layer in theirs.layers if f"keras>{type(layer).__name__}" in LAYERS]
        known = [layer for layer in known if not isinstance(layer, keras.layers.InputLayer)]
        own = [layer for layer in ours.layers if type(layer).__name__ != "InputLayer"]
        by_name = {layer.name: layer for layer in own}
        for layer in known:
            assert_same_config(layer, by_name[layer.name])
    check_files(theirs, *inputs, rtol=rtol, atol=atol, refused=refused, targets=targets, formats=formats)
    return ours


def check_files(
    theirs: keras.Model,
    *inputs: np.ndarray,
    rtol: float = 1e-5,
    atol: float = 5e-6,
    formats: Sequence[str] = FORMATS,
    refused: Mapping[str, str] | None = None,
    targets: Sequence[str] = tuple(TARGETS),
) -> None:
    """Save the model as Keras does, and compare what reading and compiling its files gives with what Keras gives.

    `refused` says which of `targets` refuse the model, and with what words.
    """
    rows = len(inputs[0])
    expected = {rows: outputs_of(theirs, inputs), 1: outputs_of(theirs, [x[:1] for x in inputs])}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in formats:
            theirs.save(Path(folder) / f"m{suffix}")
            model = kcompile.load_model(Path(folder) / f"m{suffix}")
            assert_close(reference_of(model, inputs), expected[rows], rtol, atol, suffix)
        chosen = targets if refused or zlib.crc32(theirs.to_json().encode()) % SHARE == 0 else ()
        for target, session in compiled(Path(folder), formats, chosen, refused or {}):
            for count, outputs in expected.items():
                feed = {name: x[:count] for name, x in zip(session.inputs, inputs, strict=True)}
                results = list(session.run(feed).values())
                assert_close(results, outputs, 10 * rtol, 4 * atol, f"{target} for a batch of {count}")


def compiled(
    folder: Path, formats: Sequence[str], targets: Sequence[str], refused: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """A session per target, made from the files in `folder` by turns."""
    for number, target in enumerate(targets):
        source, artifact = folder / f"m{formats[number % len(formats)]}", folder / f"m{TARGETS[target]}"
        refusal = refusal_of(source, target, artifact)
        assert bool(refusal) == (target in refused), refusal or f"{target} takes the model"
        assert refused.get(target, "") in refusal
        if not refusal:
            yield target, kcompile.load(artifact)


def refusal_of(source: Path, target: str, artifact: Path) -> str:
    """What the target says of ops that it cannot express; nothing where the model is compiled."""
    try:
        kcompile.compile(source, target, artifact)
    except UnsupportedOp as error:
        return str(error)
    return ""


def outputs_of(theirs: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What Keras computes, flat."""
    structured = keras.tree.pack_sequence_as(theirs._inputs_struct, list(inputs))  # pyright: ignore[reportPrivateUsage]
    return [np.asarray(y) for y in keras.tree.flatten(theirs(structured, training=False))]


def reference_of(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the NumPy reference computes, flat."""
    graph = model.trace()
    return list(evaluate(graph, dict(zip(graph.input_types, inputs, strict=True))).values())


def assert_close(
    received: Sequence[np.ndarray], expected: Sequence[np.ndarray], rtol: float, atol: float, what: str
) -> None:
    """The arrays are equal in shape, dtype and, but for rounding, in value; `atol` is a share of the largest."""
    for y, reference in zip(received, expected, strict=True):
        assert y.dtype == reference.dtype, (what, y.dtype, reference.dtype)
        largest = max(1.0, float(np.abs(reference).max(initial=0)))
        np.testing.assert_allclose(y, reference, rtol=rtol, atol=atol * largest, err_msg=what)
