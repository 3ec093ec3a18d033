"""C libraries for every machine reproduce the reference on it: emulated, or natively under sanitizers."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.codegen.tvm.targets import MACHINES
from tests.edge.devices import TARGETS, check, misfit, require, stack_of, unpacked
from tests.edge.models import IN_BANDS, MODELS, build

pytestmark = pytest.mark.edge

# Machines of every kind, and the most stack that a C library's memset or memcpy takes.
SMALL = [
    "aarch64-linux",
    "armv7-linux",
    "riscv64-linux",
    "riscv64-linux-v",
    "wasm32",
    "cortex-m4f",
    "cortex-m7",
    "cortex-m33",
]
LIBC_STACK = 64


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_computes_on_the_machine_what_the_reference_computes(model: str, target: str, tmp_path: Path):
    if misfit(target):
        pytest.skip(f"{target} has no emulator, and this is {misfit(target)}")
    bundle = kcompile.compile(build(model), f"tvm:{target}", tmp_path / "model.kcb")
    proven(model, target, unpacked(bundle.path, tmp_path / "unpacked"))


def proven(model: str, target: str, folder: Path) -> None:
    """The self-test of an unpacked bundle passes, and a run takes no more stack than the manifest says."""
    assert check(target, folder).splitlines()[-1] == f"{model}: ok"
    memory = json.loads((folder / "manifest.json").read_text())["memory"]
    if target == "wasm32":
        return  # its stack is not in memory that a program can address
    assert stack_of(target, folder, model) <= memory["stack_bytes"] + (LIBC_STACK if memory["needs"] else 0)


@pytest.mark.parametrize("target", SMALL)
@pytest.mark.parametrize("model", ["cnn", "lstm", "transformer"])
def test_small_code_and_half_weights_compute_it_too(model: str, target: str, tmp_path: Path):
    options: dict[str, Any] = {"optimize": "size", "weights_dtype": "f16"}
    bundle = kcompile.compile(build(model), f"tvm:{target}", tmp_path / "model.kcb", **options)
    proven(model, target, unpacked(bundle.path, tmp_path / "unpacked"))


@pytest.mark.parametrize("target", ["aarch64-linux", "cortex-m4f", "cortex-m7"])
@pytest.mark.parametrize("model", IN_BANDS)
def test_first_layers_in_bands_compute_it_within_half_the_workspace(model: str, target: str, tmp_path: Path):
    bundle = kcompile.compile(build(model), f"tvm:{target}", tmp_path / "model.kcb")
    folder = unpacked(bundle.path, tmp_path / "unpacked")
    memory = json.loads((folder / "manifest.json").read_text())["memory"]
    assert memory["workspace_bytes"] <= 0.6 * memory["bands"]["workspace_without"]
    proven(model, target, folder)


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


RUST = """
#[path = "gru.rs"]
mod gru;

#[repr(align(64))]
struct Workspace([u8; gru::GRU_WORKSPACE_BYTES]);

fn main() {
    let tokens: [i32; gru::GRU_STEPS] = core::array::from_fn(|i| 3 * i as i32);
    let (mut whole, mut stepped) = ([0f32; gru::GRU_OUTPUT_SCORES_SIZE], [0f32; gru::GRU_OUTPUT_SCORES_SIZE]);
    let mut workspace = Workspace([0; gru::GRU_WORKSPACE_BYTES]);
    unsafe {
        let mut outputs = gru::gru_outputs { scores: whole.as_mut_ptr() };
        let inputs = gru::gru_inputs { tokens: tokens.as_ptr() };
        assert_eq!(gru::gru_run(&inputs, &mut outputs, workspace.0.as_mut_ptr().cast()), 0);
        let mut outputs = gru::gru_outputs { scores: stepped.as_mut_ptr() };
        let mut state: gru::gru_state = core::mem::zeroed();
        for token in &tokens {
            let inputs = gru::gru_inputs { tokens: token };
            assert_eq!(gru::gru_step(&inputs, &mut outputs, &mut state, workspace.0.as_mut_ptr().cast()), 0);
        }
    }
    println!("{:?}", whole);
    assert!(whole.iter().zip(&stepped).all(|(a, b)| (a - b).abs() < 1e-4));
}
"""


def test_rust_runs_and_steps(tmp_path: Path):
    require("rustc")
    bundle = kcompile.compile(build("gru"), "tvm:x86-64-v2-linux", tmp_path / "model.kcb")
    folder = unpacked(bundle.path, tmp_path / "unpacked")
    (folder / "use.rs").write_text(RUST)
    subprocess.run(["rustc", "-A", "dead_code", "-L", ".", "-l", "static=gru", "use.rs"], cwd=folder, check=True)
    printed = subprocess.run(["./use"], cwd=folder, check=True, capture_output=True, text=True).stdout
    expected = build("gru").predict(np.arange(0, 36, 3, dtype=np.int32)[None])[0]
    np.testing.assert_allclose(np.array(printed.strip("[]\n").split(", "), np.float32), expected, 1e-4, 1e-5)
