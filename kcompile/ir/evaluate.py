"""The NumPy reference: what a graph means, computed node by node."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kcompile.errors import InputError
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import Arrays, Op
from kcompile.ir.ops.arithmetic import Cast
from kcompile.ir.ops.fused import Fused
from kcompile.ir.types import Array, bind_shapes, dtype_of, type_of


def evaluate(
    graph: Graph, inputs: Mapping[str, Array], *, precision: str | None = None, keep: Sequence[Value] = ()
) -> dict[str, Array]:
    """The outputs of `graph` by name, for inputs by name.

    Args:
        precision: a float dtype (``"float64"``) in which all float arithmetic is done; by default each tensor's own.
        keep: values whose arrays are returned too, under ``"%0"``, ``"%1"`` and so on.

    Raises:
        InputError: an input is missing or unknown, or its shape or dtype does not fit.
    """
    checked = check_inputs(graph, inputs)
    bindings = bind_shapes(graph.input_types, {name: array.shape for name, array in checked.items()})
    arguments = tuple(checked[value.name] for value in graph.inputs)
    if precision:
        arguments = tuple(_in_precision(a, precision) for a in arguments)
    with np.errstate(all="ignore"):
        results = run_nodes(graph, arguments, bindings, precision, keep)
    names = (*graph.output_names, *(f"%{i}" for i in range(len(keep))))
    return dict(zip(names, results, strict=True))


def check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs as arrays, in the graph's order.

    Raises:
        InputError: names or dtypes do not fit.
    """
    types = graph.input_types
    if set(inputs) != set(types):
        raise InputError(
            f"the model's inputs are {', '.join(types) or 'none'}. Received: {', '.join(inputs) or 'none'}."
        )
    arrays = {name: np.asarray(inputs[name]) for name in types}
    wrong = [
        f"input `{name}` must have dtype {types[name].dtype}. Received: {dtype_of(array)}."
        for name, array in arrays.items()
        if dtype_of(array) != types[name].dtype
    ]
    if wrong:
        raise InputError("\n".join(wrong))
    return arrays


def run_nodes(
    graph: Graph,
    arguments: Arrays,
    bindings: Mapping[str, Dim] | None = None,
    precision: str | None = None,
    keep: Sequence[Value] = (),
) -> Arrays:
    """The outputs of `graph`, then `keep`, for unchecked arguments; arrays are let go after their last use."""
    values: dict[Value, Array] = dict(zip(graph.inputs, arguments, strict=True))
    left = dict(graph.uses)
    for value in keep:
        left[value] = left.get(value, 0) + 1
    for node in graph.nodes:
        results = _run(node, tuple(values[v] for v in node.inputs), bindings, precision)
        values.update(zip(node.outputs, results, strict=True))
        for value in node.inputs:
            left[value] -= 1
            if not left[value]:
                del values[value]
    return tuple(values[v] for v in (*graph.outputs, *keep))


def _run(node: Node, args: Arrays, bindings: Mapping[str, Dim] | None, precision: str | None) -> Arrays:
    op = node.op.bind(bindings) if bindings else node.op
    if isinstance(op, Fused):
        return run_nodes(op.body, args, bindings, precision)
    floats = [value.type.is_float for value in node.outputs]
    if not precision or not any(floats):
        return computed(op, args)
    # A cast between floats would round in the midst of arithmetic that is to be finer than its types.
    results = args if isinstance(op, Cast) else op.kernel(args)
    return tuple(r.astype(precision, copy=False) if f else r for r, f in zip(results, floats, strict=True))


def computed(op: Op, args: Arrays) -> Arrays:
    """The results of `op`; halves are computed in float32 and rounded once, so that no sum of them overflows."""
    if not any(array.dtype == np.float16 for array in args):
        return op.kernel(args)
    types = op.result_types(tuple(type_of(array) for array in args))
    wide = tuple(array.astype(np.float32) if array.dtype == np.float16 else array for array in args)
    return tuple(array.astype(type.dtype, copy=False) for array, type in zip(op.kernel(wide), types, strict=True))


def _in_precision(array: Array, precision: str) -> Array:
    return array.astype(precision, copy=False) if array.dtype.kind == "f" else array


def bind_graph(graph: Graph, bindings: Mapping[str, Dim]) -> Graph:
    """`graph` with symbols replaced in the types of its inputs and in its ops' attributes."""
    inputs = tuple(Value(v.type.bind(bindings), name=v.name) for v in graph.inputs)
    values = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        made = Node(node.op.bind(bindings), tuple(values[v] for v in node.inputs), node.source)
        values.update(zip(node.outputs, made.outputs, strict=True))
    return replace(graph, inputs=inputs, outputs=tuple(values[v] for v in graph.outputs))
