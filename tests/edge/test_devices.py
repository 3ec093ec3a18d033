"""C libraries for every machine reproduce the reference on it: emulated, or natively under sanitizers."""

from pathlib import Path

import pytest

import kcompile
from kcompile.codegen.tvm.targets import MACHINES
from tests.edge.devices import TARGETS, check, misfit, require, unpacked
from tests.edge.models import MODELS, build

pytestmark = pytest.mark.edge


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_computes_on_the_machine_what_the_reference_computes(model: str, target: str, tmp_path: Path):
    if misfit(target):
        pytest.skip(f"{target} has no emulator, and this is {misfit(target)}")
    bundle = kcompile.compile(build(model), f"tvm:{target}", tmp_path / "model.kcb")
    printed = check(target, unpacked(bundle.path, tmp_path / "unpacked"))
    assert printed.splitlines()[-1] == f"{model}: ok"


@pytest.mark.parametrize("target", ["aarch64-linux", "wasm32", "cortex-m7"])
def test_weights_in_a_file_give_the_same_results(target: str, tmp_path: Path):
    bundle = kcompile.compile(build("cnn"), f"tvm:{target}", tmp_path / "model.kcb", weights="external")
    printed = check(target, unpacked(bundle.path, tmp_path / "unpacked"))
    assert printed.splitlines()[-1] == "cnn: ok"


@pytest.mark.parametrize("model", MODELS)
def test_the_self_test_is_clean_under_sanitizers(model: str, tmp_path: Path):
    require("gcc")
    bundle = kcompile.compile(build(model), "tvm:x86-64-v2-linux", tmp_path / "model.kcb")
    sanitized = "CC=gcc -fsanitize=address,undefined -fno-sanitize-recover=all -Werror"
    printed = check("x86-64-v2-linux", unpacked(bundle.path, tmp_path / "unpacked"), sanitized)
    assert printed.splitlines()[-1] == f"{model}: ok"


@pytest.mark.parametrize("model", MODELS)
def test_plain_c_is_clean_under_sanitizers_and_without_warnings(model: str, tmp_path: Path):
    require("gcc")
    bundle = kcompile.compile(build(model), "c", tmp_path / "model.kcb")
    sanitized = "CC=gcc -fsanitize=address,undefined -fno-sanitize-recover=all -Werror"
    printed = check("x86-64-v2-linux", unpacked(bundle.path, tmp_path / "unpacked"), sanitized)
    assert printed.splitlines()[-1] == f"{model}: ok"


def test_plain_c_runs_on_a_bare_machine(tmp_path: Path):
    bundle = kcompile.compile(build("gru"), "c", tmp_path / "model.kcb")
    compiler = f"CC={MACHINES['cortex-m7'].compiler}"
    printed = check("cortex-m7", unpacked(bundle.path, tmp_path / "unpacked"), compiler)
    assert printed.splitlines()[-1] == "gru: ok"


def test_a_wrong_result_fails_the_self_test(tmp_path: Path):
    bundle = kcompile.compile(build("mlp"), "tvm:x86-64-v2-linux", tmp_path / "model.kcb")
    folder = unpacked(bundle.path, tmp_path / "unpacked")
    text = (folder / "main.c").read_text()
    first = text.index("{", text.index("in_image[784]")) + 1
    (folder / "main.c").write_text(text[:first] + " 9.0f +" + text[first:])
    with pytest.raises(AssertionError, match=r"output scores is off by"):
        check("x86-64-v2-linux", folder)


def test_a_workspace_that_is_too_small_fails_the_self_test(tmp_path: Path):
    bundle = kcompile.compile(build("mlp"), "tvm:x86-64-v2-linux", tmp_path / "model.kcb")
    folder = unpacked(bundle.path, tmp_path / "unpacked")
    header = folder / "mlp.h"
    header.write_text(header.read_text().replace("WORKSPACE_BYTES 512", "WORKSPACE_BYTES 508"))
    with pytest.raises(AssertionError, match="the run wrote outside its workspace"):
        check("x86-64-v2-linux", folder)
