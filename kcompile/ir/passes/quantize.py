"""Puts tensors into few bits around convolutions and dense layers: Q/DQ pairs of 8-bit integers, or of bfloat16.

A value that is to stand in 8 bits is quantised where it is computed, and whoever reads it reads it dequantised. That is
ONNX's QDQ form, which says the same for every back end; which ops are computed on integers is the back end's choice.

Weights are symmetric with a scale per filter, activations have one scale and zero point each ("tensor"), found by
calibration, or one scale per row ("token"), found at run time. Source: Jacob et al. 2018, arXiv:1712.05877;
Krishnamoorthi 2018, arXiv:1806.08342.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph, Node, Value
from kcompile.ir.op import Op
from kcompile.ir.passes.calibration import Observed, Range
from kcompile.ir.passes.manager import Pass
from kcompile.ir.types import Array

Scheme: TypeAlias = Literal["tensor", "token"]

# Activations that a quantisation's own limits can take the place of, or that follow a convolution at once.
_ACTIVATIONS = ops.Relu | ops.Clip
# Ops whose results are elements of their operand, so that these keep their scale.
_MOVES = ops.MaxPool | ops.Reshape | ops.Transpose | ops.Slice
# The largest int8 of a symmetric range.
_LARGEST = 127
# Integers of a bias stay below this, so that half of the range of int32 is left for the products.
_MOST_BIAS = 2**30
_MOST_SUM = 2**31 - 1
# A scale below this would be no normal float32 once it is multiplied with another.
_LEAST_SCALE = 1e-18


@dataclass(frozen=True)
class Site:
    """A layer that can be computed in few bits: the node, the end of the activation after it, and its name."""

    name: str
    node: Node
    result: Value
    scheme: Scheme

    @property
    def x(self) -> Value:
        """What the layer reads."""
        return self.node.inputs[0]

    @property
    def kernel(self) -> Array:
        """The layer's weights: ``[..., F]``."""
        return _constant(self.node.inputs[1])

    @property
    def bias(self) -> Array | None:
        """The layer's bias, where it has one."""
        return _constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None


def _constant(value: Value) -> Array:
    assert value.constant is not None
    return value.constant


def sites(graph: Graph, activations: Literal["auto", "tensor", "token"], calibrated: bool) -> list[Site]:
    """The layers of `graph` that 8 bits can serve, in order.

    Rows of sequences have ranges of their own ("auto"): one token's outliers would coarsen all others. Without
    calibration only dense layers are served, and only so.
    """
    readers = _readers(graph)
    names: set[str] = set()
    found: list[Site] = []
    for node in graph.nodes:
        if not _fits(node):
            continue
        is_dense = isinstance(node.op, ops.Dense)
        sequence = is_dense and node.outputs[0].type.rank > 2
        by_token = is_dense and (not calibrated or activations == "token" or (activations == "auto" and sequence))
        if not calibrated and not by_token:
            continue
        # Weights keep the name of their layer where another one was folded into it.
        layer = _name(node.inputs[1]).rpartition("/")[0]
        name = _free(names, layer or node.source or node.op.op_name)
        found.append(Site(name, node, _activated(node, readers), "token" if by_token else "tensor"))
    return found


def _fits(node: Node) -> bool:
    """Whether a node is a convolution or dense layer in float32 with known weights, of something that is not known."""
    if not isinstance(node.op, ops.Conv | ops.Dense) or node.outputs[0].type.dtype != "float32":
        return False
    if node.inputs[0].constant is not None:
        return False
    return all(value.constant is not None and value.constant.size for value in node.inputs[1:])


def _free(names: set[str], name: str) -> str:
    """`name`, or the first of ``name#2``, ``name#3`` and so on that is free; taken from now on."""
    chosen, count = name, 1
    while chosen in names:
        count += 1
        chosen = f"{name}#{count}"
    names.add(chosen)
    return chosen


def _readers(graph: Graph) -> dict[Value, list[Node | None]]:
    """What reads each value; None stands for the graph, which gives it as an output."""
    readers: dict[Value, list[Node | None]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    for value in graph.outputs:
        readers.setdefault(value, []).append(None)
    return readers


def _activated(node: Node, readers: Mapping[Value, list[Node | None]]) -> Value:
    """The result of `node`, or that of the activation that alone reads it."""
    value = node.outputs[0]
    found = readers.get(value, [])
    after = found[0] if len(found) == 1 else None
    return after.outputs[0] if after and isinstance(after.op, _ACTIVATIONS) else value


@dataclass(frozen=True)
class Ranges:
    """What each value that 8 bits are to hold spans, and the means that a bias is corrected by."""

    spans: Mapping[Value, Range]
    observed: Mapping[Value, Observed] = field(default_factory=dict[Value, Observed])


def narrow_values(graph: Graph, chosen: Sequence[Site]) -> list[Value]:
    """The values that are to stand in 8 bits: what the layers read, what convolutions give, and sums of such values."""
    outputs = set(graph.outputs)
    readers = _readers(graph)
    wanted: dict[Value, None] = {}
    tensors = [site for site in chosen if site.scheme == "tensor"]
    for site in tensors:
        wanted[site.x] = None
        if isinstance(site.node.op, ops.Conv) and site.result not in outputs:
            wanted[site.result] = None
    for node in graph.nodes:
        if isinstance(node.op, ops.Add) and all(value in wanted for value in node.inputs):
            result = _activated(node, readers)
            if result not in outputs:
                wanted[result] = None
    for value in list(wanted):
        wanted.update(dict.fromkeys(_moved_from(value, wanted)))
    order = {value: i for i, value in enumerate((*graph.inputs, *(v for node in graph.nodes for v in node.outputs)))}
    return sorted((value for value in wanted if value.constant is None), key=order.__getitem__)


def _moved_from(value: Value, wanted: Mapping[Value, None]) -> list[Value]:
    """What stands between `value` and one of `wanted` that it was moved from."""
    between: list[Value] = []
    while value.producer and isinstance(value.op, _MOVES):
        value = value.producer.inputs[0]
        if value in wanted:
            return between
        between.append(value)
    return []


def kept_spans(spans: Mapping[Value, Range]) -> dict[Value, Range]:
    """`spans` where what an op only moves has the span of what it is moved from."""
    result: dict[Value, Range] = {}
    for value, span in spans.items():
        node = value.producer
        moved = node and isinstance(node.op, _MOVES) and node.inputs[0] in result
        result[value] = result[node.inputs[0]] if node and moved else span
    return result


def quantize(graph: Graph, chosen: Sequence[Site], ranges: Ranges, correct_bias: bool = True) -> Graph:
    """`graph` with the layers `chosen` in 8 bits."""
    return Pass("quantize", lambda g: _Quantizer(g, chosen, ranges, correct_bias).result())(graph)


class _Quantizer:
    """The graph in the making: the new value of each old one, and its forms in 8 bits."""

    def __init__(self, graph: Graph, chosen: Sequence[Site], ranges: Ranges, correct_bias: bool) -> None:
        self._graph = graph
        self._sites = {site.node: site for site in chosen}
        self._ranges = ranges
        self._correct = correct_bias
        self._b = Builder(graph.name)
        self._values: dict[Value, Value] = {value: value for value in graph.inputs}
        self._narrow = set(narrow_values(graph, chosen))
        self._widened: dict[Value, Value] = {}
        self._tokens: dict[Value, Value] = {}

    def result(self) -> Graph:
        """The new graph; the same object where nothing is to be quantised."""
        if not self._sites:
            return self._graph
        for node in self._graph.nodes:
            with self._b.at(node.source):
                made = self._layer(self._sites[node]) if node in self._sites else self._copy(node)
            self._values.update(zip(node.outputs, made, strict=True))
        outputs = tuple(self._values[value] for value in self._graph.outputs)
        graph = self._graph
        return Graph(graph.name, graph.inputs, outputs, graph.output_names, graph.notes)

    def _copy(self, node: Node) -> tuple[Value, ...]:
        inputs = tuple(map(self._read, node.inputs))
        same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
        return node.outputs if same else self._b.multi(node.op, *inputs)

    def _read(self, value: Value) -> Value:
        """The new value, through 8 bits where it is to stand in them."""
        if value not in self._narrow:
            return self._values[value]
        if value not in self._widened:
            span = self._ranges.spans[value]
            with self._b.at(value.producer.source if value.producer else ""):
                parameters = self._b.constant(np.asarray(span.scale)), self._b.constant(np.asarray(span.zero_point))
                narrow = self._b(ops.QuantizeLinear(), self._values[value], *parameters)
                self._widened[value] = self._b(ops.DequantizeLinear(), narrow, *parameters)
        return self._widened[value]

    def _layer(self, site: Site) -> tuple[Value, ...]:
        b = self._b
        by_token = site.scheme == "token"
        x = self._by_token(site.x) if by_token else self._read(site.x)
        step = None if by_token else float(self._ranges.spans[site.x].scale)
        kernel, scale = narrowed_kernel(site.kernel, site.bias, step)
        zero = b.constant(np.zeros((), np.int8))
        name = _name(site.node.inputs[1])
        weights = b(ops.DequantizeLinear(), b.constant(kernel, name), b.constant(scale), zero)
        bias = self._bias(site, kernel, scale, step)
        return b.multi(site.node.op, x, weights, *bias)

    def _bias(self, site: Site, kernel: Array, scale: Array, step: float | None) -> tuple[Value, ...]:
        """The bias, corrected; of layers whose input has one scale, as integers of the scale of the products."""
        bias = site.bias
        correction = self._correction(site, kernel, scale)
        if correction is not None:
            bias = correction if bias is None else bias + correction
        if bias is None:
            return ()
        name = _name(site.node.inputs[2]) if len(site.node.inputs) > 2 else ""
        if step is None:
            return (self._b.constant(bias.astype(np.float32), name),)
        product = (scale * np.float32(step)).astype(np.float32)
        # Inputs of numbers so small that their scale times that of the weights is 0 have no bias in such steps.
        least = np.finfo(np.float32).smallest_subnormal
        steps = np.clip(np.rint(bias / np.maximum(product, least)), -_MOST_BIAS, _MOST_BIAS).astype(np.int32)
        zero = self._b.constant(np.zeros((), np.int32))
        return (self._b(ops.DequantizeLinear(), self._b.constant(steps, name), self._b.constant(product), zero),)

    def _correction(self, site: Site, kernel: Array, scale: Array) -> Array | None:
        """What rounding the weights takes from the mean of each result: ``sum (w - w') E[x]``.

        Source: Nagel et al. 2019, "Data-Free Quantization through Weight Equalization and Bias Correction",
        arXiv:1906.04721, section 4.2, with means from data.
        """
        observed = self._ranges.observed.get(site.x)
        if not self._correct or observed is None or site.scheme == "token":
            return None
        lost = site.kernel.astype(np.float64) - kernel * scale.astype(np.float64)
        lost = lost.reshape(-1, *lost.shape[-2:]).sum(axis=0)
        means = observed.mean.reshape(-1, lost.shape[0])
        # Of a convolution in groups, each block of filters sees its own channels.
        blocks = zip(np.split(lost, len(means), axis=1), means, strict=True)
        return np.concatenate([mean @ block for block, mean in blocks])

    def _by_token(self, value: Value) -> Value:
        """The new value with 8 bits for each row, whose scale is found at run time."""
        if value not in self._tokens:
            b, x = self._b, self._read(value)
            largest = b(ops.ReduceMax((x.type.rank - 1,), True), b(ops.Abs(), x))
            scale = b(ops.Mul(), largest, b.constant(np.asarray(1 / _LARGEST, np.float32)))
            scale = b(ops.Maximum(), scale, b.constant(np.asarray(_LEAST_SCALE, np.float32)))
            zero = b.constant(np.asarray(_LARGEST + 1, np.uint8))
            narrow = b(ops.QuantizeLinear(), x, scale, zero)
            self._tokens[value] = b(ops.DequantizeLinear(), narrow, scale, zero)
        return self._tokens[value]


def _name(value: Value) -> str:
    return value.op.name if isinstance(value.op, ops.Constant) else ""


def narrowed_kernel(kernel: Array, bias: Array | None, step: float | None) -> tuple[Array, Array]:
    """The weights in int8 and their scale per filter: ``f32[..., F] -> i8[..., F], f32[F]``.

    With `step`, the scale of the input, no scale is so small that the bias in steps of their product leaves int32.
    """
    axes = tuple(range(kernel.ndim - 1))
    scale = np.abs(kernel).max(axis=axes, initial=0).astype(np.float64) / _LARGEST
    if bias is not None and step is not None:
        scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (step * _MOST_BIAS))
    scale = np.maximum(scale, _LEAST_SCALE).astype(np.float32)
    return np.clip(np.rint(kernel / scale), -_LARGEST, _LARGEST).astype(np.int8), scale


def overflows(kernel: Array) -> bool:
    """Whether sums of products of `kernel` with uint8 and a bias could leave int32."""
    narrow, _ = narrowed_kernel(kernel, None, None)
    sums = np.abs(narrow.astype(np.int64)).reshape(-1, narrow.shape[-1]).sum(axis=0)
    return bool((sums * 255 + _MOST_BIAS > _MOST_SUM).any())


# ---- bfloat16


def to_bfloat16(graph: Graph, chosen: Sequence[Site]) -> Graph:
    """`graph` with what the layers `chosen` read, weights among it, rounded to bfloat16; sums stay in float32."""
    return Pass("bfloat16", lambda g: _rounded(g, chosen))(graph)


def _rounded(graph: Graph, chosen: Sequence[Site]) -> Graph:
    nodes = {site.node for site in chosen}
    # Whoever reads a value that a layer reads gets it rounded too, so that only its 16 bits are kept.
    narrow = {site.x for site in chosen} - set(graph.outputs)
    values: dict[Value, Value] = {value: value for value in graph.inputs}
    rounded: dict[Value, Value] = {}
    b = Builder(graph.name)

    def read(value: Value, always: bool) -> Value:
        if not always and value not in narrow:
            return values[value]
        if value not in rounded:
            name = _name(value)
            bits = b(ops.ToBfloat16(), values[value])
            if value.constant is not None:
                bits = b.constant(ops.ToBfloat16().kernel((value.constant,))[0], name)
            rounded[value] = b(ops.FromBfloat16(), bits)
        return rounded[value]

    for node in graph.nodes:
        with b.at(node.source):
            inputs = tuple(read(value, node in nodes and i < 2) for i, value in enumerate(node.inputs))
            op: Op = node.op
            same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
            values.update(zip(node.outputs, node.outputs if same else b.multi(op, *inputs), strict=True))
    outputs = tuple(values[value] for value in graph.outputs)
    return Graph(graph.name, graph.inputs, outputs, graph.output_names, graph.notes) if nodes else graph
