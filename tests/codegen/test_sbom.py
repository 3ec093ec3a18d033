"""The bill of materials: valid by CycloneDX's own tool, and true."""

import hashlib
import json
import zipfile
from importlib.metadata import version
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import kcompile
from tests.edge.models import build


def test_a_bill_is_valid_and_names_the_source_and_every_tool_with_hashes(tmp_path: Path):
    build("mlp").save(tmp_path / "mlp.keras")
    path = kcompile.compile(tmp_path / "mlp.keras", "tvm:cortex-m7", tmp_path / "m.kcb").path
    with zipfile.ZipFile(path) as archive:
        text = archive.read("sbom.cdx.json").decode()
        library = archive.read("libmlp.a")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = {part["name"]: part for part in json.loads(text)["components"]}
    assert (
        parts["mlp.keras"]["hashes"][0]["content"] == hashlib.sha256((tmp_path / "mlp.keras").read_bytes()).hexdigest()
    )
    assert parts["libmlp.a"]["hashes"][0]["content"] == hashlib.sha256(library).hexdigest()
    for tool in ("kcompile", "numpy", "apache-tvm", "ziglang"):
        assert parts[tool]["version"] == version(tool)
        assert len(parts[tool]["hashes"][0]["content"]) == 64
