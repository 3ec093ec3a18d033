"""ONNX files on ONNX Runtime: those that kcompile wrote, and others."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kcompile.errors import ArtifactError, GraphError, InputError, MissingExtra
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.session import THREADS_KEY, Session, check_threads
from kcompile.runtime.signature import Plan, Signature, Structure

# The metadata key under which an ONNX file carries its signature.
SIGNATURE_KEY = "kcompile.signature"

_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}

_FATAL_ONLY = 4


class OnnxSession(Session):
    """An ONNX model on ONNX Runtime's CPU provider.

    Args:
        model: the file, or its bytes.
        threads: threads of one call; by default as many as this process may use CPUs.
        origin: what errors call the model.
        profile_prefix: where files of ONNX Runtime's profiler begin; empty for no profile.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ArtifactError: ONNX Runtime refuses the model.
    """

    engine = "onnxruntime"

    def __init__(
        self, model: Path | bytes, threads: int | None = None, origin: str = "", profile_prefix: str = ""
    ) -> None:
        self._profile_prefix = profile_prefix
        self._ort = _onnxruntime()
        self._errors = _engine_errors()
        used = check_threads(threads)
        source = model if isinstance(model, bytes) else str(model)
        origin = origin or (model.name if isinstance(model, Path) else "the model")
        try:
            self._session = self._open(source, used)
            notes: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            noted = check_threads(threads, notes.get(THREADS_KEY))
            if noted != used:
                used, self._session = noted, self._open(source, noted)
        except self._errors as error:
            raise ArtifactError(f"ONNX Runtime cannot load {origin}: {_first_line(error)}") from None
        super().__init__(_signature(self._session, origin), used, notes)
        self._outputs = list(self.outputs)

    def _open(self, source: str | bytes, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        if self._profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = self._profile_prefix
        # There is no other provider to fall back to, of which it would print a warning.
        return self._ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)

    def end_profile(self) -> Path:
        """The file of events that ONNX Runtime has written."""
        return Path(self._session.end_profiling())

    def _execute(self, arrays: list[Array], plan: Plan) -> list[Array]:
        try:
            results = self._session.run(self._outputs, dict(zip(self.inputs, arrays, strict=True)))
        except self._errors as error:
            shapes = ", ".join(f"`{name}`: {array.shape}" for name, array in zip(self.inputs, arrays, strict=True))
            refusal = f"ONNX Runtime cannot run {self.name} on these inputs. Received: {shapes}."
            raise InputError(f"{refusal} It says: {_first_line(error)}") from None
        # Texts come as Python's objects.
        return [array.astype(np.str_) if array.dtype.kind == "O" else array for array in results]


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        raise MissingExtra(
            'running ONNX files needs onnxruntime. Install it with: pip install "kcompile[onnx]"'
        ) from None


def _engine_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: a dozen classes whose only common base is `Exception`."""
    binding = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    classes = [value for value in vars(binding).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*classes, RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:500]


def _signature(session: Any, origin: str) -> Signature:
    """The signature that the file carries if kcompile wrote it, else one made from the file's types."""
    stored = session.get_modelmeta().custom_metadata_map.get(SIGNATURE_KEY)
    inputs, outputs = _types(session.get_inputs(), origin), _types(session.get_outputs(), origin)
    if stored is not None:
        return _stored_signature(stored, inputs, outputs, origin)
    names = list(outputs)
    structure: Structure = names[0] if len(names) == 1 else list(names)
    return Signature(session.get_modelmeta().graph_name or origin, inputs, outputs, structure)


def _stored_signature(
    text: str, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType], origin: str
) -> Signature:
    try:
        signature = Signature.from_json(json.loads(text))
    except (ValueError, ArtifactError) as error:
        raise ArtifactError(f"{origin} is damaged: its {SIGNATURE_KEY} cannot be read. {error}") from None
    if (_outline(signature.inputs), _outline(signature.outputs)) != (_outline(inputs), _outline(outputs)):
        raise ArtifactError(f"{origin} is damaged: its {SIGNATURE_KEY} does not describe its graph.")
    return signature


def _outline(types: Mapping[str, TensorType]) -> list[tuple[str, str, int]]:
    return [(name, type.dtype, type.rank) for name, type in types.items()]


def _types(tensors: Sequence[Any], origin: str) -> dict[str, TensorType]:
    types: dict[str, TensorType] = {}
    for tensor in tensors:
        if tensor.type not in _DTYPES:
            raise ArtifactError(f"kcompile cannot run {origin}: `{tensor.name}` is a {tensor.type}.")
        shape = tuple(_dim(dim, f"{tensor.name}_{axis}") for axis, dim in enumerate(tensor.shape))
        types[tensor.name] = TensorType(_DTYPES[tensor.type], shape)
    return types


def _dim(dim: int | str | None, fresh: str) -> Dim:
    """An extent as the file has it; one that is no expression becomes a symbol of its own."""
    if isinstance(dim, int):
        return dim
    try:
        return dims.canonical(dim or "")
    except GraphError:
        return "".join(c if c.isalnum() else "_" for c in f"d_{fresh}")
