"""Writing ``.kcb`` bundles, byte for byte the same for the same model and versions.

Members are stored as they are, at multiples of 64 bytes, in a fixed order and with one fixed date. `runtime.bundle`
reads them.
"""

import hashlib
import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kcompile.codegen import sbom
from kcompile.codegen.backends import Program
from kcompile.codegen.parity import Report, Samples
from kcompile.errors import ArtifactError
from kcompile.ir.types import Array
from kcompile.runtime.bundle import ALIGNMENT, MANIFEST, SAMPLES, SCHEMA, manifest_digest
from kcompile.runtime.signing import SEAL, seal

# The earliest date that a zip can hold: nothing in a bundle depends on when it was made.
_DATE = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16
_UNIX = 3
# An extra field of bytes without meaning, as zipalign writes it: https://developer.android.com/tools/zipalign
_PADDING_FIELD = 0xD935
_EXTRA_HEADER = 4
_LOCAL_HEADER = 30
_ZIP64_EXTRA = 20


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle: a program, what is to be said about its making, and what the verification saw.

    With `key`, a PEM file with a private key, the bundle is signed.
    """

    program: Program
    notes: Mapping[str, str]
    report: Report
    key: Path | None = None


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and vanishes if it does not end well.

    Raises:
        ArtifactError: the folder is missing or may not be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bundle(file: BinaryIO, contents: Contents) -> None:
    """Write the bundle into an empty file."""
    members: dict[str, bytes | memoryview] = {
        **contents.program.members,
        **contents.program.recorded(contents.report),
        SAMPLES: samples_npz(contents.report.samples),
    }
    program = contents.program
    members[sbom.MEMBER] = sbom.bill(program.signature, contents.notes, _versions(program), members)
    files = {MANIFEST: json.dumps(_manifest(contents, members), indent=2).encode() + b"\n", **members}
    if contents.key:
        files[SEAL] = seal(program.signature.name, files, contents.key)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            _store(archive, file, name, content)


def _versions(program: Program) -> dict[str, str]:
    return {"kcompile": version("kcompile"), "numpy": version("numpy"), **program.versions}


def samples_npz(samples: Samples) -> bytes:
    """The samples as an ``.npz``: ``in0``, ``in1``, … and ``out0``, ``out1``, … in the signature's order."""
    named: dict[str, Array] = {f"in{i}": x for i, x in enumerate(samples.inputs.values())}
    named |= {f"out{i}": y for i, y in enumerate(samples.outputs.values())}
    buffer = io.BytesIO()
    write_npz(buffer, named)
    return buffer.getvalue()


def write_npz(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz`` as `numpy.savez` does, but under any names and without the time of day."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(_info(f"{name}.npy"), content.getvalue())


def _manifest(contents: Contents, members: Mapping[str, bytes | memoryview]) -> dict[str, Any]:
    program = contents.program
    manifest: dict[str, Any] = {
        "format": "kcompile bundle",
        "schema": SCHEMA,
        "signature": program.signature.to_json(),
        "artifact": dict(program.artifact),
        "program": dict(program.description),
        "target": dict(program.target),
        "memory": dict(program.memory),
        **_better(program),
        "notes": dict(contents.notes),
        "versions": _versions(program),
        "verification": contents.report.to_json(),
        "members": {
            name: {
                "bytes": len(content),
                "crc32": zlib.crc32(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in members.items()
        },
    }
    return {**manifest, "digest": manifest_digest(manifest)}


def _better(program: Program) -> dict[str, Any]:
    """What the manifest says of the builds for better CPUs, where there are any."""
    if not program.better:
        return {}
    builds = [
        {
            "artifact": dict(build.artifact),
            "program": dict(build.description),
            "target": dict(build.target),
            "memory": dict(build.memory),
        }
        for build in program.better
    ]
    return {"builds": [build.target["name"] for build in (*program.better, program)], "better": builds}


def _store(archive: zipfile.ZipFile, file: BinaryIO, name: str, content: bytes | memoryview) -> None:
    info = _info(name)
    header = _LOCAL_HEADER + len(name.encode()) + _EXTRA_HEADER
    header += _ZIP64_EXTRA if len(content) > zipfile.ZIP64_LIMIT else 0
    padding = -(file.tell() + header) % ALIGNMENT
    info.extra = _PADDING_FIELD.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
    archive.writestr(info, content)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = _READABLE
    info.create_system = _UNIX
    return info
