"""Reading ``.kcb`` bundles: a zip of stored members, or the folder that unpacking one gives.

Loading checks the manifest's own digest, the size of every member and the CRC-32 of all but the largest (about 7 GB/s),
so that a truncated file or a changed byte is refused. `Bundle.check` compares the SHA-256 of every member as well
(about 2 GB/s), which `kcompile verify` and ``load(check=True)`` do. Members of a zip are stored at multiples of 64
bytes, so that weights are used where they lie: processes that load one bundle share one copy of them.
"""

import hashlib
import json
import mmap
import platform
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kcompile.errors import ArtifactError
from kcompile.ir.types import Array
from kcompile.runtime.archive_arrays import read_arrays
from kcompile.runtime.manifest_form import check_form
from kcompile.runtime.signature import Signature, as_count, as_dict, as_list, as_text
from kcompile.runtime.signing import SEAL, check_seal

SCHEMA = 1
MANIFEST = "manifest.json"
SAMPLES = "samples.npz"
# Offsets of members in the file, for vectors of any machine and for cache lines.
ALIGNMENT = 64

# What each build of a program for several CPUs has of its own.
_OF_A_BUILD = ("artifact", "program", "target", "memory")
# And what the code for a number of rows has.
OF_A_BATCH = ("artifact", "program", "memory")
_LOCAL_HEADER = 30
_MAX_MANIFEST = 64 << 20
# Bytes of members, the smallest first, of which loading sums the content: with more, that would take longer than all
# else, and touch every page of weights that other processes may hold in memory already.
_MOST_SUMMED = 32 << 20


@dataclass(frozen=True)
class Bundle:
    """An open bundle whose members have the sizes and checksums that its manifest states."""

    path: Path
    manifest: Mapping[str, Any]
    signature: Signature
    members: Mapping[str, memoryview]
    raw_manifest: memoryview = field(repr=False)
    seal: memoryview | None = field(default=None, repr=False)

    def check_key(self, key: Path) -> None:
        """Make sure that the bundle was signed by the private key that belongs to the public one in a PEM file.

        Raises:
            ArtifactError: it was not, or has been changed since.
            MissingExtra: the package that computes with keys is not installed.
        """
        check_seal(self.path.name, self.seal, {MANIFEST: self.raw_manifest, **self.members}, key)

    def member(self, key: str) -> memoryview:
        """The member that the manifest's `artifact` names under `key`."""
        name = as_text(as_dict(self.manifest["artifact"], "artifact").get(key), f"artifact.{key}")
        if name not in self.members:
            raise ArtifactError(f"{self.path.name} is damaged: it has no member `{name}`.")
        return self.members[name]

    @property
    def kind(self) -> str:
        """The engine of the artifact: ``"native"`` or ``"onnx"``."""
        return as_text(as_dict(self.manifest.get("artifact"), "artifact").get("kind"), "artifact.kind")

    @property
    def batches(self) -> tuple[int, ...]:
        """The numbers of rows for which it holds code of their own."""
        texts = as_dict(self._program.get("batches", {}), "program.batches")
        if not all(text.isdecimal() and int(text) for text in texts):
            raise _damaged(self.path, "its batches are no numbers")
        return tuple(map(int, texts))

    def for_rows(self, rows: int) -> "Bundle":
        """The bundle as calls with so many rows see it: with the code for them, where it holds any."""
        if rows not in self.batches:
            return self
        own = as_dict(self._program["batches"][str(rows)], "program.batches")
        return replace(self, manifest={**self.manifest, **{key: as_dict(own.get(key), key) for key in OF_A_BATCH}})

    @property
    def _program(self) -> dict[str, Any]:
        return as_dict(self.manifest.get("program"), "program")

    def samples(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """The recorded inputs and the reference's outputs for them, by name."""
        content = self.members.get(SAMPLES)
        if content is None:
            raise _damaged(self.path, f"it has no member `{SAMPLES}`")
        try:
            arrays = read_arrays(content)
            inputs = {name: arrays[f"in{i}"] for i, name in enumerate(self.signature.inputs)}
            outputs = {name: arrays[f"out{i}"] for i, name in enumerate(self.signature.outputs)}
        except (ValueError, KeyError) as error:
            raise _damaged(self.path, f"member `{SAMPLES}` cannot be read ({error})") from None
        return inputs, outputs

    def limits(self) -> dict[str, float]:
        """How far each output may be off, as the verification found when the bundle was made."""
        verified = as_list(as_dict(self.manifest.get("verification"), "verification").get("outputs"), "outputs")
        records = [as_dict(item, "outputs") for item in verified]
        limits: dict[str, Any] = {
            as_text(record.get("output"), "outputs.output"): record.get("allowed") for record in records
        }
        if set(limits) != set(self.signature.outputs) or not all(isinstance(v, float) for v in limits.values()):
            raise _damaged(self.path, "its verification does not name the outputs")
        return limits

    def check(self) -> None:
        """Compare the SHA-256 of every member.

        Raises:
            ArtifactError: a member's content is not what the manifest states.
        """
        for name, stated in self.manifest["members"].items():
            if hashlib.sha256(self.members[name]).hexdigest() != stated.get("sha256"):
                raise _damaged(self.path, f"the sha256 of member `{name}` is not the one that the manifest states")


def is_bundle(path: Path) -> bool:
    """Whether `path` has the form of a bundle: a folder with a manifest, or a zip file."""
    if path.is_dir():
        return (path / MANIFEST).exists()
    with path.open("rb") as file:
        return path.suffix == ".kcb" or (path.suffix != ".keras" and file.read(4) == b"PK\x03\x04")


def open_bundle(path: Path) -> Bundle:
    """The bundle at `path`, zipped or unpacked.

    Raises:
        ArtifactError: it is damaged, or this version of kcompile does not know its schema.
    """
    contents = _folder_members(path) if path.is_dir() else _zip_members(path)
    raw, seal = contents.pop(MANIFEST, None), contents.pop(SEAL, None)
    manifest = _manifest(path, raw)
    try:
        check_form(manifest)
        _check_members(path, as_dict(manifest.get("members"), "members"), contents)
        manifest = _for_this_machine(manifest)
        return Bundle(
            path, manifest, Signature.from_json(manifest.get("signature")), contents, raw or memoryview(b""), seal
        )
    except ArtifactError as error:
        raise error if str(error).startswith(path.name) else _damaged(path, f"in its manifest, {error}") from None


def _for_this_machine(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with what it says of the best build whose instructions this CPU has."""
    for build in [as_dict(each, "better") for each in as_list(manifest.get("better", []), "better")]:
        if not machine_misfit(as_dict(build.get("target"), "better.target")):
            return {**manifest, **{key: as_dict(build.get(key), f"better.{key}") for key in _OF_A_BUILD}}
    return manifest


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of all of `manifest` but its own ``digest``."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_machine(bundle: Bundle) -> None:
    """Make sure that this machine can run the bundle's instructions.

    Raises:
        ArtifactError: the bundle is for another machine.
    """
    target = as_dict(bundle.manifest.get("target"), "target")
    misfit = machine_misfit(target)
    if misfit:
        name = as_text(target.get("name"), "target.name")
        raise ArtifactError(f"{bundle.path.name} is for {name}. Received: {misfit}. Compile the model on this machine.")


def machine_misfit(target: Mapping[str, Any]) -> str:
    """What keeps this machine from running code for `target`; empty where nothing does."""
    architecture = as_text(target.get("architecture"), "target.architecture")
    needed = {as_text(flag, "target.flags") for flag in as_list(target.get("flags"), "target.flags")}
    if architecture != _architecture():
        return f"this {_architecture()} machine"
    lacking = sorted(needed - _cpu_flags())
    return f"a CPU without {', '.join(lacking)}" if lacking else ""


def _architecture() -> str:
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _manifest(path: Path, content: memoryview | None) -> dict[str, Any]:
    if content is None:
        raise ArtifactError(f"{path.name} is no bundle: it holds no {MANIFEST}.")
    if len(content) > _MAX_MANIFEST:
        raise _damaged(path, f"{MANIFEST} is too long")
    try:
        manifest = json.loads(bytes(content))
    except (ValueError, RecursionError):
        raise _damaged(path, f"{MANIFEST} is no JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "kcompile bundle":
        raise ArtifactError(f"{path.name} is no bundle: its {MANIFEST} is another program's.")
    if manifest.get("schema") != SCHEMA:
        received = repr(manifest.get("schema"))[:80]
        raise ArtifactError(
            f"{path.name} must have schema {SCHEMA} for this version of kcompile. Received: {received}. "
            "Compile the model again, or use the kcompile that wrote it."
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise _damaged(path, f"{MANIFEST} has been changed")
    return manifest


def _check_members(path: Path, stated: Mapping[str, Any], held: Mapping[str, memoryview]) -> None:
    missing, extra = sorted(set(stated) - set(held)), sorted(set(held) - set(stated))
    if missing:
        raise _damaged(path, f"it has no member `{missing[0]}`")
    if extra:
        raise _damaged(path, f"the manifest does not name its member `{extra[0][:80]}`")
    summed = 0
    for name, content in sorted(held.items(), key=lambda item: len(item[1])):
        record = as_dict(stated[name], f"members.{name}")
        if len(content) != as_count(record.get("bytes"), f"members.{name}.bytes"):
            raise _damaged(path, f"member `{name}` has {len(content)} bytes instead of {record['bytes']}")
        summed += len(content)
        if summed <= _MOST_SUMMED and zlib.crc32(content) != record.get("crc32"):
            raise _damaged(path, f"the content of member `{name}` has been changed")


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path.name} is damaged: {what}. Copy or compile it again.")


def _folder_members(path: Path) -> dict[str, memoryview]:
    """The files that the manifest names, and the manifest."""
    members = {MANIFEST: _mapped(path / MANIFEST)} if (path / MANIFEST).is_file() else {}
    stated = as_dict(_manifest(path, members.get(MANIFEST)).get("members"), "members")
    for name in (*stated, SEAL):
        _check_name(path, name)
        if (path / name).is_file():
            members[name] = _mapped(path / name)
    return members


def _mapped(path: Path) -> memoryview:
    """The file's content, in memory that all processes share."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _zip_members(path: Path) -> dict[str, memoryview]:
    content = _mapped(path)
    members: dict[str, memoryview] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError, OverflowError) as error:
        raise _damaged(path, f"it is no whole zip file ({error})") from None
    for info in infos:
        _check_name(path, info.filename)
        if info.filename in members:
            raise _damaged(path, f"it has two members `{info.filename}`")
        members[info.filename] = _stored(path, content, info)
    return members


def _stored(path: Path, content: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member, which must be stored as they are."""
    header = bytes(content[info.header_offset : info.header_offset + _LOCAL_HEADER])
    plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    if not plain or len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise _damaged(path, f"member `{info.filename}` is not stored plainly")
    name_length, extra_length = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = info.header_offset + _LOCAL_HEADER + name_length + extra_length
    if start + info.file_size > len(content):
        raise _damaged(path, f"member `{info.filename}` ends beyond the file")
    return content[start : start + info.file_size]


def _check_name(path: Path, name: str) -> None:
    """A member is a plain file name, so that no bundle can reach outside itself."""
    if not name or name in (".", "..") or any(c in name for c in "/\\\0:"):
        raise _damaged(path, f"`{name[:80]}` is no member's name")
