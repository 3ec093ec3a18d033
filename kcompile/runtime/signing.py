"""Signatures of bundles, in the format of OpenSSF Model Signing v1.0: who has the key made these very files.

A signature is a Sigstore bundle of one DSSE envelope; its payload is an in-toto statement with the SHA-256 of every
file. Keys are those of elliptic curves (P-256, P-384, P-521) in PEM. Sources:
https://github.com/ossf/model-signing-spec, https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md and
https://docs.sigstore.dev/about/bundle/.
"""

import base64
import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kcompile.errors import ArtifactError, MissingExtra

SEAL = "model.sig"

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


def seal(name: str, files: Mapping[str, bytes | memoryview], key: Path) -> bytes:
    """The signature of `files` with the private key in a PEM file; equal files give equal bytes (RFC 6979).

    Raises:
        ArtifactError: the file holds no such key.
        MissingExtra: the package that computes with keys is not installed.
    """
    private = _key(key, "private")
    payload = json.dumps(_statement(name, files)).encode()
    ec, algorithm = _crypto("asymmetric.ec"), _hash(private)
    made = private.sign(_encoded(payload), ec.ECDSA(algorithm, deterministic_signing=True))
    record = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(private.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
        },
    }
    return json.dumps(record, indent=2).encode() + b"\n"


def check_private_key(path: Path) -> None:
    """Make sure that a file holds a key to sign with.

    Raises:
        ArtifactError: it does not.
        MissingExtra: the package that computes with keys is not installed.
    """
    _key(path, "private")


def check_seal(origin: str, signature: bytes | memoryview | None, files: Mapping[str, memoryview], key: Path) -> None:
    """Make sure that the holder of the private key that belongs to `key`, a public one, signed exactly these files.

    Raises:
        ArtifactError: there is no signature, it is another key's, or the files are not those that were signed.
        MissingExtra: the package that computes with keys is not installed.
    """
    if signature is None:
        raise ArtifactError(f"{origin} must be signed by the key in {key}. Received: a bundle without a signature.")
    signed = _signed_files(origin, bytes(signature), key)
    for name in sorted(set(signed) | set(files)):
        if name not in files:
            raise ArtifactError(f"{origin} lacks `{name}`, which was signed.")
        if signed.get(name) != hashlib.sha256(files[name]).hexdigest():
            raise ArtifactError(f"{origin} is not what was signed: `{name}` is another file.")


def _signed_files(origin: str, signature: bytes, key: Path) -> dict[str, str]:
    """The SHA-256 of every file in the statement, whose signature is checked."""
    public = _key(key, "public")
    try:
        record = json.loads(signature)
        envelope = record["dsseEnvelope"]
        payload, made = base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])
        known = record["mediaType"] == _MEDIA_TYPE and envelope["payloadType"] == _PAYLOAD_TYPE
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        known, payload, made = False, b"", b""
    if not known:
        raise ArtifactError(f"{origin} is damaged: its signature is none of OpenSSF Model Signing.")
    invalid = importlib.import_module("cryptography.exceptions").InvalidSignature
    try:
        public.verify(made, _encoded(payload), _crypto("asymmetric.ec").ECDSA(_hash(public)))
    except invalid:
        raise ArtifactError(f"{origin} is not signed by the key in {key}.") from None
    return _resources(origin, payload)


def _resources(origin: str, payload: bytes) -> dict[str, str]:
    try:
        statement = json.loads(payload)
        known = statement["_type"] == _STATEMENT_TYPE and statement["predicateType"] == _PREDICATE_TYPE
        resources = statement["predicate"]["resources"]
        digests = {resource["name"]: resource["digest"] for resource in resources if resource["algorithm"] == "sha256"}
    except (ValueError, KeyError, TypeError, RecursionError):
        known, digests = False, dict[str, str]()
    if not known:
        raise ArtifactError(f"{origin} is damaged: its signature is of another kind than OpenSSF Model Signing v1.0.")
    return digests


def _statement(name: str, files: Mapping[str, bytes | memoryview]) -> dict[str, Any]:
    digests = {file: hashlib.sha256(files[file]) for file in sorted(files)}
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests.values()))
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SEAL]}
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root.hexdigest()}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": serialization,
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest.hexdigest()} for file, digest in digests.items()
            ],
        },
    }


def _encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's encoding of the payload and its type."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def _crypto(module: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.hazmat.primitives.{module}")
    except ImportError as error:
        text = 'signatures need cryptography. Install it with: pip install "kcompile[sign]"'
        raise MissingExtra(text) from error


def _key(path: Path, kind: str) -> Any:
    """The private or public key in a PEM file."""
    serialization, law = (
        _crypto("serialization"),
        f"`key` must be a PEM file with a {kind} key of P-256, P-384 or P-521",
    )
    try:
        content = path.read_bytes()
        private = kind == "private"
        key = (
            serialization.load_pem_private_key(content, None) if private else serialization.load_pem_public_key(content)
        )
        known = key.curve.name in _HASHES
    except OSError as error:
        raise ArtifactError(f"{law}. Received: {path}, which cannot be read ({error.strerror or error}).") from None
    except (ValueError, TypeError, AttributeError, _unsupported()):
        known, key = False, None
    if not known:
        raise ArtifactError(f"{law}, without a password. Received: {path}, which holds none.")
    return key


def _unsupported() -> type[Exception]:
    return importlib.import_module("cryptography.exceptions").UnsupportedAlgorithm


def _hash(key: Any) -> Any:
    return getattr(_crypto("hashes"), _HASHES[key.curve.name])()


def _hint(public: Any) -> str:
    """SHA-256 of the public key's PEM text."""
    serialization = _crypto("serialization")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.PEM, form)).hexdigest()
