"""Lower precision through the Python interface and the command line, for both targets."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import kcompile
from kcompile import layers
from kcompile.cli.main import cli
from kcompile.codegen.backends import backend
from kcompile.errors import InputError, TargetError, VerificationError

_HAS_BFLOAT16 = "bf16" in backend("tvm", precision="bf16").precisions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and calibration data."""
    path = tmp_path_factory.mktemp("precision")
    model = kcompile.Sequential(
        [
            kcompile.Input((10, 10, 3), name="image"),
            layers.Conv2D(8, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, activation="relu", name="conv_2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax", name="probabilities"),
        ],
        name="small",
    )
    rng = np.random.default_rng(0)
    for name in ("conv", "conv_2", "probabilities"):
        kernel = model.get_layer(name).weights[0]
        kernel.assign(rng.normal(size=kernel.shape) / np.sqrt(np.prod(kernel.shape[:-1])))
    model.save(path / "small.keras")
    np.savez(path / "data.npz", image=rng.random((24, 10, 10, 3), np.float32), labels=rng.integers(0, 4, 24))
    return path


@pytest.fixture(scope="module")
def artifacts(folder: Path) -> dict[str, kcompile.Artifact]:
    options = {"precision": "int8", "calibration": folder / "data.npz"}
    return {
        "onnx": kcompile.compile(folder / "small.keras", "onnx", folder / "small.onnx", **options),
        "tvm": kcompile.compile(folder / "small.keras", "tvm", folder / "small.kcb", **options),
    }


def test_both_targets_compute_the_same_quantised_graph(folder: Path, artifacts: dict[str, kcompile.Artifact]) -> None:
    x = np.load(folder / "data.npz")["image"][:5]
    exact = kcompile.load(folder / "small.keras").predict(x)
    results = {target: kcompile.load(artifact).predict(x) for target, artifact in artifacts.items()}
    np.testing.assert_allclose(results["tvm"], results["onnx"], atol=2e-3)
    np.testing.assert_allclose(results["tvm"], exact, atol=2e-2)
    assert np.abs(results["tvm"] - exact).max() > 1e-6


def test_onnx_file_has_its_numbers_between_quantisations(artifacts: dict[str, kcompile.Artifact]) -> None:
    graph = onnx.load(artifacts["onnx"].path).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    assert {made[name] for node in convolutions for name in node.input} == {"DequantizeLinear"}
    weights = {str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) for tensor in graph.initializer}
    assert weights >= {"int8", "int32"}


def test_report_is_in_the_artifact_and_in_the_manifest(artifacts: dict[str, kcompile.Artifact]) -> None:
    for artifact in artifacts.values():
        report = artifact.precision
        assert report is not None
        assert [layer.layer for layer in report.layers] == ["conv", "conv_2", "probabilities"]
        assert (report.measure, report.samples) == ("accuracy", 24)
        note = json.loads(kcompile.load(artifact).notes["kcompile.precision"])
        assert set(note.pop("cost")) == {"probabilities"}
        assert note == json.loads(json.dumps(report.to_json()))


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_artifact_verifies_by_its_samples_and_against_its_model(
    folder: Path, artifacts: dict[str, kcompile.Artifact], target: str
) -> None:
    if target == "tvm":
        assert kcompile.verify(artifacts[target]).agrees
    for seed in range(3):
        report = kcompile.verify(artifacts[target], against=folder / "small.keras", seed=seed)
        assert report.agrees
        assert all(difference.relative > 1e-6 for difference in report.differences)


def test_another_model_than_the_quantised_one_is_found_out(
    folder: Path, artifacts: dict[str, kcompile.Artifact]
) -> None:
    model = kcompile.load_model(folder / "small.keras")
    kernel = model.get_layer("probabilities").weights[0]
    kernel.assign(-9 * kernel.numpy())
    with pytest.raises(VerificationError, match="disagrees"):
        kcompile.verify(artifacts["onnx"], against=model)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_much_data_is_measured_by_compiled_code(
    folder: Path, artifacts: dict[str, kcompile.Artifact], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcompile.codegen.precision._MUCH_WORK", 1000)
    suffix = {"onnx": ".onnx", "tvm": ".kcb"}[target]
    artifact = kcompile.compile(
        folder / "small.keras", target, folder / f"much{suffix}", precision="int8", calibration=folder / "data.npz"
    )
    found, expected = artifact.precision, artifacts[target].precision
    assert found is not None
    assert expected is not None
    assert (found.measure, found.samples) == (expected.measure, expected.samples)
    assert [layer.error for layer in found.layers] == pytest.approx(
        [layer.error for layer in expected.layers], rel=0.05
    )


@pytest.mark.skipif(not _HAS_BFLOAT16, reason="this CPU has no bfloat16 instructions")
def test_bfloat16_is_near_float32_and_says_so(folder: Path) -> None:
    artifact = kcompile.compile(folder / "small.keras", "tvm", folder / "small16.kcb", precision="bf16")
    x = np.load(folder / "data.npz")["image"][:5]
    exact, found = (kcompile.load(path).predict(x) for path in (folder / "small.keras", artifact))
    assert 1e-7 < np.abs(exact - found).max() < 1e-2
    assert artifact.precision is not None
    assert {layer.precision for layer in artifact.precision.layers} == {"bf16"}


def test_bfloat16_falls_back_with_a_note_where_there_is_none(folder: Path) -> None:
    artifact = kcompile.compile(folder / "small.keras", "onnx", folder / "b.onnx", precision="bf16")
    assert artifact.precision is not None
    assert artifact.precision.layers == ()
    assert "no bfloat16" in artifact.precision.notes[0]
    assert artifact.report.differences[0].relative < 1e-5


def test_command_prints_what_each_layer_loses(folder: Path) -> None:
    arguments = [folder / "small.keras", "-o", folder / "c.onnx", "--precision", "int8"]
    arguments += ["--calibration", folder / "data.npz", "--max-accuracy-drop", "0.5", "--calibration-method", "entropy"]
    result = CliRunner().invoke(cli, ["compile", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "int8 in 3 of 3 layers; accuracy" in result.output
    assert "conv_2" in result.output
    shown = CliRunner().invoke(cli, ["inspect", str(folder / "c.onnx")])
    assert "int8 in 3 of 3 layers" in shown.output
    assert "conv_2" in shown.output
    record = CliRunner().invoke(cli, ["compile", *map(str, arguments), "--json"])
    assert json.loads(record.output)["precision"]["method"] == "entropy"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"precision": "int4"}, ["`precision` must be one of float32, bf16, int8"]),
        (
            {"precision": "int8", "calibration_method": "best", "max_accuracy_drop": -1.0},
            ["`calibration_method` must be one of", "`max_accuracy_drop` must be", "calibration data are missing for"],
        ),
        ({"calibration": "data.npz", "labels": "y"}, ["only precision 'int8' takes `labels`, `calibration`"]),
        ({"precision": "bf16", "activations": "token"}, ["only precision 'int8' takes `activations`"]),
        ({"precision": "int8", "activations": "tensor"}, ["calibration data are missing for `activations`"]),
        ({"precision": None}, ["`precision` must be one of float32, bf16, int8. Received: None"]),
    ],
)
def test_all_arguments_that_make_no_sense_are_named_at_once(
    folder: Path, options: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(TargetError) as caught:
        kcompile.compile(folder / "small.keras", "onnx", folder / "x.onnx", **options)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


def test_machines_of_c_libraries_take_no_int8(folder: Path) -> None:
    with pytest.raises(TargetError, match="precision 'int8' is for the targets onnx, tvm and auto"):
        kcompile.compile(folder / "small.keras", "tvm:cortex-m7", folder / "x.kcb", precision="int8")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_damaged_data_are_refused(folder: Path, content: bytes) -> None:
    path = folder / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="calibration data must be an"):
        kcompile.compile(folder / "small.keras", output=folder / "x.onnx", precision="int8", calibration=path)


def test_a_missing_file_of_data_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.npz, which is no file"):
        kcompile.compile(
            folder / "small.keras", output=folder / "x.onnx", precision="int8", calibration=folder / "nowhere.npz"
        )


@pytest.mark.parametrize("given", [np.zeros((3, 8, 8, 3), np.float32), 3, b"data.npz"])
def test_calibration_of_another_kind_is_refused(folder: Path, given: object) -> None:
    with pytest.raises(InputError, match=r"`calibration` must be the path of an \.npz"):
        kcompile.compile(folder / "small.keras", precision="int8", calibration=given)  # type: ignore[arg-type]


def test_target_auto_measures_programs_in_few_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCOMPILE_CACHE", str(tmp_path))
    model = kcompile.Sequential([kcompile.Input((12,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    first, again = (kcompile.compile(model, "auto", tmp_path / "m.kcb", precision="int8") for _ in range(2))
    assert first.choice.count(" ms") == 2
    assert again.choice == f"{first.choice}; measured before"
    assert first.precision is not None
    assert [layer.precision for layer in first.precision.layers] == ["int8", "int8"]
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    exact = model.predict(x)
    error = np.linalg.norm(kcompile.load(first.path).predict(x) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03
