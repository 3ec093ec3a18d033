"""Checks a model with ONNX's own checker and shape inference, and holds the result against the IR's types.

Weights take no part: they are declared as inputs while checking, so that nothing large is copied.
"""

from collections.abc import Mapping

import onnx

from kcompile.codegen.onnx.assemble import value_info
from kcompile.codegen.onnx.emitter import onnx_dtype
from kcompile.errors import GraphError
from kcompile.ir.types import Array, TensorType, type_of

# An initializer above this size holds weights, never a shape that inference must read.
_WEIGHT_BYTES = 4096


def check(model: onnx.ModelProto, initializers: Mapping[str, Array], types: Mapping[str, TensorType]) -> None:
    """Check `model`, which has no initializers yet, and declare every tensor's type in it.

    Args:
        types: what the IR says of tensors.

    Raises:
        GraphError: the model breaks ONNX's rules, or its types are not the IR's.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name, array in initializers.items():
        if array.nbytes > _WEIGHT_BYTES:
            probe.graph.input.append(value_info(name, type_of(array)))
        else:
            probe.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    try:
        onnx.checker.check_model(probe, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(probe, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"an emitted model must pass ONNX's checker. Received: {error}") from error
    declared = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    problems = [
        f"  {name}: {onnx.helper.printable_value_info(declared[name])}, in the IR {type_}"
        for name, type_ in types.items()
        if name in declared and not _agree(declared[name], type_)
    ]
    if problems:
        raise GraphError("types that ONNX infers must be the IR's. Received:\n" + "\n".join(problems))
    known = [value_info(name, types[name]) if name in types else value for name, value in declared.items()]
    outputs = {value.name for value in model.graph.output}
    model.graph.value_info.extend(value for value in known if value.name not in outputs)


def _agree(declared: onnx.ValueInfoProto, type_: TensorType) -> bool:
    tensor = declared.type.tensor_type
    if tensor.elem_type != onnx_dtype(type_.dtype):
        return False
    if not tensor.HasField("shape"):
        return True
    extents = tensor.shape.dim
    return len(extents) == type_.rank and all(
        not extent.HasField("dim_value") or isinstance(dim, str) or extent.dim_value == dim
        for extent, dim in zip(extents, type_.shape, strict=True)
    )
