"""The bytes of an ONNX file, written with one copy of the weights at most.

Protobuf's own serializer needs two more, besides the one in the message. What is written is what it would write: fields
in the order of their numbers (https://protobuf.dev/programming-guides/encoding/).
"""

import io
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import onnx

from kcompile.codegen.onnx.emitter import onnx_dtype
from kcompile.ir.types import Array

Message = TypeVar("Message", onnx.ModelProto, onnx.GraphProto)

# Field numbers in onnx.proto: of the graph in a model, of an initializer in a graph, of the elements in a tensor.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


def encode(model: onnx.ModelProto, initializers: Mapping[str, Array]) -> bytes:
    """The bytes of `model`, which has no initializers yet, with these."""
    before, after = _split(model, _GRAPH)
    nodes, declarations = _split(model.graph, _INITIALIZER)
    headers = {name: _tensor_header(name, array) for name, array in initializers.items()}
    sizes = {name: len(header) + initializers[name].nbytes for name, header in headers.items()}
    fields = {name: _length_prefix(_INITIALIZER, size) for name, size in sizes.items()}
    graph_size = len(nodes) + sum(sizes.values()) + sum(map(len, fields.values())) + len(declarations)
    stream = io.BytesIO()
    stream.write(before + _length_prefix(_GRAPH, graph_size) + nodes)
    for name, array in initializers.items():
        stream.write(fields[name] + headers[name])
        stream.write(little_endian(array).reshape(-1).view(np.uint8).data)
    stream.write(declarations + after)
    return stream.getvalue()


def little_endian(array: Array) -> Array:
    """The elements in row-major order, low bytes first, as ONNX stores them."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _split(message: Message, number: int) -> tuple[bytes, bytes]:
    """The fields of `message` below and above a field number."""
    below, above = type(message)(), type(message)()
    for part in (below, above):
        part.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        for part, is_other in ((below, field.number >= number), (above, field.number <= number)):
            if is_other:
                part.ClearField(field.name)
    return below.SerializeToString(deterministic=True), above.SerializeToString(deterministic=True)


def _tensor_header(name: str, array: Array) -> bytes:
    """A tensor up to its elements."""
    header = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx_dtype(array.dtype.name))
    return header.SerializeToString(deterministic=True) + _length_prefix(_RAW_DATA, array.nbytes)


def _length_prefix(number: int, length: int) -> bytes:
    """The tag of a field that holds bytes or a message, and its length."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, low ones first; the high bit says that more follow."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
