"""The one merge of Keras 1 that no layer of Keras 3 does."""

from dataclasses import dataclass
from typing import Any

from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers.merging import Dot
from kcompile.frontend.layers.writing import expand_dims, like
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value


@register_layer("kcompile>CosineMerge")
@dataclass(eq=False)
class CosineMerge(Layer):
    """`Merge` of Keras 1 in mode "cos": ``x . y / max(sqrt(x . x * y . y), 1e-7)``, with an axis behind the batch.

    ``[x: T[N, K], y: T[N, K]] -> T[N, 1, 1]``. Source: keras/engine/topology.py of 1.2.2.
    """

    axes: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self._dot = Dot(axes=self.axes, name=self.name)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        """The cosine."""
        x, y = args[0]
        xy, xx, yy = (t.run(self._dot, list(pair)) for pair in ((x, y), (x, x), (y, y)))
        norms = t(ops.Maximum(), t(ops.Sqrt(), t(ops.Mul(), xx, yy)), like(t, xx, 1e-7))
        return expand_dims(t, t(ops.Div(), xy, norms), 1)
