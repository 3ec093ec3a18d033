"""Linking with either tool chain, and without any."""

import importlib.util
import shutil

import numpy as np
import pytest

from kcompile.codegen.tvm import build
from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.errors import MissingExtra, TargetError
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from tests.codegen.tvm.model import Model


def graph() -> Graph:
    b = Builder()
    return b.build([b(ops.Exp(), b.input("x", TensorType("float32", ("N", 3))))])


@pytest.fixture
def without_ziglang(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else find(name))


@pytest.mark.usefixtures("without_ziglang")
def test_a_system_compiler_links_where_ziglang_is_missing(monkeypatch: pytest.MonkeyPatch):
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    monkeypatch.delenv("CC", raising=False)
    model = Model(graph())
    inputs = {"x": np.ones((2, 3), np.float32)}
    np.testing.assert_allclose(model.run(inputs, 2)["output_0"], evaluate(model.graph, inputs)["output_0"], rtol=1e-6)


@pytest.mark.usefixtures("without_ziglang")
def test_without_any_linker_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        Model(graph())
    text = (
        f'target "tvm" needs ziglang to link for {host().name}, or a C compiler of that machine. '
        'Install it with: pip install "kcompile[tvm]"'
    )
    assert str(error.value) == text


@pytest.mark.usefixtures("without_ziglang")
def test_a_system_compiler_does_not_link_for_another_architecture():
    other = MACHINES["x86-64-v2" if host().name == "aarch64" else "aarch64"]
    with pytest.raises(MissingExtra, match=other.name):
        build.link_library([], [], other)


def test_a_linker_that_fails_says_what_it_said():
    with pytest.raises(TargetError, match="linking failed"):
        build.link_library([b"no object file"], [], host())
