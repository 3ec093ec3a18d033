"""Channels that gates scale before a 1 x 1 convolution sums them: the gates go into its weights.

``sum over k of (x[p, k] * gate[k]) * w[k, m]`` is ``sum over k of x[p, k] * (gate[k] * w[k, m])``. The weights are read
and written once per image in the place of x, which pays where there are fewer filters than pixels. Gates of
squeeze-and-excite blocks are between 0 and 1, so no product becomes infinite by the other order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kcompile.codegen.tvm.expr import Index
from kcompile.codegen.tvm.kernels.nest import product
from kcompile.codegen.tvm.kernels.tile import Block, Panels, block
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.windows import Windows
from kcompile.ir import ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Node, Value

# Pixels per filter from which on it pays: pixels are scaled in place, in the cache where they are read next.
_PIXELS = 4
# Results per image below which all images are rows of one product: tiles of neighbouring pixels would be too short.
FEW_PIXELS = 4


@dataclass(frozen=True)
class ScaledPanels(Kernel, family="scaled_panels"):
    """``y[n, p, k, m] = w[p, k, m] * gate[n, k]`` of weights that are packed in panels p of `width` columns.

    Arguments: w ``[length * columns]``, the gates ``[images, length]``, y ``[images, length * columns]``.
    """

    images: Dim
    length: int
    columns: int
    width: int

    def build(self, f: Function) -> None:
        w, gates, y = f.pointer("w"), f.pointer("gates"), f.pointer("y")
        images, (full, narrow) = f.extent(self.images), divmod(self.columns, self.width)
        panels = Panels(full, block(self.width, f.machine.lanes), block(narrow, f.machine.lanes))

        def scale(image: Index, k: Index, panel: Index, columns: Block) -> None:
            line = f.name_index(panel * (self.length * self.width) + k * columns.columns)
            gate = f.let(gates.load(image * self.length + k))
            for first, lanes in zip(columns.starts, columns.widths, strict=True):
                y.store(image * (self.length * self.columns) + line + first, w.load(line + first, lanes) * gate)

        with f.parallel(product([images, self.length])) as unit:
            image, k = f.unravel(unit, [images, self.length])
            for panel, columns in panels.all(f):
                scale(image, k, panel, columns)


def scalings(graph: Graph) -> Mapping[Value, tuple[Value, Value]]:
    """The products of `graph`, each as what is scaled and its gates, that the convolution after them can do without."""
    readers = {value: node for node in graph.nodes for value in node.inputs}
    found: dict[Value, tuple[Value, Value]] = {}
    for node in graph.nodes:
        factors = _gated(node)
        result = node.outputs[0]
        if factors and graph.uses[result] == 1 and result in readers and _absorbs(readers[result], result):
            found[result] = factors
    return found


def _gated(node: Node) -> tuple[Value, Value] | None:
    """What a multiplication scales by image and channel, and the gates."""
    type = node.outputs[0].type
    if not isinstance(node.op, ops.Mul) or type.dtype != "float32" or type.rank < 3:
        return None
    batch, *middle, channels = type.shape
    for x, gates in (node.inputs, node.inputs[::-1]):
        if x.type == type and gates.type.shape == (batch, *[1] * len(middle), channels) and _is_share(gates):
            return x, gates
    return None


def _is_share(value: Value) -> bool:
    """Whether all elements are between 0 and 1, or NaN."""
    if not value.producer:
        return False
    op = value.producer.op
    if isinstance(op, ops.Fused):
        return _is_share(op.body.outputs[value.index])
    if isinstance(op, ops.Reshape):
        return _is_share(value.producer.inputs[0])
    return isinstance(op, ops.Sigmoid | ops.HardSigmoid)


def _absorbs(node: Node, value: Value) -> bool:
    """Whether `node` is a 1 x 1 convolution of `value`, or begins with one, that has enough pixels for its filters."""
    if isinstance(node.op, ops.Fused):
        inner = next(x for x, outer in zip(node.op.body.inputs, node.inputs, strict=True) if outer is value)
        readers = [each for each in node.op.body.nodes if inner in each.inputs]
        return len(readers) == 1 and _absorbs(readers[0], inner)
    op = node.op
    if not isinstance(op, ops.Conv) or op.groups != 1 or node.inputs[0] is not value or value in node.inputs[1:]:
        return False
    (*size, _, filters), result = node.inputs[1].type.static_shape(), node.outputs[0].type
    windows = Windows.of(value.type, result, tuple(size), op.strides, op.rates, op.padding)
    pixels = result.with_shape(windows.out).size
    return windows.pointwise and isinstance(pixels, int) and pixels >= max(FEW_PIXELS, _PIXELS * filters)
