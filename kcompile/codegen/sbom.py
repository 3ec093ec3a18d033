"""The bill of materials of a bundle: a machine-learning BOM of CycloneDX 1.6 in JSON.

Equal models and equal tools give equal bytes.

Source: https://cyclonedx.org/docs/1.6/json/.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import kcompile
from kcompile.runtime.signature import Signature

MEMBER = "sbom.cdx.json"

_TOOL_FILES = (".py", ".so", ".c", ".h", ".in", ".a", ".exe", "")


def bill(
    signature: Signature,
    notes: Mapping[str, str],
    versions: Mapping[str, str],
    members: Mapping[str, bytes | memoryview],
) -> bytes:
    """The bill of a model that the packages `versions` made into `members`."""
    tools = [_tool(name, version) for name, version in versions.items()]
    parts = [_source(notes), *tools, *(_file(name, content) for name, content in members.items())]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [_plain(tools[0])]}, "component": _model(signature)},
        "components": parts,
        "dependencies": [{"ref": "model", "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    named = {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}", **content}
    return (
        json.dumps({"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", **named}, indent=2).encode() + b"\n"
    )


def _model(signature: Signature) -> dict[str, Any]:
    """What was compiled, with what it takes and gives."""
    parameters = {
        "inputs": [{"format": f"{name}: {type}"} for name, type in signature.inputs.items()],
        "outputs": [{"format": f"{name}: {type}"} for name, type in signature.outputs.items()],
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": signature.name or "model",
        "modelCard": {"modelParameters": parameters},
    }


def _source(notes: Mapping[str, str]) -> dict[str, Any]:
    """The Keras file; a model that was made in Python has none."""
    digest = notes.get("kcompile.source_sha256")
    keras = notes.get("kcompile.keras_version")
    record: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "source",
        "name": notes.get("kcompile.source") or "a model made in Python",
        "description": "the Keras model that was compiled",
    }
    record |= {"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {}
    return record | ({"properties": [{"name": "keras:version", "value": keras}]} if keras else {})


def _tool(name: str, version: str) -> dict[str, Any]:
    record = {
        "type": "library",
        "bom-ref": f"tool:{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    digest = _package_digest(name)
    return record | ({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {})


def _plain(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool where it is named as one; references must differ."""
    return {key: value for key, value in tool.items() if key != "bom-ref"} | {"type": "application"}


def _file(name: str, content: bytes | memoryview) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


@cache
def _package_digest(name: str) -> str:
    """SHA-256 over the names and digests of a package's files; empty where it is not known what they are."""
    if name == "kcompile":
        return _kcompile_digest()
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return ""
    hashed = ((str(file), file.hash.value) for file in files if file.hash and not file.parts[0].startswith(".."))
    return _digest(
        (path, value) for path, value in hashed if Path(path).suffix in _TOOL_FILES and ".dist-info" not in path
    )


def _kcompile_digest() -> str:
    """That of this package's files as they are, which need not be those that were installed."""
    root = Path(kcompile.__file__).parent
    paths = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return _digest((path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)


def _digest(pairs: Iterable[tuple[str, str]]) -> str:
    lines = [f"{value}  {path}\n" for path, value in sorted(pairs)]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""
