"""Tests that ask real Keras what is right. They run in an environment of their own, which `make oracle` makes:

    python3 -m venv .venv-oracle
    .venv-oracle/bin/python -m pip install --require-hashes -r requirements/oracle.txt
    .venv-oracle/bin/python -m pip install --no-build-isolation --no-deps --editable .
    KERAS_BACKEND=jax .venv-oracle/bin/python -m pytest -m oracle

Where Keras is not installed these files are not even imported; whoever asks for the group there is told how to get it.
"""

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest

# Before the first `import keras`: JAX installs without TensorFlow and runs every layer on a CPU.
os.environ.setdefault("KERAS_BACKEND", "jax")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    without_keras = importlib.util.find_spec("keras") is None
    return True if without_keras and collection_path.suffix == ".py" else None


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go() -> Generator[None]:
    """JAX keeps a program for every shape of every operation: gigabytes, by the end of the group."""
    yield
    import jax

    jax.clear_caches()
