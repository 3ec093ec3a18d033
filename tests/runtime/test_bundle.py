"""Bundles: what is written is what is read, and whatever is wrong with one is said in one sentence."""

import json
import os
import random
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ArtifactError, InputError, KCompileError
from kcompile.runtime import bundle as bundle_module
from kcompile.runtime import load
from kcompile.runtime.bundle import ALIGNMENT, MANIFEST, open_bundle
from kcompile.runtime.reference import ReferenceSession
from tests.runtime.harness import make_bundle, members, packed, small_graph, unpacked, with_manifest

X = np.linspace(-2, 2, 70, dtype=np.float32).reshape(7, 10, 1)
EXPECTED = ReferenceSession(small_graph()).predict(X)


def refused(path: Path, **options: Any) -> str:
    """The one sentence with which loading fails."""
    with pytest.raises(ArtifactError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(path.name)
    return text


# ---- what is written


@pytest.mark.parametrize("target", ["tvm", "onnx"])
def test_a_bundle_predicts_zipped_and_unpacked(target: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue({"tvm": "native", "onnx": "onnx"}[target])
    for artifact in (path, unpacked(path, tmp_path / "folder")):
        for check in (False, True):
            np.testing.assert_allclose(load(artifact, check=check).predict(X), EXPECTED, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", ["tvm", "onnx"])
def test_the_same_graph_gives_the_same_bytes(target: str, tmp_path: Path) -> None:
    first, second = (make_bundle(tmp_path / f"{i}.kcb", small_graph(), target).read_bytes() for i in range(2))
    assert first == second


def test_members_are_stored_at_multiples_of_64_bytes_with_one_date(native: Path) -> None:
    content = native.read_bytes()
    with zipfile.ZipFile(native) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST, "model.so", "weights.bin", "samples.npz", "sbom.cdx.json"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert content.index(archive.read(info), info.header_offset + 30) % ALIGNMENT == 0


def test_the_manifest_says_what_the_bundle_is(native: Path) -> None:
    manifest = json.loads(members(native)[MANIFEST])
    assert manifest["schema"] == 1
    assert manifest["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 10, 1]}]
    assert manifest["signature"]["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": ["N", 4]}]
    assert manifest["memory"]["weight_bytes"] >= 80
    assert manifest["verification"]["agrees"] is True
    assert set(manifest["members"]) == set(members(native)) - {MANIFEST}
    assert {"kcompile", "numpy", "apache-tvm"} <= set(manifest["versions"])


def test_recorded_samples_are_the_references(native: Path) -> None:
    inputs, outputs = open_bundle(native).samples()
    np.testing.assert_allclose(
        outputs["probabilities"], ReferenceSession(small_graph()).run(inputs)["probabilities"], rtol=1e-6
    )


def test_numpy_reads_the_samples(native: Path, tmp_path: Path) -> None:
    with np.load(unpacked(native, tmp_path) / "samples.npz") as samples:
        assert sorted(samples) == ["in0", "out0"]


def test_an_engine_note_sets_the_default_number_of_threads(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "one.kcb", small_graph(), "onnx", {"kcompile.threads": "1"})
    assert load(path).threads == 1
    assert load(path, threads=2).threads == 2


# ---- damage


def test_a_bundle_cut_anywhere_is_refused(native: Path, tmp_path: Path) -> None:
    content = native.read_bytes()
    cut = tmp_path / "cut.kcb"
    draws = random.Random(0)
    for length in [0, 1, 4, 22, 64, len(content) - 1, *(draws.randrange(len(content)) for _ in range(30))]:
        cut.write_bytes(content[:length])
        # Cut behind the samples, what is left is their zip behind other bytes.
        assert re.match(r"cut\.kcb is (damaged: |no bundle: it holds no manifest\.json)", refused(cut))


def test_a_changed_byte_is_refused_or_changes_nothing(native: Path, tmp_path: Path) -> None:
    content = bytearray(native.read_bytes())
    path = tmp_path / "changed.kcb"
    draws = random.Random(1)
    tail = range(len(content) - 400, len(content))
    refusals = 0
    for position in [*tail, *range(200), *(draws.randrange(len(content)) for _ in range(200))]:
        changed = content.copy()
        changed[position] ^= 1 << draws.randrange(8)
        path.write_bytes(changed)
        try:
            session = load(path)
        except ArtifactError:
            refusals += 1
            continue
        # Padding, dates and other bytes that mean nothing.
        np.testing.assert_allclose(session.predict(X), EXPECTED, rtol=1e-5, atol=1e-7)
    assert refusals > 100


@pytest.mark.parametrize("member", ["model.so", "weights.bin", "samples.npz", "sbom.cdx.json"])
def test_a_changed_byte_in_a_member_is_refused(native: Path, tmp_path: Path, member: str) -> None:
    contents = members(native)
    changed = bytearray(contents[member])
    changed[len(changed) // 2] ^= 1
    path = packed(tmp_path / "b.kcb", {**contents, member: bytes(changed)})
    assert refused(path) == (
        f"b.kcb is damaged: the content of member `{member}` has been changed. Copy or compile it again."
    )


def test_large_members_are_summed_on_request_alone(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = members(native)
    monkeypatch.setattr(bundle_module, "_MOST_SUMMED", len(contents["weights.bin"]) - 1)
    changed = bytearray(contents["weights.bin"])
    changed[-1] ^= 1
    path = packed(tmp_path / "b.kcb", {**contents, "weights.bin": bytes(changed)})
    load(path)
    assert "the sha256 of member `weights.bin` is not the one" in refused(path, check=True)


def test_members_are_summed_the_smallest_first_up_to_a_sum_of_their_sizes(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = members(native)
    sizes = {name: len(content) for name, content in contents.items() if name != "manifest.json"}
    by_size = sorted(sizes, key=lambda name: sizes[name])
    monkeypatch.setattr(bundle_module, "_MOST_SUMMED", sum(sizes.values()) - 1)
    for name in by_size:
        changed = bytes([contents[name][0] ^ 1]) + contents[name][1:]
        path = packed(tmp_path / "b.kcb", {**contents, name: changed})
        if name == by_size[-1]:
            bundle_module.open_bundle(path)
        else:
            assert f"`{name}` has been changed" in refused(path)


def test_a_changed_byte_in_an_unpacked_bundle_is_refused(native: Path, tmp_path: Path) -> None:
    for name in members(native):
        folder = unpacked(native, tmp_path / name)
        content = bytearray((folder / name).read_bytes())
        content[-3] ^= 1
        (folder / name).write_bytes(content)
        assert " is damaged: " in refused(folder)


def test_the_sha256_is_checked_when_asked_for(native: Path, tmp_path: Path) -> None:
    path = with_manifest(native, tmp_path / "b.kcb", lambda m: m["members"]["weights.bin"].update(sha256="0" * 64))
    load(path)
    assert "the sha256 of member `weights.bin`" in refused(path, check=True)


def test_a_changed_manifest_is_refused(native: Path, tmp_path: Path) -> None:
    contents = members(native)
    manifest = contents[MANIFEST].replace(b'"weight_bytes": 1', b'"weight_bytes": 2').replace(b"[\n", b"[ ")
    changed = manifest.replace(b'"float32"', b'"float64"', 1)
    assert changed != manifest
    path = packed(tmp_path / "b.kcb", {**contents, MANIFEST: changed})
    assert refused(path) == "b.kcb is damaged: manifest.json has been changed. Copy or compile it again."


@pytest.mark.parametrize("member", ["model.so", "weights.bin", "samples.npz", "sbom.cdx.json"])
def test_a_missing_member_is_named(native: Path, tmp_path: Path, member: str) -> None:
    contents = members(native)
    del contents[member]
    expected = f"is damaged: it has no member `{member}`. Copy or compile it again."
    assert refused(packed(tmp_path / "b.kcb", contents)).endswith(expected)
    folder = unpacked(native, tmp_path / "folder")
    (folder / member).unlink()
    assert refused(folder).endswith(expected)


def test_a_member_that_the_manifest_does_not_name_is_refused(native: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "b.kcb", {**members(native), "extra.bin": b"!"})
    assert "the manifest does not name its member `extra.bin`" in refused(path)


def test_files_beside_an_unpacked_bundle_do_not_matter(native: Path, tmp_path: Path) -> None:
    folder = unpacked(native, tmp_path / "folder")
    (folder / "README.txt").write_text("mine")
    load(folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_twice_is_refused(native: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "b.kcb", members(native))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights.bin", b"other")
    assert "it has two members `weights.bin`" in refused(path)


def test_a_compressed_member_is_refused(native: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "b.kcb", members(native), zipfile.ZIP_DEFLATED)
    assert "member `manifest.json` is not stored plainly" in refused(path)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "a/b", "..", "a\\b", "c:d", "sub/"])
def test_a_member_whose_name_leads_elsewhere_is_refused(native: Path, tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "b.kcb", {**members(native), name: b""})
    assert "is no member's name" in refused(path)
    folder = unpacked(native, tmp_path / "folder")
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["members"][name] = {"bytes": 0, "crc32": 0, "sha256": ""}
    manifest["digest"] = bundle_module.manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert "is no member's name" in refused(folder)


# ---- manifests


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 200_000, b"3"])
def test_a_manifest_that_is_no_manifest_is_refused(native: Path, tmp_path: Path, content: bytes) -> None:
    refused(packed(tmp_path / "b.kcb", {**members(native), MANIFEST: content}))


def test_a_zip_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    path = packed(tmp_path / "b.kcb", {"a": b"b"})
    assert refused(path) == "b.kcb is no bundle: it holds no manifest.json."


def test_a_bundle_of_another_schema_is_refused(native: Path, tmp_path: Path) -> None:
    path = with_manifest(native, tmp_path / "b.kcb", lambda m: m.update(schema=2))
    assert refused(path) == (
        "b.kcb must have schema 1 for this version of kcompile. Received: 2. "
        "Compile the model again, or use the kcompile that wrote it."
    )


def test_another_programs_manifest_is_refused(native: Path, tmp_path: Path) -> None:
    path = with_manifest(native, tmp_path / "b.kcb", lambda m: m.update(format="app"))
    assert refused(path) == "b.kcb is no bundle: its manifest.json is another program's."


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["signature"], 3),
        (["signature", "name"], None),
        (["signature", "inputs"], {}),
        (["signature", "inputs", 0], "x"),
        (["signature", "inputs", 0, "name"], 7),
        (["signature", "inputs", 0, "dtype"], "float31"),
        (["signature", "inputs", 0, "shape"], "N"),
        (["signature", "inputs", 0, "shape", 1], -10),
        (["signature", "inputs", 0, "shape", 1], True),
        (["signature", "inputs", 0, "shape", 0], "__import__('os')"),
        (["signature", "inputs", 0, "shape", 0], "N**99"),
        (["signature", "inputs", 0, "shape", 0], "-" * 1900 + "N"),
        (["signature", "inputs", 0, "shape", 0], "N+" * 5000 + "N"),
        (["signature", "structure"], "y"),
        (["signature", "structure"], 5),
        (["signature", "minimums"], {"N": -1}),
        (["artifact"], None),
        (["artifact", "kind"], "magic"),
        (["artifact", "library"], "absent"),
        (["artifact", "weights"], None),
        (["program"], None),
        (["program", "symbols"], ["Q"]),
        (["program", "symbols"], [1]),
        (["program", "work"], "Q*2"),
        (["program", "work"], "f(N)"),
        (["program", "work"], 1.5),
        (["target"], []),
        (["target", "flags"], [1]),
        (["target", "architecture"], 64),
        (["members"], []),
        (["members", "model.so"], []),
        (["members", "model.so", "bytes"], "many"),
        (["notes"], 1),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(native: Path, tmp_path: Path, keys: list[Any], value: object) -> None:
    def change(manifest: Any) -> None:
        *path, last = keys
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    with pytest.raises(ArtifactError):
        load(with_manifest(native, tmp_path / "b.kcb", change))


def test_a_library_that_is_none_is_refused(native: Path, tmp_path: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        manifest["artifact"]["library"] = "weights.bin"

    with pytest.raises(ArtifactError, match=r"the program in b\.kcb cannot be loaded on this machine"):
        load(with_manifest(native, tmp_path / "b.kcb", swap))


# ---- machines


def test_a_bundle_of_another_architecture_is_refused(native: Path, tmp_path: Path) -> None:
    path = with_manifest(
        native, tmp_path / "b.kcb", lambda m: m["target"].update(name="riscv64", architecture="riscv64")
    )
    expected = f"b.kcb is for riscv64. Received: this {os.uname().machine} machine. Compile the model on this machine."
    assert refused(path) == expected


def test_a_cpu_that_lacks_instructions_is_refused(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = json.loads(members(native)[MANIFEST])["target"]["flags"]
    if not flags:
        pytest.skip("the target of this machine needs no flags")
    monkeypatch.setattr(bundle_module, "_cpu_flags", lambda: frozenset(flags[1:]))
    assert f"Received: a CPU without {flags[0]}. Compile the model on this machine." in refused(native)


# ---- other files


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no file"):
        load(tmp_path / "absent.kcb")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is a folder, but no unpacked bundle: it holds no manifest\.json"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"text", b"\x08\x07\x12\x00broken", bytes(1000)])
def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"^ONNX Runtime cannot load model\.onnx: "):
        load(path)


# ---- native programs


def test_weights_are_used_where_they_lie(native: Path) -> None:
    bundle = open_bundle(native)
    session = bundle_module_load(bundle)
    assert np.shares_memory(session._weights, np.frombuffer(bundle.members["weights.bin"], np.uint8))


def bundle_module_load(bundle: bundle_module.Bundle) -> Any:
    from kcompile.runtime.load import load_bundle

    return load_bundle(bundle, 1)


def test_weights_that_lie_at_an_odd_place_are_moved(native: Path, tmp_path: Path) -> None:
    """As after packing the folder with another program."""
    contents = members(native)
    for length in range(1, 5):
        path = packed(tmp_path / f"{'x' * length}.kcb", contents)
        np.testing.assert_allclose(load(path).predict(X), EXPECTED, rtol=1e-5, atol=1e-7)


def test_loading_leaves_no_files_and_no_descriptors(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load(native).predict(X)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        load(native).predict(X)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert list(tmp_path.iterdir()) == []


def test_programs_in_one_process_stay_apart(native: Path, tmp_path: Path) -> None:
    """Loaders know libraries by path: the same path again would give the library before."""
    sessions = {4: load(native)}
    for classes in (2, 3, 5):
        graph = small_graph(np.ones((5, classes), np.float32))
        sessions[classes] = load(make_bundle(tmp_path / f"{classes}.kcb", graph, "tvm"))
    for classes in (2, 3, 5):
        np.testing.assert_allclose(sessions[classes].predict(X), np.full((7, classes), 1 / classes), rtol=1e-6)
    np.testing.assert_allclose(sessions[4].predict(X), EXPECTED, rtol=1e-5, atol=1e-7)


def test_a_bundle_that_was_replaced_is_read_anew(native: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.kcb"
    shutil.copyfile(native, path)
    old = load(path)
    make_bundle(path, small_graph(np.ones((5, 4), np.float32)), "tvm")
    np.testing.assert_allclose(load(path).predict(X), 0.25, rtol=1e-6)
    np.testing.assert_allclose(old.predict(X), EXPECTED, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_below_one_is_refused(native: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="`threads` must be an integer from 1 on"):
        load(native, threads=threads)


def test_too_many_rows_at_once_are_refused_without_a_crash(native: Path) -> None:
    huge = np.broadcast_to(np.float32(0), (2**31, 10, 1))
    session = load(native)
    with pytest.raises(KCompileError, match="cannot run on arrays this large at once"):
        session._execute([huge], session.signature.fit([huge]))
