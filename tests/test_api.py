"""The Python interface end to end, on small models of every form."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen import parity
from kcompile.errors import (
    ArtifactError,
    InputError,
    MissingExtra,
    ModelError,
    TargetError,
    VerificationError,
)
from kcompile.ir import ops

ROOT = Path(__file__).parents[1]
SUFFIXES = {"onnx": ".onnx", "tvm": ".kcb"}


@pytest.fixture(scope="module")
def model() -> kcompile.Model:
    """A small CNN."""
    return kcompile.Sequential(
        [
            kcompile.Input((8, 8, 2), name="image"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="cnn",
    )


@pytest.fixture(scope="module")
def keras_file(model: kcompile.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "cnn.keras"
    model.save(path)
    return path


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((5, 8, 8, 2), np.float32)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- compile and load


@pytest.mark.parametrize("target", SUFFIXES)
def test_a_model_compiles_verifies_loads_and_predicts(
    target: str, model: kcompile.Model, keras_file: Path, images: np.ndarray, tmp_path: Path
) -> None:
    stages: list[str] = []
    output = tmp_path / f"cnn{SUFFIXES[target]}"
    artifact = kcompile.compile(keras_file, target, output, on_stage=stages.append)
    assert stages == ["reading the model", "compiling", "verifying", "writing"] == list(artifact.seconds)
    assert (artifact.path, artifact.size) == (output, output.stat().st_size)
    assert contents(tmp_path) == [output.name]

    session = kcompile.load(artifact)
    assert list(session.inputs) == ["image"]
    assert list(session.outputs) == ["classes"]
    np.testing.assert_allclose(session.predict(images), model.predict(images), rtol=1e-5, atol=1e-6)
    assert kcompile.verify(output, against=keras_file).agrees


def test_an_onnx_file_may_stand_in_a_bundle(model: kcompile.Model, images: np.ndarray, tmp_path: Path) -> None:
    artifact = kcompile.compile(model, "onnx", tmp_path / "cnn.kcb")
    np.testing.assert_allclose(kcompile.load(artifact).predict(images), model.predict(images), rtol=1e-5, atol=1e-6)
    assert kcompile.verify(artifact).agrees


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_the_same_model_gives_the_same_bytes(target: str, keras_file: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        kcompile.compile(keras_file, target, tmp_path / name / "cnn.kcb")
    assert (tmp_path / "first/cnn.kcb").read_bytes() == (tmp_path / "second/cnn.kcb").read_bytes()


def test_the_output_is_named_after_the_model(
    model: kcompile.Model, keras_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert kcompile.compile(keras_file).path == Path("cnn.onnx")
    assert kcompile.compile(model, "tvm").path == Path("cnn.kcb")
    assert contents(tmp_path) == ["cnn.kcb", "cnn.onnx"]


@pytest.mark.parametrize("suffix", [".onnx", ".kcb"])
def test_an_artifact_says_where_it_comes_from(keras_file: Path, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cnn{suffix}"
    kcompile.compile(keras_file, "onnx", path, threads=1)
    session: Any = kcompile.load(path)
    notes = session.notes
    if suffix == ".kcb":
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read("manifest.json"))["notes"].items() <= notes.items()
    assert notes["kcompile.source"] == "cnn.keras"
    assert notes["kcompile.version"] == kcompile.__version__
    assert len(notes["kcompile.source_sha256"]) == 64
    assert session.threads == 1


@pytest.mark.parametrize("name", ["cnn.keras", "cnn.h5", "renamed.model"])
def test_a_keras_file_runs_on_the_reference(
    name: str, model: kcompile.Model, images: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / Path(name).with_suffix(".keras" if name.endswith("keras") else ".h5")
    model.save(path)
    path = path.rename(tmp_path / name)
    session = kcompile.load(path)
    assert session.engine == "reference"
    np.testing.assert_allclose(session.predict(images), model.predict(images), rtol=1e-6)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_outputs_have_the_structure_that_the_model_was_built_with(target: str, tmp_path: Path) -> None:
    a, b = kcompile.Input((3,), name="first"), kcompile.Input((3,), name="second")
    total, product = layers.Add(name="sum")([a, b]), layers.Multiply(name="product")([a, b])
    x, y = np.full((2, 3), 2.0, np.float32), np.full((2, 3), 3.0, np.float32)

    listed = kcompile.Model([a, b], [total, product])
    results = kcompile.load(kcompile.compile(listed, target, tmp_path / "list.kcb")).predict([x, y])
    assert isinstance(results, list)
    np.testing.assert_array_equal(results[1], x * y)

    keyed = kcompile.Model({"u": a, "v": b}, {"total": total, "product": product})
    session = kcompile.load(kcompile.compile(keyed, target, tmp_path / "dict.kcb"))
    for feeds in ({"u": x, "v": y}, {"second": y, "first": x}):
        results = session.predict(feeds)
        assert sorted(results) == ["product", "total"]
        np.testing.assert_array_equal(results["total"], x + y)


def test_open_extents_can_be_fixed(tmp_path: Path) -> None:
    model = kcompile.Sequential([kcompile.Input((None, 2), name="signal"), layers.Conv1D(3, 4, name="conv")])
    free = kcompile.load(kcompile.compile(model, "onnx", tmp_path / "free.onnx"))
    assert free.predict(np.zeros((1, 9, 2))).shape == (1, 6, 3)
    fixed = kcompile.load(kcompile.compile(model, "onnx", tmp_path / "fixed.onnx", shapes={"signal": (None, 7, 2)}))
    assert fixed.inputs["signal"].shape == ("N", 7, 2)
    assert kcompile.verify(tmp_path / "fixed.onnx", against=model).agrees
    with pytest.raises(InputError, match=r"input `signal` must have shape \(N, 7, 2\)"):
        fixed.predict(np.zeros((1, 9, 2)))


def test_shapes_that_do_not_fit_are_refused(model: kcompile.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        kcompile.compile(model, output=tmp_path / "a.onnx", shapes={"image": (1, 9, 8, 2), "mask": (1,)})
    assert str(caught.value) == (
        "input `image` must have shape (N, 8, 8, 2). Received: (1, 9, 8, 2).\n"
        "the model's inputs are `image`. Received: `mask`."
    )
    for extent in (0, -1, 2.5, "8", True):
        with pytest.raises(InputError, match="the extents of input `image` must be integers from 1 on, or None"):
            kcompile.compile(model, output=tmp_path / "a.onnx", shapes={"image": (extent, 8, 8, 2)})  # type: ignore[dict-item]


# ---- refusals


@pytest.mark.parametrize(
    ("target", "options", "text"),
    [
        (
            "onyx",
            {},
            '`target` must be "onnx", "tvm", "tvm:<machine>", "c" or "auto". Received: \'onyx\'. Did you mean',
        ),
        ("onnx:x86", {}, '`target` must be "onnx", "tvm", "tvm:<machine>", "c" or "auto". Received: \'onnx:x86\'.'),
        ("tvm:", {}, '`target` must be "onnx", "tvm", "tvm:<machine>", "c" or "auto". Received: \'tvm:\'.'),
        (None, {}, '`target` must be "onnx", "tvm", "tvm:<machine>", "c" or "auto". Received: None.'),
        ("onnx", {"opste": 3}, "target 'onnx' takes `opset`. Received: `opste`."),
        ("tvm", {"opset": 3}, "target 'tvm' takes `fast_math`, `batch`, `tune`. Received: `opset`."),
    ],
)
def test_an_unknown_target_or_option_is_refused(
    target: Any, options: dict[str, Any], text: str, model: kcompile.Model
) -> None:
    with pytest.raises(TargetError) as caught:
        kcompile.compile(model, target, **options)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("target", "name", "text"),
    [
        ("onnx", "m.txt", "`output` for target 'onnx' must end in .onnx or .kcb. Received: m.txt."),
        ("tvm", "m.onnx", "`output` for target 'tvm' must end in .kcb. Received: m.onnx."),
        ("tvm", "m", "`output` for target 'tvm' must end in .kcb. Received: m."),
    ],
)
def test_an_output_of_another_suffix_is_refused(target: str, name: str, text: str, model: kcompile.Model) -> None:
    with pytest.raises(TargetError) as caught:
        kcompile.compile(model, target, name)
    assert str(caught.value) == text


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_done(
    model: kcompile.Model, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for path, text in (
        (tmp_path / "absent" / "m.onnx", f"there is no folder {tmp_path / 'absent'}. Make it first."),
        (tmp_path / "folder.onnx", f"{tmp_path / 'folder.onnx'} is a folder. Give the name of a file in it."),
    ):
        stages: list[str] = []
        with pytest.raises(ArtifactError) as caught:
            kcompile.compile(model, output=path, on_stage=stages.append)
        assert str(caught.value) == text
        assert stages == []


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`model` must be a path or a kcompile model\. Received: int\."):
        kcompile.compile(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="there is no file"):
        kcompile.compile(tmp_path / "absent.h5")
    with pytest.raises(ModelError, match="there is no file"):
        kcompile.load_model(tmp_path / "absent.h5")


COMPILED = (
    "is compiled already; what is wanted here is the Keras model (.keras, .h5 or .json). "
    "An artifact is for kcompile.load, `kcompile run` and `kcompile bench`."
)


def test_an_artifact_is_no_model(keras_file: Path, tmp_path: Path) -> None:
    onnx, bundle, unpacked = tmp_path / "a.onnx", tmp_path / "a.kcb", tmp_path / "unpacked"
    kcompile.compile(keras_file, "onnx", onnx)
    kcompile.compile(keras_file, "onnx", bundle)
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(unpacked)
    renamed = bundle.with_suffix(".zip")
    renamed.write_bytes(bundle.read_bytes())
    for artifact in (onnx, bundle, unpacked, renamed):
        with pytest.raises(ModelError) as raised:
            kcompile.compile(artifact, "onnx", tmp_path / "b.onnx")
        assert str(raised.value) == f"{artifact.name} {COMPILED}"
    assert not (tmp_path / "b.onnx").exists()


def test_a_model_is_known_by_its_content(keras_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.zip"
    other.write_bytes(keras_file.read_bytes())
    assert kcompile.load_model(other).name == "cnn"


def test_what_cannot_be_loaded_is_refused_in_one_sentence(tmp_path: Path) -> None:
    text, empty, folder, saved = (tmp_path / name for name in ("notes.txt", "empty.bin", "folder", "saved"))
    text.write_text("hello")
    empty.touch()
    folder.mkdir()
    saved.mkdir()
    (saved / "saved_model.pb").touch()
    kinds = "must be a compiled artifact (.kcb, .onnx) or a Keras model (.keras, .h5, .json)"
    for path, as_artifact, as_model in (
        (
            text,
            f"notes.txt {kinds}. Received: a file of another kind.",
            "notes.txt is neither a .keras (zip), .h5 (HDF5), .json nor .yaml file.",
        ),
        (empty, "empty.bin is empty.", "empty.bin is empty."),
        (
            folder,
            f"{folder} is a folder, but no unpacked bundle: it holds no manifest.json.",
            f"{folder} is a folder. Give a Keras model: a .keras, .h5 or .json file.",
        ),
        (
            saved,
            f"{saved} is a folder, but no unpacked bundle: it holds no manifest.json.",
            f"{saved} is a SavedModel, which holds TensorFlow's graph instead of Keras's layers. "
            'Save the model anew with `model.save("model.keras")`.',
        ),
    ):
        with pytest.raises(ArtifactError) as raised:
            kcompile.load(path)
        assert str(raised.value) == as_artifact
        with pytest.raises(ModelError) as refused:
            kcompile.load_model(path)
        assert str(refused.value) == as_model


def test_a_missing_extra_says_how_to_get_it(model: kcompile.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("onnx", "tvm")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(("kcompile.codegen.onnx", "kcompile.codegen.tvm"))]:
        monkeypatch.delitem(sys.modules, name)
    for package in ("onnx", "tvm"):
        monkeypatch.setitem(sys.modules, package, None)
    for target, package in (("onnx", "onnx and onnxruntime"), ("tvm", "apache-tvm")):
        with pytest.raises(MissingExtra) as caught:
            kcompile.compile(model, target)
        expected = f'target "{target}" needs {package}. Install it with: pip install "kcompile[{target}]"'
        assert str(caught.value) == expected


# ---- verification


def test_an_artifact_that_disagrees_is_not_written(
    model: kcompile.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is moved, which is the same as moving the artifact."""
    evaluate = parity.evaluate

    def moved(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        return {name: y + 0.01 for name, y in evaluate(*args, **kwargs).items()}

    monkeypatch.setattr(parity, "evaluate", moved)
    (tmp_path / "cnn.onnx").write_text("an older artifact")
    with pytest.raises(VerificationError, match="what target 'onnx' made of cnn disagrees with the reference:"):
        kcompile.compile(model, "onnx", tmp_path / "cnn.onnx")
    assert contents(tmp_path) == ["cnn.onnx"]
    assert (tmp_path / "cnn.onnx").read_text() == "an older artifact"


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_the_layer_that_a_target_gets_wrong_is_named(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relu is given another meaning in the reference, which is the same as both targets computing it wrong."""
    x = kcompile.Input((6,), name="x")
    y = layers.Dense(5, name="first")(x)
    y = layers.Dense(4, activation="relu", name="second")(y)
    model = kcompile.Model(x, layers.Dense(3, name="third")(y))
    monkeypatch.setattr(ops.Relu, "kernel", lambda self, args: (np.abs(args[0]),))
    with pytest.raises(VerificationError) as caught:
        kcompile.compile(model, target, tmp_path / "m.kcb")
    assert str(caught.value).endswith("\nThe first layer whose value is off is `second` (relu).")
    assert contents(tmp_path) == []


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_an_artifact_of_another_models_weights_is_found_out(target: str, model: kcompile.Model, tmp_path: Path) -> None:
    artifact = kcompile.compile(model, target, tmp_path / "cnn.kcb")
    other = kcompile.Sequential.from_config(model.get_config())
    other.set_weights([w + 0.1 for w in model.get_weights()])
    with pytest.raises(VerificationError) as caught:
        kcompile.verify(artifact, against=other)
    lines = str(caught.value).splitlines()
    assert lines[0] == "cnn.kcb disagrees with the reference:"
    assert lines[-1] == (
        "Compiled anew, the model agrees: the artifact was made from another model, or by another version."
    )


def test_an_artifact_of_a_model_with_other_inputs_is_found_out(model: kcompile.Model, tmp_path: Path) -> None:
    artifact = kcompile.compile(model, "onnx", tmp_path / "cnn.onnx")
    other = kcompile.Sequential([kcompile.Input((3,), name="x"), layers.Dense(2, name="y")], name="other")
    with pytest.raises(VerificationError) as caught:
        kcompile.verify(artifact, against=other)
    assert str(caught.value) == ("cnn.onnx must be made from other: (x) -> (y). Received: (image) -> (classes).")


def test_a_bare_onnx_file_needs_a_model_to_be_verified(model: kcompile.Model, tmp_path: Path) -> None:
    artifact = kcompile.compile(model, "onnx", tmp_path / "cnn.onnx")
    with pytest.raises(ArtifactError, match=r"cnn\.onnx holds no recorded samples\. Give the Keras model"):
        kcompile.verify(artifact)


# ---- writing


def test_an_interrupted_compilation_leaves_nothing(keras_file: Path, tmp_path: Path) -> None:
    """A Ctrl-C in the middle of writing: the file is there under its temporary name, then nothing is."""
    code = f"""
import sys, time
from kcompile.codegen import bundle
import kcompile
store = bundle._store
def slow(*args):
    store(*args)
    args[1].flush()
    print("writing", flush=True)
    time.sleep(60)
bundle._store = slow
from kcompile.cli import main
main([{str(keras_file)!r}, "--target", "onnx", "-o", {str(tmp_path / "cnn.kcb")!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"writing\n"
    assert [name.rpartition(".")[2] for name in contents(tmp_path)] == ["part"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, b"\ninterrupted\n")
    assert contents(tmp_path) == []


def test_a_failed_write_leaves_the_old_artifact(
    model: kcompile.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cnn.onnx"
    path.write_text("old")

    def full(source: Any, destination: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArtifactError) as caught:
        kcompile.compile(model, "onnx", path)
    assert str(caught.value) == f"{path} cannot be written: No space left on device."
    assert contents(tmp_path) == ["cnn.onnx"]
    assert path.read_text() == "old"


def test_a_new_file_has_the_modes_that_the_user_gives_files(model: kcompile.Model, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    kcompile.compile(model, "onnx", tmp_path / "cnn.onnx")
    assert (tmp_path / "cnn.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---- the package


def test_every_public_name_is_there() -> None:
    for name in kcompile.__all__:
        assert getattr(kcompile, name) is not None
    assert set(dir(kcompile)) == set(kcompile.__all__)
    with pytest.raises(AttributeError, match="module 'kcompile' has no attribute 'kompile'"):
        kcompile.kompile  # noqa: B018  # pyright: ignore


def test_importing_the_package_loads_nothing_that_is_slow_to_load() -> None:
    """Each name is loaded with what it needs when it is first used: `import kcompile` takes a few milliseconds."""
    code = "import sys, numpy; before = set(sys.modules); import kcompile; print(*set(sys.modules) - before)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"kcompile"}
