"""What each layer can be used for, found by trying it: what `kcompile layers` prints."""

import importlib
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kcompile.codegen.lowering import LoweringTable
from kcompile.errors import GraphError, KCompileError, MissingExtra, ModelError, UnsupportedOp
from kcompile.frontend import Input, Model, layers
from kcompile.frontend.layer import LAYERS, Layer
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.ops import Constant
from kcompile.ir.passes.grad import pullback
from kcompile.ir.passes.pipeline import inference

COLUMNS = ("reference", "training", "onnx", "tvm")

_TABLES = {"onnx": ("kcompile.codegen.onnx", "ONNX"), "tvm": ("kcompile.codegen.tvm.rules", "TVM")}

# Values of the arguments that layers cannot do without.
_ARGUMENTS: dict[str, Any] = {
    "activation": "relu",
    "axes": 1,
    "bin_boundaries": [0.0, 1.0],
    "dims": (2, 1),
    "drop_path_rate": 0.5,
    "equation": "ab,bc->ac",
    "factor": 0.2,
    "filters": 4,
    "head_dim": 2,
    "height": 4,
    "height_factor": 0.2,
    "init_values": 0.1,
    "input_dim": 4,
    "kernel_size": 2,
    "key_dim": 3,
    "max_number": 3,
    "n": 3,
    "num_bins": 5,
    "num_heads": 2,
    "num_key_value_heads": 2,
    "num_query_heads": 4,
    "num_tokens": 4,
    "output_dim": 2,
    "output_shape": 3,
    "output_size": 2,
    "pool_size": 2,
    "projection_dim": 3,
    "rate": 0.5,
    "scale": 0.5,
    "stddev": 0.5,
    "target_shape": (-1,),
    "units": 3,
    "width": 4,
    "width_factor": 0.2,
}
_ARGUMENTS_OF: dict[str, dict[str, Any]] = {
    "Bidirectional": {"layer": layers.LSTM(3)},
    "Cropping2D": {"cropping": 1},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "GroupNormalization": {"groups": 2},
    "IntegerLookup": {"vocabulary": [3, 5]},
    "Pipeline": {"layers": [layers.Rescaling(0.5), layers.Dense(3)]},
    "RNN": {"cell": layers.LSTMCell(3)},
    "SpectralNormalization": {"layer": layers.Dense(3)},
    "StackedRNNCells": {"cells": [layers.GRUCell(3), layers.LSTMCell(3)]},
    "StringLookup": {"vocabulary": ["a", "b"]},
    "TextVectorization": {"vocabulary": ["a", "b"], "output_sequence_length": 3},
    "TimeDistributed": {"layer": layers.Dense(3)},
}
# Inputs to try, in this order: the first that a layer accepts is taken.
_SHAPES: tuple[tuple[int, ...], ...] = (
    (8, 8, 3),
    (8, 4),
    (4,),
    (8, 8, 8, 2),
    (4, 8, 8, 8, 2),
    (1,),
    (4096,),
    (4096, 1),
)
_DTYPES = ("float32", "int32", "string")
# What a layer may raise that is given something else than it takes.
_REFUSALS = (KCompileError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Support:
    """One layer: for each of `COLUMNS` an empty text where it works, else the reason why not."""

    family: str
    layer: str
    reasons: Mapping[str, str]
    is_identity: bool


def supports() -> list[Support]:
    """What every layer of Keras's can be used for, by family and name."""
    tables = {target: _table(target) for target in _TABLES}
    found: dict[type[Layer], Support] = {}
    for registered, cls in LAYERS.items():
        family = cls.__module__.rpartition(".")[2].replace("_", " ")
        if cls in found or not registered.startswith("keras>") or not cls.__module__.startswith(layers.__name__):
            continue
        found[cls] = _support(family, registered.partition(">")[2], cls, tables)
    return sorted(found.values(), key=lambda support: (support.family, support.layer))


def _support(family: str, name: str, cls: type[Layer], tables: Mapping[str, LoweringTable[Any] | str]) -> Support:
    graph = example(family, name, cls).trace()
    reasons = {target: _refusal(table, graph) for target, table in tables.items()}
    computed = [node for node in graph.nodes if not isinstance(node.op, Constant)]
    return Support(family, name, {"reference": "", "training": _training(graph), **reasons}, not computed)


def example(family: str, name: str, cls: type[Layer]) -> Model:
    """A model of that one layer; of a recurrent cell, one that runs it over a sequence.

    Raises:
        ModelError: the layer accepts none of the inputs that are tried.
    """
    refusal = ""
    for shape, dtype, count in itertools.product(_SHAPES, _DTYPES, (1, 2)):
        layer = cls(**_arguments_of(name, cls))
        inputs = [Input(shape, dtype=dtype) for _ in range(count)]
        try:
            called = layers.RNN(layer) if family == "recurrent cells" else layer
            return Model(inputs, _call(called, inputs))
        except _REFUSALS as error:
            refusal = str(error)
    raise ModelError(f"layer `{name}` accepts none of the inputs that are tried: {refusal}")


def _call(layer: Any, inputs: list[Any]) -> Any:
    """The outputs for one input, for several in a list or, where the layer takes no list, for several arguments."""
    if len(inputs) == 1:
        return layer(inputs[0])
    try:
        return layer(inputs)
    except _REFUSALS:
        return layer(*inputs)


def _arguments_of(name: str, cls: type[Layer]) -> dict[str, Any]:
    if name in _ARGUMENTS_OF:
        return _ARGUMENTS_OF[name]
    parameters = inspect.signature(cls).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return {argument: _ARGUMENTS[argument] for argument in needed}


def _refusal(table: LoweringTable[Any] | str, graph: Graph) -> str:
    if isinstance(table, str):
        return table
    try:
        table.expand(inference(graph))
    except UnsupportedOp as error:
        return str(error).splitlines()[1].rpartition(": ")[2]
    return ""


def _training(graph: Graph) -> str:
    b = Builder(graph.name)
    wanted = [value for value in _sources(graph) if value.type.is_float]
    results = [value for value in graph.outputs if value.type.is_float]
    if not wanted or not results:
        return "it gives no gradient: what goes in or comes out is no float"
    try:
        pullback(b, results, tuple(results), wanted)
    except GraphError as error:
        return str(error).splitlines()[0]
    return ""


def _sources(graph: Graph) -> Iterator[Value]:
    """The inputs and the weights."""
    yield from graph.inputs
    yield from (node.outputs[0] for node in graph.nodes if isinstance(node.op, Constant))


def _table(target: str) -> LoweringTable[Any] | str:
    """The target's lowerings; why there are none, where its compiler is not installed."""
    module, name = _TABLES[target]
    try:
        return getattr(importlib.import_module(module), name)
    except (MissingExtra, ImportError):
        return f'not installed; pip install "kcompile[{target}]"'


def reasons_of(found: list[Support]) -> list[str]:
    """Why something does not work, each reason once."""
    return sorted({reason for support in found for reason in support.reasons.values() if reason})


def rows(found: list[Support]) -> list[list[str]]:
    """Family, name, a cell for each of `COLUMNS` (a mark, or the number of the reason) and a note, for each layer."""
    reasons = reasons_of(found)
    return [
        [
            support.family,
            support.layer,
            *(str(reasons.index(reason) + 1) if (reason := support.reasons[column]) else "✓" for column in COLUMNS),
            "identity" if support.is_identity else "",
        ]
        for support in found
    ]


def markdown(found: list[Support]) -> str:
    """The page docs/supported_layers.md."""
    lines = [
        "# Supported layers",
        "",
        f"{len(found)} layers, as `kcompile layers --markdown` prints them: each is tried. ✓ works, a number refers to",
        "a reason below the table, and an identity does nothing at inference.",
        "",
        f"| family | layer | {' | '.join(COLUMNS)} | note |",
        f"|---|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    reasons = reasons_of(found)
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    lines += ["", "`InputLayer`, `Sequential`, `Functional` and nested models are supported everywhere. Another layer"]
    lines += ["can be taught: [add a layer](add_a_layer.md).", ""]
    return "\n".join(lines)
