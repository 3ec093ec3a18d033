"""What the installed ONNX Runtime can run: opsets, IR versions, and the element types of its CPU kernels.

Nothing here is a list kept by hand: versions are found by opening one-node models, kernels by asking the engine.
"""

import importlib
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime

# Element types that hold every number of another one, nearest first.
WIDER = {
    "bool": ("uint8", "int8", "int32", "int64", "float32"),
    "int8": ("int16", "int32", "int64", "float32"),
    "uint8": ("int16", "int32", "int64", "float32"),
    "int16": ("int32", "int64", "float32"),
    "uint16": ("int32", "int64", "float32"),
    "int32": ("int64", "float64"),
    "uint32": ("int64", "float64"),
}


# The engine's own errors and its list of kernels are here only.
_STATE: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
REFUSALS: tuple[type[Exception], ...] = (
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.InvalidGraph,
    _STATE.NotImplemented,
)


@cache
def versions() -> tuple[int, int]:
    """The newest opset and IR version that both onnx can write and the engine opens."""
    ir_version = next(v for v in range(onnx.IR_VERSION, 0, -1) if _opens(20, v))
    opset = next(v for v in range(onnx.defs.onnx_opset_version(), 0, -1) if _opens(v, ir_version))
    return opset, ir_version


def _opens(opset: int, ir_version: int) -> bool:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except REFUSALS:
        return False
    return True


@cache
def _kernels() -> dict[str, list[tuple[int, int, dict[str, list[str]]]]]:
    """Version range and type constraints of every CPU kernel of the standard domain, by op type."""
    kernels: dict[str, list[tuple[int, int, dict[str, list[str]]]]] = {}
    definitions: list[Any] = _STATE.get_all_opkernel_def()
    for kernel in definitions:
        if kernel.provider == "CPUExecutionProvider" and kernel.domain in ("", "ai.onnx"):
            first, last = kernel.version_range
            kernels.setdefault(kernel.op_name, []).append((first, last, kernel.type_constraints))
    return kernels


@cache
def has_kernel(op_type: str, dtype: str, opset: int, operand: int = 0) -> bool:
    """Whether the engine has a kernel of `op_type` whose input number `operand` is of `dtype`."""
    if not onnx.defs.has(op_type, opset):
        return False
    schema = onnx.defs.get_schema(op_type, opset)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    name = f"tensor({onnx.TensorProto.DataType.Name(kind).lower()})"
    parameter = schema.inputs[min(operand, len(schema.inputs) - 1)]
    if name not in parameter.types:
        return False
    if dtype == "float16" and has_kernel(op_type, "float32", opset, operand):
        return True  # the engine puts casts around such a node itself
    return any(
        first <= schema.since_version <= last and name in constraints.get(parameter.type_str, [name])
        for first, last, constraints in _kernels().get(op_type, [])
    )


def nearest_dtype(op_type: str, dtype: str, opset: int, operand: int = 0) -> str | None:
    """`dtype` or the nearest wider one that the engine has a kernel of `op_type` for; None where there is none."""
    candidates = (dtype, *WIDER.get(dtype, ()))
    return next((d for d in candidates if has_kernel(op_type, d, opset, operand)), None)
