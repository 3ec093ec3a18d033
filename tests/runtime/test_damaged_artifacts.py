"""Artifacts that are damaged or forged: one error of ours, whatever command reads them, and no memory for it."""

import hashlib
import io
import json
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.cli.main import FAILED, run
from kcompile.errors import ArtifactError, InputError, KCompileError
from kcompile.ir.types import TensorType
from kcompile.runtime.archive_arrays import read_arrays
from kcompile.runtime.bundle import MANIFEST, manifest_digest
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Plan
from tests.runtime.harness import members, packed, with_manifest

X = np.zeros((2, 10, 1), np.float32)
VALUES: list[Any] = [None, True, -1, 2**63, 1e308, "", "N", "../../etc/passwd", [], {}, [[]], {"a": 1}, "x" * 300]


def read_everywhere(path: Path) -> list[int]:
    """The exit codes of commands that read an artifact; nothing but errors of ours may come out of it."""
    for action in (lambda: kcompile.load(path, threads=1, check=True).predict(X), lambda: kcompile.verify(path)):
        with suppress(KCompileError):
            action()
    return [run([command, str(path), *more]) for command, *more in (["inspect"], ["profile", "--seconds", "0.01"])]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in items for place in places(part, (*path, key)))]


def forged(rng: random.Random, manifest: dict[str, Any]) -> None:
    """Change or take away one part."""
    *outer, last = rng.choice([place for place in places(manifest) if place])
    part: Any = manifest
    for key in outer:
        part = part[key]
    if isinstance(part, dict) and rng.random() < 0.4:
        del part[last]
    else:
        part[last] = rng.choice(VALUES)


@pytest.mark.parametrize("seed", range(40))
def test_forged_manifests_give_errors_of_ours(
    seed: int, onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    path = with_manifest(onnx, tmp_path / "m.kcb", lambda manifest: forged(rng, manifest))
    assert set(read_everywhere(path)) <= {0, FAILED}


def test_a_manifest_that_lacks_parts_names_them_all(native: Path, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        del manifest["versions"], manifest["memory"]["weight_bytes"]
        manifest["target"]["name"] = 3

    path = with_manifest(native, tmp_path / "m.kcb", change)
    with pytest.raises(ArtifactError) as refusal:
        kcompile.load(path)
    for law in ("`memory.weight_bytes`", "`versions`", "`target.name` must be of kind str. Received: 3."):
        assert law in str(refusal.value)


def header(shape: str, dtype: str = "'<f4'") -> bytes:
    """The start of an array in numpy's format."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("in0.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        zipped(header("(8589934592,)") + bytes(10)),
        zipped(header("(16777216,)") + bytes(1 << 26), zipfile.ZIP_DEFLATED),
        zipped(header("(1,)", "'|O'") + b"\x80\x04N."),
        zipped(header("(-1,)")),
        zipped(header("((((")),
        zipped(b"no array"),
        b"no archive",
    ],
)
def test_arrays_take_no_more_memory_than_their_archive(archive: bytes, native: Path, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read_arrays(archive)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000 + 8 * len(archive)
    finally:
        tracemalloc.stop()
    contents = members(native)
    manifest = json.loads(contents[MANIFEST])
    stated = {"bytes": len(archive), "crc32": zlib.crc32(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    manifest["members"]["samples.npz"] = stated
    manifest["digest"] = manifest_digest(manifest)
    path = packed(tmp_path / "m.kcb", contents | {"samples.npz": archive, MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(ArtifactError, match=r"member `samples\.npz` cannot be read"):
        kcompile.verify(path)


def damages(content: bytes) -> dict[str, Callable[[random.Random], bytes]]:
    """Ways to damage a file."""

    def flipped(rng: random.Random) -> bytes:
        made = bytearray(content)
        for _ in range(rng.choice([1, 1, 3, 20])):
            made[rng.randrange(len(made))] = rng.randrange(256)
        return bytes(made)

    def cut(rng: random.Random) -> bytes:
        start = rng.randrange(len(content))
        return content[:start] + content[start + rng.randrange(64) :]

    def grown(rng: random.Random) -> bytes:
        start = rng.randrange(len(content))
        return content[:start] + rng.randbytes(rng.randrange(1, 16)) + content[start:]

    return {
        "truncated": lambda rng: content[: rng.randrange(len(content))],
        "flipped": flipped,
        "cut": cut,
        "grown": grown,
    }


@pytest.mark.parametrize("kind", ["truncated", "flipped", "cut", "grown"])
def test_damaged_onnx_files_give_errors_of_ours(
    kind: str, onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage = damages(members(onnx)["model.onnx"])[kind]
    for seed in range(15):
        path = tmp_path / f"{seed}.onnx"
        path.write_bytes(damage(random.Random(seed)))
        assert set(read_everywhere(path)) <= {0, FAILED}
    # What the engine has to say of it stands in the error alone.
    assert "EP Error" not in capfd.readouterr().out


def test_names_of_nodes_that_are_no_text_do_not_stop_a_profile(onnx: Path, tmp_path: Path) -> None:
    content = members(onnx)["model.onnx"]
    name = next(name for name in (b"conv1/", b"conv/", b"dense/", b"/") if content.count(name))
    path = tmp_path / "m.onnx"
    path.write_bytes(content.replace(name, b"\xff" + name[1:]))
    assert run(["profile", str(path), "--seconds", "0.01"]) in (0, FAILED)


def test_calls_that_need_more_memory_than_there_is_say_so(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = kcompile.load(native)
    plan = Plan({"N": 1}, (TensorType("float32", (1, 1 << 50)),))
    monkeypatch.setattr(session.signature.__class__, "fit", lambda self, arrays: plan)
    with pytest.raises(InputError, match="needs more memory for this call than there is"):
        Session.run(session, {next(iter(session.inputs)): X[:1]})
