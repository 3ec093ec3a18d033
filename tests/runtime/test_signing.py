"""Signed bundles: OpenSSF's own tool accepts them, and loading refuses all others when a key is given."""

import base64
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import kcompile
from kcompile import layers
from kcompile.errors import ArtifactError, TargetError
from kcompile.runtime.signing import seal
from tests.edge.devices import unpacked


def model() -> kcompile.Model:
    return kcompile.Sequential([kcompile.Input((3,), name="x"), layers.Dense(2, name="y")], name="small")


def write_keys(folder: Path, name: str, curve: ec.EllipticCurve) -> tuple[Path, Path]:
    """The files of a private key and of its public key."""
    key = ec.generate_private_key(curve)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    form, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "key", ec.SECP256R1())


@pytest.fixture(scope="module")
def signed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "small.kcb"
    return kcompile.compile(model(), "onnx", path, sign=keys[0]).path


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_tool_of_openssf_verifies_an_unpacked_bundle(curve: ec.EllipticCurve, tmp_path: Path):
    private, public = write_keys(tmp_path, "key", curve)
    folder = unpacked(kcompile.compile(model(), "onnx", tmp_path / "m.kcb", sign=private).path, tmp_path / "m")
    command = [sys.executable, "-m", "model_signing", "verify", "key", folder, "--signature", folder / "model.sig"]
    done = subprocess.run([*command, "--public_key", public], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"x")
    assert subprocess.run([*command, "--public_key", public], capture_output=True, check=False).returncode != 0


def test_a_signed_bundle_is_loaded_with_its_key_zipped_and_unpacked(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
):
    for path in (signed, unpacked(signed, tmp_path / "small")):
        assert kcompile.load(path, key=keys[1]).predict([[1.0, 2.0, 3.0]]).shape == (1, 2)
    assert kcompile.load(signed).predict([[1.0, 2.0, 3.0]]).shape == (1, 2)


def test_equal_bundles_have_equal_signatures(signed: Path, keys: tuple[Path, Path]):
    with zipfile.ZipFile(signed) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "model.sig"}
        written = archive.read("model.sig")
    assert seal("small", files, keys[0]) == written


def test_another_key_is_refused(signed: Path, tmp_path: Path):
    _, other = write_keys(tmp_path, "other", ec.SECP256R1())
    with pytest.raises(ArtifactError) as error:
        kcompile.load(signed, key=other)
    assert str(error.value) == f"small.kcb is not signed by the key in {other}."


def test_a_bundle_without_a_signature_is_refused_when_a_key_is_given(keys: tuple[Path, Path], tmp_path: Path):
    path = kcompile.compile(model(), "onnx", tmp_path / "m.kcb").path
    with pytest.raises(ArtifactError, match=r"^m\.kcb must be signed by the key in .*\. Received: a bundle without a"):
        kcompile.load(path, key=keys[1])


def test_a_file_that_was_not_signed_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path):
    other = unpacked(kcompile.compile(model(), "onnx", tmp_path / "m.kcb").path, tmp_path / "other")
    with zipfile.ZipFile(signed) as archive:
        (other / "model.sig").write_bytes(archive.read("model.sig"))
    with pytest.raises(ArtifactError, match=r"^other is not what was signed: `manifest\.json` is another file\.$"):
        kcompile.load(other, key=keys[1])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mediaType": 3, "dsseEnvelope": {}}', "\x00"])
def test_a_signature_of_another_form_is_refused(text: str, signed: Path, keys: tuple[Path, Path], tmp_path: Path):
    folder = unpacked(signed, tmp_path / "small")
    (folder / "model.sig").write_text(text)
    with pytest.raises(ArtifactError, match=r"^small is damaged: its signature is none of OpenSSF Model Signing\.$"):
        kcompile.load(folder, key=keys[1])


def test_what_is_no_key_is_refused_before_the_work(keys: tuple[Path, Path], tmp_path: Path):
    edwards = tmp_path / "ed.pem"
    form, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    key = ed25519.Ed25519PrivateKey.generate()
    edwards.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (tmp_path / "text.pem").write_text("no key")
    for path in (edwards, tmp_path / "text.pem", keys[1], tmp_path / "absent.pem"):
        with pytest.raises(
            ArtifactError, match=r"^`key` must be a PEM file with a private key of P-256, P-384 or P-521"
        ):
            kcompile.compile(model(), "onnx", tmp_path / "m.kcb", sign=path)
    with pytest.raises(TargetError, match=r"^`sign` is for bundles\. Received: the output .*m\.onnx"):
        kcompile.compile(model(), "onnx", tmp_path / "m.onnx", sign=keys[0])


def test_the_statement_names_every_file(signed: Path):
    with zipfile.ZipFile(signed) as archive:
        names = set(archive.namelist())
        record = json.loads(archive.read("model.sig"))
    statement = json.loads(base64.b64decode(record["dsseEnvelope"]["payload"]))
    assert {resource["name"] for resource in statement["predicate"]["resources"]} == names - {"model.sig"}
