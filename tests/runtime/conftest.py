"""Bundles that many tests read."""

from pathlib import Path

import pytest

from tests.runtime.harness import make_bundle, small_graph


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("native") / "small.kcb", small_graph(), "tvm")


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("onnx") / "small.kcb", small_graph(), "onnx")
