"""Every command on a small model: what it prints, what it writes, how it exits."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.cli.main import run
from kcompile.runtime.bundle import open_bundle

X = np.linspace(-1, 1, 3 * 20 * 2, dtype=np.float32).reshape(3, 20, 2)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.keras` and what both targets make of it."""
    folder = tmp_path_factory.mktemp("cli")
    model = kcompile.Sequential(
        [
            kcompile.Input((None, 2), name="signal"),
            layers.Conv1D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling1D(name="mean"),
            layers.Dense(3, activation="softmax", name="classes"),
        ],
        name="net",
    )
    model.save(folder / "net.keras")
    for target, name in (("onnx", "net.onnx"), ("tvm", "net.kcb")):
        kcompile.compile(folder / "net.keras", target, folder / name)
    return folder


@pytest.fixture
def kc(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(folder)

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


def expected() -> np.ndarray:
    return kcompile.load("net.keras").predict(X)


# ---- compile


def test_a_model_alone_compiles_to_onnx_in_the_present_folder(
    kc: Callable[..., Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = kc(folder / "net.keras")
    assert (result.code, result.err) == (0, "")
    assert re.match(r"wrote     net\.onnx \([\d.]+ kB, target onnx\)\nverified  agrees with the reference", result.out)
    reference = kcompile.load(folder / "net.keras").predict(X)
    np.testing.assert_allclose(kcompile.load("net.onnx").predict(X), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["net.keras", "--target", "tvm", "-o", "OUT"],
        ["compile", "net.keras", "--target", "tvm", "--output", "OUT"],
        ["--target", "tvm", "-o", "OUT", "net.keras"],
        ["--debug", "net.keras", "-t", "tvm", "-o", "OUT", "-q"],
    ],
)
def test_compile_may_be_left_out(
    kc: Callable[..., Result], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KCOMPILE_DEBUG", raising=False)
    output = tmp_path / "a.kcb"
    assert kc(*[str(output) if word == "OUT" else word for word in words]).code == 0
    np.testing.assert_allclose(kcompile.load(output).predict(X), expected(), rtol=1e-5, atol=1e-6)


def test_compile_prints_json(kc: Callable[..., Result], tmp_path: Path) -> None:
    record = kc("net.keras", "-o", tmp_path / "a.onnx", "--json", "--seed", "7").json()
    assert record["path"] == str(tmp_path / "a.onnx")
    assert record["bytes"] == (tmp_path / "a.onnx").stat().st_size
    assert record["verification"]["agrees"] is True
    assert record["verification"]["outputs"][0]["output"] == "classes"


def test_quiet_prints_nothing(kc: Callable[..., Result], tmp_path: Path) -> None:
    assert kc("net.keras", "-o", tmp_path / "a.onnx", "--quiet") == Result(0, "", "")


@pytest.mark.parametrize("shape", ["signal=?,9,2", "?,9,2", "None, 9, 2", "signal=(?,9,2)"])
def test_a_shape_fixes_open_extents(kc: Callable[..., Result], shape: str, tmp_path: Path) -> None:
    assert kc("net.keras", "-o", tmp_path / "a.onnx", "--shape", shape).code == 0
    assert kcompile.load(tmp_path / "a.onnx").inputs["signal"].shape == ("N", 9, 2)


def test_threads_are_noted_for_loading(kc: Callable[..., Result], tmp_path: Path) -> None:
    for name, target in (("a.onnx", "onnx"), ("a.kcb", "tvm")):
        assert kc("net.keras", "-t", target, "-o", tmp_path / name, "--threads", "1").code == 0
        assert kcompile.load(tmp_path / name).threads == 1


# ---- inspect


def test_inspect_shows_the_layers_of_a_model(kc: Callable[..., Result]) -> None:
    lines = kc("inspect", "net.keras").out.splitlines()
    cells = [line.split("  ") for line in lines]
    rows = {row[0]: [cell.strip() for cell in row[1:] if cell] for row in cells}
    assert rows["conv"] == ["Conv1D", "f32[N, T-2, 4]", "28", "24*T-48"]
    assert rows["norm"] == ["BatchNormalization", "f32[N, T-2, 4]", "16", "0"]
    assert rows["classes"] == ["Dense", "f32[N, 3]", "15", "12"]
    assert rows["parameters"] == ["59"]
    assert rows["MACs of one row"] == ["24*T-36"]


def test_inspect_prints_a_model_as_json(kc: Callable[..., Result]) -> None:
    record = kc("inspect", "net.keras", "--json", "--shape", "?,20,2").json()
    assert record["inputs"] == {"signal": "f32[N, 20, 2]"}
    assert record["parameters"] == 59
    assert record["macs"] == 18 * 3 * 2 * 4 + 12
    # At most the result of the convolution twice: as it comes, and after the activation.
    assert record["peak_bytes"] == 2 * 18 * 4 * 4
    assert record["nodes"][1] < record["nodes"][0]


def test_inspect_prints_the_graph_before_and_after_the_passes(kc: Callable[..., Result]) -> None:
    out = kc("inspect", "net.keras", "--ir").out
    before, after, groups = re.split(r"^# (?:after|in groups).*$", out, flags=re.MULTILINE)
    assert "= batch_norm(" in before
    assert "= batch_norm(" not in after
    assert "fused(" in groups
    assert "graph @net(%signal: f32[N, T, 2]) -> (classes: f32[N, 3])" in after


def test_inspect_explains_what_was_not_folded(kc: Callable[..., Result], tmp_path: Path) -> None:
    x = kcompile.Input((8,), name="x")
    y = layers.Dense(4, name="shared")(x)
    model = kcompile.Model(x, [layers.BatchNormalization(name="norm")(y), layers.Flatten(name="other")(y)])
    model.save(tmp_path / "m.keras")
    assert "has other uses" in kc("inspect", tmp_path / "m.keras", "--explain").out


def test_inspect_shows_a_bundle(kc: Callable[..., Result]) -> None:
    out = kc("inspect", "net.kcb").out
    for line in (
        r"^inputs +signal: f32\[N, T, 2\]$",
        r"^outputs +classes: f32\[N, 3\]$",
        r"^kcompile\.source +net\.keras$",
        r"^weights\.bin +\d+ B +[0-9a-f]{64}$",
    ):
        assert re.search(line, out, re.MULTILINE), out
    manifest = kc("inspect", "net.kcb", "--json").json()
    assert manifest["signature"]["minimums"] == {"T": 3}


def test_inspect_shows_an_onnx_file(kc: Callable[..., Result]) -> None:
    out = kc("inspect", "net.onnx").out
    assert re.search(r"^inputs +signal: f32\[N, T, 2\]$", out, re.MULTILINE)
    assert "signature" not in out
    assert kc("inspect", "net.onnx", "--json").json()["notes"]["kcompile.source"] == "net.keras"


def test_inspect_has_no_graph_of_an_artifact(kc: Callable[..., Result]) -> None:
    result = kc("inspect", "net.kcb", "--ir")
    assert result.code == 2
    assert result.err == (
        "error: --ir, --explain and --shape are for models: an artifact holds machine code. "
        "See `kcompile inspect --help`.\n"
    )


# ---- run


@pytest.mark.parametrize("artifact", ["net.onnx", "net.kcb", "net.keras"])
def test_run_reads_and_writes_arrays(kc: Callable[..., Result], artifact: str, tmp_path: Path) -> None:
    y = tmp_path / "y.npz"
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    np.savez(tmp_path / "named.npz", signal=X, other=1)
    np.savez(tmp_path / "numbered.npz", in0=X)
    np.savez(tmp_path / "placed.npz", X)
    for x in ("x.npy", "named.npz", "numbered.npz", "placed.npz"):
        result = kc("run", artifact, "--inputs", tmp_path / x, "--outputs", y, "--batch-size", "2")
        assert result == Result(0, f"wrote {y}: classes float32[3, 3]\n", "")
        with np.load(y) as outputs:
            np.testing.assert_allclose(outputs["classes"], expected(), rtol=1e-5, atol=1e-6)
        y.unlink()


def test_run_says_which_arrays_it_needs(kc: Callable[..., Result], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", sgnal=X)
    result = kc("run", "net.onnx", "-i", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    assert result == Result(
        1,
        "",
        f"error: {tmp_path / 'x.npz'} must hold arrays named signal, or in0, in1 and so on. Received: sgnal.\n",
    )


@pytest.mark.parametrize("kind", ["text", "pickle", "cut"])
def test_run_refuses_files_that_hold_no_numbers(kc: Callable[..., Result], kind: str, tmp_path: Path) -> None:
    x = tmp_path / "x.npz"
    if kind == "text":
        x.write_text("1 2 3")
    elif kind == "pickle":
        np.savez(x, signal=np.array([{"a": 1}], object))
    else:
        np.savez(x, signal=X)
        x.write_bytes(x.read_bytes()[:200])
    result = kc("run", "net.onnx", "-i", x, "-o", tmp_path / "y.npz")
    assert result.code == 1
    assert result.err.startswith(f"error: {x}")
    assert "cannot be read as" in result.err
    assert not (tmp_path / "y.npz").exists()


def test_run_says_what_does_not_fit(kc: Callable[..., Result], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", signal=X[:, :2])
    result = kc("run", "net.kcb", "-i", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    assert result == Result(1, "", "error: extent T of input `signal` must be at least 3. Received: 2.\n")


# ---- bench


@pytest.mark.parametrize("artifact", ["net.onnx", "net.kcb", "net.keras"])
def test_bench_times_calls(kc: Callable[..., Result], artifact: str) -> None:
    record = kc("bench", artifact, "--batch", "4", "--threads", "1", "--seconds", "0.05", "--json").json()
    assert (record["batch"], record["threads"]) == (4, 1)
    assert record["calls"] >= 5
    assert 0 < record["p50"] <= record["p90"] <= record["p99"]
    assert record["rows_per_second"] == pytest.approx(4 / record["mean"])


def test_bench_prints_percentiles_for_people(kc: Callable[..., Result]) -> None:
    out = kc("bench", "net.onnx", "--seconds", "0.01", "--shape", "signal=?,50,?").out
    assert re.search(r"^latency +p50 \S+ \S+, p90 \S+ \S+, p99 \S+ \S+, mean \S+ \S+ of \d+ calls$", out, re.MULTILINE)


# ---- profile


@pytest.mark.parametrize(("artifact", "macs"), [("net.onnx", 0), ("net.kcb", 4 * (48 * 3 * 2 * 4) + 4 * 4 * 3)])
def test_profile_counts_what_layers_compute(kc: Callable[..., Result], artifact: str, macs: int) -> None:
    arguments = ("--batch", "4", "--shape", "signal=?,50,?", "--seconds", "0.05", "--json")
    record = kc("profile", artifact, *arguments).json()
    assert record["extents"] == {"N": 4, "T": 50}
    assert {"classes", "mean"} <= {layer["layer"] for layer in record["layers"]}
    assert sum(layer["share"] for layer in record["layers"]) == pytest.approx(1)
    assert record["seconds"] > 0
    assert record["total"]["macs"] == macs or record["engine"] == "onnxruntime"


def test_profile_prints_a_table_and_writes_a_trace_and_a_picture(kc: Callable[..., Result], tmp_path: Path) -> None:
    trace, picture = tmp_path / "t.json", tmp_path / "p.svg"
    out = kc("profile", "net.kcb", "--seconds", "0.02", "--trace", trace, "--picture", picture).out
    assert re.match(r"layer +kernels +time +share +GFLOP/s +of peak +bytes +GB/s\n", out)
    assert re.search(r"^classes +matrix, softmax +\S+ \S+ +\S+% ", out, re.MULTILINE), out
    assert re.search(r"^peak +[\d.]+ GFLOP/s of float32 on one core, measured$", out, re.MULTILINE)
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    layers_, kernels = ([event for event in events if event["cat"] == kind] for kind in ("layer", "kernel"))
    assert kernels[0]["ts"] == 0
    for before, after in itertools.pairwise(kernels):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"])
    assert sum(e["dur"] for e in layers_) == pytest.approx(sum(e["dur"] for e in kernels))
    assert [e["name"] for e in layers_][-1] == "classes"
    assert "<!-- classes -->" in picture.read_text()


def test_profile_is_of_compiled_code(kc: Callable[..., Result]) -> None:
    result = kc("profile", "net.keras")
    assert result.code == 1
    assert result.err == (
        "error: a profile is of compiled code. Received: the Keras file net.keras. "
        "Compile it, for example with --target tvm.\n"
    )


# ---- verify


def test_verify_prints_a_table(kc: Callable[..., Result]) -> None:
    for words in (["net.kcb"], ["net.kcb", "--against", "net.keras"], ["net.onnx", "--against", "net.keras"]):
        result = kc("verify", *words)
        assert result.code == 0
        titles, row, verdict = result.out.splitlines()
        assert titles.split() == ["output", "absolute", "relative", "ulp", "allowed"]
        assert row.split()[0] == "classes"
        assert verdict == f"{words[0]} agrees with the reference"


def test_verify_exits_with_3_where_numbers_disagree(kc: Callable[..., Result], tmp_path: Path) -> None:
    other = kcompile.load_model("net.keras")
    other.set_weights([w + 0.1 for w in other.get_weights()])
    other.save(tmp_path / "other.keras")
    result = kc("verify", "net.onnx", "--against", tmp_path / "other.keras")
    assert result.code == 3
    assert "net.onnx disagrees with the reference\nIt was made from net.keras with sha256 " in result.out
    assert "Compiled anew, the model agrees: the artifact was made from another model" in result.out
    record = kc("verify", "net.onnx", "--against", tmp_path / "other.keras", "--json")
    assert record.code == 3
    assert record.json()["agrees"] is False


def test_verify_refuses_a_damaged_bundle(kc: Callable[..., Result], tmp_path: Path) -> None:
    content = bytearray(Path("net.kcb").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "net.kcb").write_bytes(content)
    result = kc("verify", tmp_path / "net.kcb")
    assert result.code == 1
    assert result.err.startswith("error: net.kcb is damaged: ")


# ---- layers


def test_layers_lists_what_each_can_be_used_for(kc: Callable[..., Result]) -> None:
    by_name = {record["name"]: record for record in kc("layers", "--json").json()["layers"]}
    assert {"Dense", "Conv2D", "LSTM", "MultiHeadAttention"} <= set(by_name)
    works = dict.fromkeys(("reference", "training", "onnx", "tvm"), "")
    assert by_name["Conv2D"] == {"name": "Conv2D", "family": "convolution", **works}
    assert by_name["Discretization"] == {
        **by_name["Discretization"],
        **works,
        "training": "it gives no gradient: what goes in or comes out is no float",
    }


def test_the_page_of_supported_layers_is_what_the_command_prints(kc: Callable[..., Result]) -> None:
    page = Path(__file__).parents[2] / "docs" / "supported_layers.md"
    printed = kc("layers", "--markdown").out
    assert printed == page.read_text(encoding="utf-8"), "run: kcompile layers --markdown > docs/supported_layers.md"


@pytest.mark.parametrize(("text", "rows"), [("8,1", (1, 8)), ("4", (4,))])
def test_batch_takes_numbers_of_rows(kc: Callable[..., Result], folder: Path, text: str, rows: tuple[int, ...]):
    assert kc("net.keras", "-t", "tvm", "-o", "rows.kcb", "--batch", text).code == 0
    assert open_bundle(folder / "rows.kcb").batches == rows


@pytest.mark.parametrize("text", ["0", "1,x", "", "1,,8", "-1"])
def test_what_are_no_numbers_of_rows_is_a_wrong_command_line(kc: Callable[..., Result], text: str):
    result = kc("net.keras", "-t", "tvm", "-o", "rows.kcb", "--batch", text)
    assert result.code == 2
    assert "is no list of numbers of rows. Write 1 or 1,8." in result.err
