"""The C library from C++ and Rust: what is generated compiles there and computes what the reference computes."""

import subprocess
import sys
from pathlib import Path

import pytest

import kcompile
from kcompile.codegen.library.bindings import rust
from kcompile.codegen.library.interface import interface
from kcompile.ir.types import TensorType
from kcompile.runtime.signature import Signature
from tests.codegen.library.test_backend import HERE, runs_here
from tests.codegen.library.test_stepping import sequence_model
from tests.edge.devices import unpacked

LENGTH = 7

CPP = r"""
#define main selftest_main
extern "C" {
#include "main.c"
}
#undef main
#include <math.h>
#include "m.hpp"

static float y[m_cpp::Model::output_scores_size];

static bool agrees()
{
    for (size_t i = 0; i < m_cpp::Model::output_scores_size; i++) {
        if (fabsf(y[i] - out_scores[i]) > 1e-4f) {
            return false;
        }
    }
    return true;
}

static m_cpp::Model model;

int main()
{
    if (model.run(in_x, y) != 0 || !agrees()) {
        return 1;
    }
    for (int again = 0; again < 2; again++) {
        model.reset();
        for (int t = 0; t < M_STEPS; t++) {
            model.step(in_x + 4 * t, y);
        }
        if (!agrees()) {
            return 2;
        }
    }
    return 0;
}
"""


def model() -> kcompile.Model:
    return sequence_model(kcompile.layers.GRU(5), kcompile.layers.Dense(2, name="scores"))


@runs_here
def test_the_cpp_class_runs_and_steps(tmp_path: Path):
    unpacked(kcompile.compile(model(), f"tvm:{HERE}", tmp_path / "m.kcb").path, tmp_path)
    (tmp_path / "use.cpp").write_text(CPP)
    compiler = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-x",
        "c++",
        "-std=c++11",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
    ]
    flags = ["-Wno-deprecated", "-Wno-unused-function", "-O1", "-fno-exceptions"]
    subprocess.run([*compiler, *flags, "use.cpp", "-x", "none", "libm.a", "-o", "use"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "use"], check=False).returncode == 0


@pytest.mark.parametrize("external", [True, False])
def test_the_rust_declarations_name_what_the_header_names(external: bool):
    types = {"type": TensorType("float32", (1, 3)), "self": TensorType("bool", ()), "a/b": TensorType("int64", (2,))}
    text = rust(interface(Signature("m", types, {"y": TensorType("float16", (1, 4))}, "y"), "m", 100, 8, 7, external))
    assert "pub r#type: *const f32," in text
    assert "pub self_: *const u8," in text
    assert "pub a_b: *const i64," in text
    assert "pub y: *mut u16," in text
    assert "pub const M_WORKSPACE_BYTES: usize = 100;" in text
    assert ("weights: *const core::ffi::c_void" in text) == external
