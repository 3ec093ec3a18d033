"""``kcompile targets``, and what the command line shows of a C library."""

import json
from pathlib import Path

import pytest

import kcompile
from kcompile.cli.main import run
from tests.edge.models import build


def test_the_targets_are_listed_with_what_each_gives_and_needs(capsys: pytest.CaptureFixture[str]):
    assert run(["targets", "--json"]) == 0
    records = {record["target"]: record for record in json.loads(capsys.readouterr().out)["targets"]}
    assert records["tvm:cortex-m7"]["tools"] == "arm-none-eabi-gcc"
    assert records["tvm:aarch64-linux"] == {
        "target": "tvm:aarch64-linux",
        "gives": "a C library, .a and .so",
        "triple": "aarch64-linux-gnu",
        "cpu": "generic",
        "features": "+neon",
        "tools": "zig cc, qemu-aarch64",
    }


def test_the_workspace_is_drawn_over_time_and_its_peak_marked(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb").path
    assert run(["inspect", str(path), "--memory"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    drawn = {line.split()[0]: line for line in lines if "matrix" in line}
    assert "peak" in drawn["second"]
    assert "peak" not in drawn["first"]
    assert drawn["first"].rstrip().endswith("█" * 24 + "·" * 24)
    assert drawn["second"].rstrip().endswith("█" * 48)


def test_memory_is_drawn_of_c_libraries_only(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = kcompile.compile(build("mlp"), "onnx", tmp_path / "m.kcb").path
    assert run(["inspect", str(path), "--memory"]) == 1
    error = "error: m.kcb is no bundle of a C library: its memory is planned when it is called.\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize(("text", "fits"), [("512", True), ("1K", True), ("0.5K", None), ("511B", False)])
def test_max_ram_takes_bytes_and_multiples_of_1024(text: str, fits: bool | None, tmp_path: Path):
    build("mlp").save(tmp_path / "mlp.keras")
    arguments = ["compile", str(tmp_path / "mlp.keras"), "-t", "tvm:cortex-m7", "-o", str(tmp_path / "m.kcb")]
    assert run([*arguments, "--quiet", "--max-ram", text]) == {True: 0, False: 1, None: 2}[fits]
