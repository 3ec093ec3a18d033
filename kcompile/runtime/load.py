"""From an artifact's path to a session."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from kcompile.errors import ArtifactError
from kcompile.runtime.batches import BatchedSession
from kcompile.runtime.bundle import MANIFEST, Bundle, check_machine, is_bundle, open_bundle
from kcompile.runtime.library import LibraryProgram, LibrarySession
from kcompile.runtime.native import NativeProgram, NativeSession
from kcompile.runtime.session import THREADS_KEY, Session, check_threads
from kcompile.runtime.signature import as_count, as_dict, as_dim, as_list, as_text

# Field 1 of an ONNX model, `ir_version`, a number.
_ONNX_START = b"\x08"


def load(
    path: str | os.PathLike[str], threads: int | None = None, check: bool = False, key: Path | None = None
) -> Session:
    """The session of an ``.onnx`` file or a bundle, zipped or unpacked.

    Args:
        path: the artifact.
        threads: threads of one call; by default as many as this process may use CPUs.
        check: compare the SHA-256 of a bundle's members too, not only their CRC-32.
        key: a PEM file with the public key that a bundle must be signed by.

    Raises:
        ArtifactError: there is no such artifact, or it is damaged, of another machine or of another schema, or not
            signed by the key.
        MissingExtra: its engine is not installed.
    """
    artifact = existing(path)
    if is_bundle(artifact):
        bundle = open_bundle(artifact)
        if key:
            bundle.check_key(key)
        if check:
            bundle.check()
        return load_bundle(bundle, threads)
    if artifact.is_dir():
        raise ArtifactError(f"{artifact} is a folder, but no unpacked bundle: it holds no manifest.json.")
    if key:
        raise ArtifactError(f"{artifact.name} is no bundle, and so has no signature that `key` could check.")
    _require_onnx(artifact)
    from kcompile.runtime.onnx import OnnxSession

    return OnnxSession(artifact, threads)


def is_artifact(path: Path) -> bool:
    """Whether `path` is what `kcompile.compile` writes, by its suffix or its members; any ``.onnx`` file counts."""
    if path.is_dir():
        return is_bundle(path)
    if path.suffix.lower() in (".onnx", ".kcb"):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, RuntimeError, OverflowError):
        return False


def _require_onnx(path: Path) -> None:
    """Make sure that a file may be an ONNX model: it is named so, or begins as protobuf's writers begin one."""
    with path.open("rb") as file:
        start = file.read(1)
    if not start:
        raise ArtifactError(f"{path.name} is empty.")
    if path.suffix.lower() != ".onnx" and start != _ONNX_START:
        law = f"{path.name} must be a compiled artifact (.kcb, .onnx) or a Keras model (.keras, .h5, .json)"
        raise ArtifactError(f"{law}. Received: a file of another kind.")


def existing(path: str | os.PathLike[str]) -> Path:
    """`path`, which must be there and readable.

    Raises:
        ArtifactError: it is not.
    """
    found = Path(path)
    if not found.exists():
        raise ArtifactError(f"there is no file {found}.")
    if not os.access(found, os.R_OK):
        raise ArtifactError(f"{found} may not be read by this user.")
    return found


def load_bundle(bundle: Bundle, threads: int | None = None) -> Session:
    """The session of an open bundle.

    Raises:
        ArtifactError: it is of another machine, or of a kind that this version does not know.
    """
    if bundle.kind == "onnx":
        from kcompile.runtime.onnx import OnnxSession

        return OnnxSession(bytes(bundle.member("model")), threads, bundle.path.name)
    if bundle.kind == "native":
        check_machine(bundle)
        notes = as_dict(bundle.manifest.get("notes"), "notes")
        used = check_threads(threads, notes.get(THREADS_KEY))
        return _native_session(bundle, used, notes)
    if bundle.kind == "library":
        check_machine(bundle)
        notes = as_dict(bundle.manifest.get("notes"), "notes")
        return LibrarySession(bundle.signature, _library_program(bundle), bundle.path.name, notes)
    raise ArtifactError(
        f"{bundle.path.name} must hold an artifact of kind native, library or onnx. Received: {bundle.kind!r}."
    )


def _library_program(bundle: Bundle) -> LibraryProgram:
    artifact = as_dict(bundle.manifest["artifact"], "artifact")
    if "library" not in artifact:
        raise ArtifactError(f"{bundle.path.name} holds a static library alone. Unpack it, and link with it.")
    memory = as_dict(bundle.manifest.get("memory"), "memory")
    weights = bundle.member("weights") if "weights" in artifact else None
    function = as_text(artifact.get("function"), "artifact.function")
    workspace = as_count(memory.get("workspace_bytes"), "memory.workspace_bytes")
    return LibraryProgram(bundle.member("library"), weights, function, workspace)


def _native_session(bundle: Bundle, threads: int, notes: Mapping[str, str]) -> NativeSession:
    signature, name, program = bundle.signature, bundle.path.name, native_program(bundle)
    special = {rows: native_program(bundle.for_rows(rows)) for rows in bundle.batches}
    if not special:
        return NativeSession(signature, program, threads, name, notes)
    if signature.batch is None:
        raise ArtifactError(f"{name} is damaged: it has code for some numbers of rows, but no rows.")
    return BatchedSession(signature, program, special, threads, name, notes)


def native_program(bundle: Bundle) -> NativeProgram:
    """The program for any number of rows of a native bundle, or for those that `Bundle.for_rows` chose."""
    record = as_dict(bundle.manifest.get("program"), "program")
    symbols = tuple(as_text(symbol, "program.symbols") for symbol in as_list(record.get("symbols"), "program.symbols"))
    work = as_dim(record.get("work"), "program.work")
    return NativeProgram(bundle.member("library"), bundle.member("weights"), symbols, work)
