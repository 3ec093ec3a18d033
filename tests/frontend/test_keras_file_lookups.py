"""A file of Keras 3.15 whose layers learned their vocabularies, which stand beside the config.

`data/lookups.keras` was written by Keras on TensorFlow after `adapt`; `data/lookups.npz` holds its inputs and outputs.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kcompile
from kcompile.errors import ModelError
from kcompile.ir.evaluate import evaluate
from tests.frontend.errors import error_of

DATA = Path(__file__).parent / "data"
MODEL = DATA / "lookups.keras"


def recorded(kind: str) -> list[np.ndarray]:
    with np.load(DATA / "lookups.npz") as archive:
        return [archive[f"{kind}{i}"] for i in range(sum(name.startswith(kind) for name in archive))]


def assert_computes(model: kcompile.Model) -> None:
    graph = model.trace()
    found = evaluate(graph, dict(zip(graph.input_types, recorded("in"), strict=True)))
    for (name, y), expected in zip(found.items(), recorded("out"), strict=True):
        assert y.dtype == expected.dtype, name
        np.testing.assert_allclose(y, expected, rtol=1e-6, err_msg=name)


def changed(path: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """The model with members edited; one that becomes None is left out."""
    with zipfile.ZipFile(MODEL) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = edit(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def test_vocabularies_beside_the_config_are_read() -> None:
    assert_computes(kcompile.load_model(MODEL))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_vocabularies_are_saved(suffix: str, tmp_path: Path) -> None:
    kcompile.load_model(MODEL).save(tmp_path / f"again{suffix}")
    assert_computes(kcompile.load_model(tmp_path / f"again{suffix}"))


def test_the_model_runs_in_onnx(tmp_path: Path) -> None:
    path = tmp_path / "lookups.kcb"
    kcompile.compile(MODEL, "onnx", path)
    for found, expected in zip(kcompile.load(path).predict(recorded("in")), recorded("out"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert kcompile.verify(path).agrees


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.keras", lambda name, data: None if "string_lookup/" in name else data)
    text = error_of(ModelError, lambda: kcompile.load_model(path).trace())
    assert text.startswith("layer `string_lookup_3` needs its vocabulary")


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.keras", lambda name, data: b"\xff\xfe" if name.endswith(".txt") else data)
    assert "must be UTF-8 text" in error_of(ModelError, lambda: kcompile.load_model(path))


def test_a_vocabulary_of_integers_that_holds_words_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.keras", lambda name, data: b"a\nb" if "integer_lookup" in name else data)
    text = error_of(ModelError, lambda: kcompile.load_model(path))
    assert text.startswith("`vocabulary` of layer `integer_lookup` must be a list of integers")
