"""What a model is made of: its layers with their parameters and work, and the memory that it needs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kcompile.codegen.backends import weight_bytes
from kcompile.codegen.samples import sample_extents
from kcompile.frontend import Layer, Model
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.ops import Constant, Full
from kcompile.ir.passes.pipeline import inference


@dataclass(frozen=True)
class Row:
    """One layer: its path, its class, what it gives, its parameters, and its multiply-accumulates for one row."""

    layer: str
    kind: str
    output: str
    parameters: int
    macs: Dim


@dataclass(frozen=True)
class Anatomy:
    """A model as `kcompile inspect` shows it.

    Attributes:
        nodes: of the graph before and after the passes.
        weight_bytes: before and after the passes.
        extents: at which `peak_bytes` holds.
        peak_bytes: of intermediate results that are alive at once.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: tuple[Row, ...]
    parameters: int
    macs: Dim
    nodes: tuple[int, int]
    weight_bytes: tuple[int, int]
    extents: Mapping[str, Dim]
    peak_bytes: int
    keras_version: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """The anatomy as JSON values."""
        return asdict(self)


def anatomy(model: Model, graph: Graph) -> Anatomy:
    """The anatomy of a model that was traced to `graph`."""
    optimized = inference(graph)
    batch = next((dim for type in graph.input_types.values() for dim in type.shape[:1] if isinstance(dim, str)), "")
    extents = {symbol: 1 if symbol == batch else value for symbol, value in sample_extents(graph).items()}
    rows = _rows(model, graph, {batch: 1})
    return Anatomy(
        graph.name,
        {name: str(type) for name, type in graph.input_types.items()},
        {name: str(type) for name, type in graph.output_types.items()},
        rows,
        model.count_params(),
        dims.add(0, *(row.macs for row in rows)),
        (_work(graph), _work(optimized)),
        (weight_bytes(graph), weight_bytes(optimized)),
        extents,
        peak_bytes(optimized, extents),
        model.provenance.keras_version,
        model.provenance.sha256,
    )


def peak_bytes(graph: Graph, extents: Mapping[str, Dim]) -> int:
    """The most bytes of intermediate results that are alive at once when nodes run in order."""
    last = {value: position for position, node in enumerate(graph.nodes) for value in node.inputs}
    kept = {*graph.inputs, *graph.outputs, *(v for node in graph.nodes if _is_constant(node) for v in node.outputs)}
    alive: dict[Value, int] = {}
    peak = 0
    for position, node in enumerate(graph.nodes):
        alive |= {v: _bytes(v, extents) for v in node.outputs if v not in kept}
        peak = max(peak, sum(alive.values()))
        for value in {*node.inputs, *node.outputs}:
            if last.get(value, position) == position:
                alive.pop(value, None)
    return peak


def _bytes(value: Value, extents: Mapping[str, Dim]) -> int:
    return value.type.itemsize * int(dims.substitute(value.type.size, extents))


def _is_constant(node: Node) -> bool:
    return isinstance(node.op, Constant | Full)


def _work(graph: Graph) -> int:
    return sum(not _is_constant(node) for node in graph.nodes)


def _rows(model: Model, graph: Graph, one_row: Mapping[str, Dim]) -> tuple[Row, ...]:
    """A row per layer that left nodes in the graph, in order."""
    by_source: dict[str, list[Node]] = {}
    for node in graph.nodes:
        by_source.setdefault(node.source, []).append(node)
    counted: set[int] = set()
    return tuple(_row(model, source, nodes, counted, one_row) for source, nodes in by_source.items() if source)


def _row(model: Model, source: str, nodes: list[Node], counted: set[int], one_row: Mapping[str, Dim]) -> Row:
    layer = _layer_at(model, source)
    arrays = [(id(w), w.value.size) for w in layer.own_weights] if layer else []
    fresh = [size for key, size in arrays if key not in counted]
    counted.update(key for key, _ in arrays)
    macs = dims.add(0, *(n.op.macs(tuple(v.type for v in n.inputs), tuple(v.type for v in n.outputs)) for n in nodes))
    kind = type(layer).__name__ if layer else ""
    return Row(source, kind, str(nodes[-1].outputs[0].type), sum(fresh), dims.substitute(macs, one_row))


def _layer_at(model: Model, source: str) -> Layer | None:
    """The layer at a path of names such as ``"encoder/conv1"``."""
    layer: Layer | None = model
    for name in source.split("/"):
        inner = [] if layer is None else [part for part in layer.sublayers.values() if part.name == name]
        layer = inner[0] if inner else None
    return layer
