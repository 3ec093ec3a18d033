"""Files that cannot be read: each gives one clear error, and nothing in it is run."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kcompile.errors import KCompileError, ModelError, UnsupportedLayer
from kcompile.frontend import Input, Sequential, layers, load_model, register_layer
from kcompile.frontend.layer import LAYERS, Layer
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value
from tests.frontend.errors import error_of
from tests.frontend.old_files import dense_weights, functional, layer, sequential, write_groups, write_h5

ENTRY = layer("InputLayer", name="in", batch_input_shape=[None, 4])
BYTECODE = ["4wEAAAAAAAAAAAAAAAEAAABDAAAA", None, None]


@dataclass(eq=False)
class Scale(Layer):
    """``x * factor``."""

    factor: float = 2.0

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(ops.Mul(), args[0], t.constant(self.factor))


@pytest.fixture(autouse=True)
def _registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    known = dict(LAYERS)
    monkeypatch.setattr("kcompile.frontend.layer.LAYERS", known)
    for module in ("layer_configs", "keras_file.normalize", "activations"):
        monkeypatch.setattr(f"kcompile.frontend.{module}.LAYERS", known, raising=False)


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """A graph with a nested model that holds custom layers, a Lambda, a custom activation and a layer of the future."""
    inner = sequential(
        ENTRY,
        layer("mypkg>ScaleNorm", name="norm", factor=3.0),
        {"class_name": "Lambda", "config": {"name": "code", "function": BYTECODE}},
        name="encoder",
    )
    spec = functional(
        "functional",
        [
            layer("InputLayer", name="x", batch_input_shape=[None, 4]),
            {**inner, "name": "encoder", "inbound_nodes": [[["x", 0, 0, {}]]]},
            layer("Activation", [["encoder", 1, 0, {}]], name="odd", activation="my_tanh"),
            layer("TFSMLayer", [["odd", 0, 0, {}]], name="future"),
        ],
        [["x", 0, 0]],
        [["future", 0, 0]],
    )
    return write_h5(tmp_path / "model.h5", spec, {})


def test_all_layers_without_a_converter_are_named_at_once(custom: Path) -> None:
    assert error_of(UnsupportedLayer, lambda: load_model(custom)) == (
        "model.h5 uses 4 layers kcompile cannot compile:\n"
        "  `norm`    (custom: mypkg>ScaleNorm)                at functional/encoder/norm\n"
        "  `code`    (Lambda: code that kcompile never runs)  at functional/encoder/code\n"
        "  `odd`     (custom activation: my_tanh)             at functional/odd\n"
        "  `future`  (TFSMLayer: a SavedModel of TensorFlow)  at functional/future\n"
        '  Register a converter with @kcompile.register_layer("mypkg>ScaleNorm"), '
        '@kcompile.register_layer("Lambda:code"), @kcompile.register_layer("my_tanh"), '
        '@kcompile.register_layer("TFSMLayer"), or see `kcompile layers`.'
    )


def test_registered_converters_stand_in_for_custom_code(custom: Path, rng: np.random.Generator) -> None:
    @register_layer("Lambda:code", "my_tanh")
    @dataclass(eq=False)
    class Tanh(Layer):
        def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
            return t(ops.Tanh(), args[0])

    register_layer("mypkg>ScaleNorm")(Scale)
    register_layer("TFSMLayer")(layers.Identity)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(load_model(custom).predict(x), np.tanh(np.tanh(3.0 * x)), rtol=1e-6)


def test_converters_may_be_given_for_one_file(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_h5(tmp_path / "m.h5", sequential(ENTRY, layer("Scaled", name="s", factor=5.0)), {})
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(load_model(path, {"Scaled": Scale}).predict(x), 5.0 * x, rtol=1e-6)
    assert "custom: Scaled" in error_of(UnsupportedLayer, lambda: load_model(path))


def test_arguments_of_unknown_meaning_are_named(tmp_path: Path) -> None:
    spec = sequential(
        ENTRY,
        layer("Dense", name="d", units=3, binarize=True, note=None),
        layer("LSTM", name="l", units=3, peephole="full"),
    )
    path = write_h5(tmp_path / "m.h5", spec, {})
    assert error_of(ModelError, lambda: load_model(path)) == (
        "m.h5 uses arguments that kcompile does not know:\n"
        "  layer `sequential_1/d` (Dense) has `binarize`=True, which kcompile does not know.\n"
        "  layer `sequential_1/l` (LSTM) has `peephole`='full', which kcompile does not know."
    )


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = sequential(ENTRY, *(layer("Dense", name=name, units=4) for name in "abcd"))
    groups = {name: dense_weights(rng, name, 4, 4) for name in "abde"}
    groups["b"]["b/kernel:0"] = np.zeros((4, 5), np.float32)
    del groups["d"]["d/bias:0"]
    path = write_h5(tmp_path / "m.h5", spec, groups)
    assert error_of(ModelError, lambda: load_model(path)) == (
        "the weights in m.h5 must be those of the model:\n"
        "  layer `c`: the file holds no weights.\n"
        "  layer `e` of the file: the model has no such layer with weights.\n"
        "  `b`: `b/kernel:0` must have shape (4, 4). Received: (4, 5).\n"
        "  layer `d` has 2 weights. Received: 1 ((4, 4))."
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.keras"
    Sequential([Input((4,)), layers.Dense(3, name="d"), layers.Dense(2, name="e")]).save(path)
    return path


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """A ``.keras`` file with other weights."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = io.BytesIO(members["model.weights.h5"])
    with h5py.File(data, "r+") as root:
        change(root)
    members["model.weights.h5"] = data.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return path


def test_weights_of_an_archive_that_do_not_fit_are_all_named(saved: Path) -> None:
    def change(root: Any) -> None:
        del root["layers/dense/vars/1"]
        del root["layers/dense_1/vars/0"]
        root["layers/dense_1/vars/0"] = np.zeros((9, 2))
        root["layers/dense_2/vars/0"] = np.zeros(3)
        root["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)

    assert error_of(ModelError, lambda: load_model(changed(saved, change))) == (
        "the weights in m.keras must be those of the model:\n"
        "  `d/bias`: the file holds no `layers/dense/vars/1`.\n"
        "  `e/kernel` must have shape (3, 2). Received: (9, 2) at `layers/dense_1/vars/0`.\n"
        "  `layers/dense_2/vars/0` of the file: the model has no such weight."
    )


def test_weights_are_numbers(saved: Path) -> None:
    def change(root: Any) -> None:
        del root["layers/dense/vars/1"]
        root["layers/dense/vars"].create_dataset("1", data=np.array([b"a", b"b", b"c"]))

    text = "`d/bias` in m.keras must hold numbers. Received: dtype |S1."
    assert error_of(ModelError, lambda: load_model(changed(saved, change))) == text


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage"])
def test_weights_outside_the_file_are_refused(saved: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 12)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros(3, np.float32)

    def change(root: Any) -> None:
        group = root["layers/dense/vars"]
        del group["1"]
        if kind == "external link":
            group["1"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        elif kind == "soft link":
            group["1"] = h5py.SoftLink("/layers/dense_1/vars/1")
        else:
            group.create_dataset("1", (3,), "f4", external=[(str(tmp_path / "secret"), 0, 12)])

    text = error_of(ModelError, lambda: load_model(changed(saved, change)))
    links = {"external link": "ExternalLink", "soft link": "SoftLink"}
    if kind in links:
        expected = f"m.keras must hold its weights itself. Received: a link at `/layers/dense/vars/1` ({links[kind]})."
    else:
        expected = "`d/bias` in m.keras must hold its numbers itself. Received: a dataset that refers to another file."
    assert text == expected


def test_a_file_of_weights_alone_says_what_is_missing(tmp_path: Path, saved: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as root:
        write_groups(root, {"d": {}})
    load_model(saved).save_weights(tmp_path / "new.weights.h5")
    for name in ("old.h5", "new.weights.h5"):
        assert error_of(ModelError, lambda name=name: load_model(tmp_path / name)) == (
            f"{name} holds weights but no architecture (no `model_config`). "
            'Save the whole model with `model.save("m.keras")`.'
        )


def test_an_hdf5_file_of_something_else_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as root:
        root["x"] = np.zeros(3)
    text = "data.h5 is no file of Keras's: it holds neither `model_config` nor `layer_names`."
    assert error_of(ModelError, lambda: load_model(tmp_path / "data.h5")) == text


def test_a_zip_of_something_else_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    text = "a.keras must hold `config.json`. Received: an archive with a.txt."
    assert error_of(ModelError, lambda: load_model(tmp_path / "a.keras")) == text


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"not a model")
    text = "m.h5 is neither a .keras (zip), .h5 (HDF5), .json nor .yaml file."
    assert error_of(ModelError, lambda: load_model(tmp_path / "m.h5")) == text
    text = f"{tmp_path / 'none.h5'} cannot be read: No such file or directory."
    assert error_of(ModelError, lambda: load_model(tmp_path / "none.h5")) == text
    text = (
        f"a model must be one file (.keras or .h5). Received: the folder {tmp_path}. "
        'Save the model with `model.save("m.keras")`.'
    )
    assert error_of(ModelError, lambda: load_model(tmp_path)) == text


def test_a_changed_byte_in_an_archive_is_noticed(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        info = archive.getinfo("model.weights.h5")
    data[info.header_offset + info.file_size // 2] ^= 1
    saved.write_bytes(data)
    text = "`model.weights.h5` in m.keras is damaged: its checksum is wrong."
    assert error_of(ModelError, lambda: load_model(saved)) == text


def test_a_compressed_archive_is_read(saved: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 4))
    expected = load_model(saved).predict(x)
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    np.testing.assert_array_equal(load_model(saved).predict(x), expected)


def test_an_archive_that_unpacks_to_far_more_than_its_weights_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", bytes(80 << 20))
    text = "`model.weights.h5` in m.keras must not unpack to more than 67,109,600 bytes for 92 of weights."
    assert error_of(ModelError, lambda: load_model(saved)) == f"{text} Received: 83,886,080."


@pytest.mark.parametrize("units", [10**9, 10**15, 10**30, -1, 1.5, "many", None, [3], True])
def test_absurd_sizes_are_refused_quickly(tmp_path: Path, units: Any) -> None:
    path = write_h5(tmp_path / "m.h5", sequential(ENTRY, layer("Dense", name="d", units=units)), {})
    with pytest.raises(ModelError):
        load_model(path)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        "text",
        {},
        {"class_name": "Sequential"},
        {"class_name": "Sequential", "config": {}},
        {"class_name": "Sequential", "config": {"name": 3, "layers": [4]}},
        {"class_name": "Sequential", "config": {"layers": []}},
        {"class_name": ["Dense"], "config": {}},
        {"class_name": "Dense", "config": {"name": "d", "units": 3}},
        {"class_name": "Model", "config": {"layers": [{"class_name": "Dense", "config": {"units": 3}}]}},
        functional("m", [ENTRY], [["in", 0, 0]], [["out", 0, 0]]),
        functional("m", [ENTRY], [["in", 0, 0]], [["in", -1, 0]]),
        functional("m", [ENTRY], [], []),
        functional("m", [ENTRY, ENTRY], [["in", 0, 0]], [["in", 0, 0]]),
        functional("m", [ENTRY, layer("Dense", 3, name="d", units=2)], [["in", 0, 0]], [["d", 0, 0]]),
        functional("m", [ENTRY, layer("Dense", [["in", 9, 0]], name="d", units=2)], [["in", 0, 0]], [["d", 0, 0]]),
        functional("m", [ENTRY, layer("Dense", [["d", 0, 0]], name="d", units=2)], [["in", 0, 0]], [["d", 0, 0]]),
        sequential(layer("InputLayer", name="in", batch_input_shape="abc"), layer("Dense", name="d", units=2)),
        sequential(layer("InputLayer", name="in"), layer("Dense", name="d", units=2)),
        sequential(layer("Dense", name="d", units=2)),
        sequential(ENTRY, layer("Bidirectional", name="b", layer={"class_name": "LSTM", "config": 7})),
    ],
)
def test_damaged_configs_give_one_error(tmp_path: Path, spec: Any) -> None:
    with pytest.raises(ModelError) as raised:
        load_model(write_h5(tmp_path / "m.h5", spec, {}))
    assert str(raised.value)


def test_a_config_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"class_name": "Sequential", "config": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ModelError):
        load_model(path)
    spec = json.dumps(layer("Dense", name="d", units=2))
    for depth in range(400):
        spec = f'{{"class_name": "Sequential", "config": {{"name": "s{depth}", "layers": [{spec}]}}}}'
    path.write_text(spec)
    with pytest.raises(ModelError):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_cut_off_anywhere_give_one_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    Sequential([Input((4,)), layers.Dense(3), layers.BatchNormalization()]).save(path)
    data = path.read_bytes()
    for length in [*range(0, 64, 7), *range(64, len(data), len(data) // 60)]:
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_changed_bytes_load_or_give_an_error_of_ours(
    tmp_path: Path, suffix: str, rng: np.random.Generator
) -> None:
    path = tmp_path / f"m{suffix}"
    Sequential([Input((4,)), layers.Dense(3), layers.BatchNormalization()]).save(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = data.copy()
        where = rng.integers(0, len(data), rng.integers(1, 9))
        damaged[where] = rng.integers(0, 256, len(where))
        path.write_bytes(damaged.tobytes())
        try:
            load_model(path)
        except KCompileError:
            continue
