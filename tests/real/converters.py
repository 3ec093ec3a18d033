"""Converters for the custom classes of real models, as a user would write them from the packages' own code."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.frontend import layers
from kcompile.frontend.layer import Layer
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value


@dataclass(eq=False)
class ConvDNA(layers.Conv1D):
    """mmsplice 2.4.0, ``layers.py``: Conv1D over one-hot bases."""

    seq_length: int | None = None


@dataclass(eq=False)
class MaskedAverage(Layer):
    """mmsplice 2.4.0, `GlobalAveragePooling1D_Mask0`: the average over the steps whose bases are not all 0.

    ``[x: f32[N, L, C], bases: f32[N, L, 4]] -> f32[N, C]``.
    """

    data_format: str = "channels_last"

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x, bases = args[0]
        mask = t(ops.ReduceMax((2,), True), bases)
        total = t(ops.ReduceSum((1,)), t(ops.Mul(), x, mask))
        count = t(ops.Maximum(), t(ops.ReduceSum((1,)), mask), t.constant(1e-7))
        return t(ops.Div(), total, count)


@dataclass(eq=False)
class SplineWeight(Layer):
    """mmsplice 2.4.0, `SplineWeight1D`: ``x * (1 + splines @ kernel)``, with B-splines over the positions of x."""

    n_bases: int = 10
    spline_degree: int = 3
    share_splines: bool = False
    l2_smooth: float = 0
    l2: float = 0
    use_bias: bool = False
    bias_initializer: Any = "zeros"

    def build(self, *input_shapes: Any) -> None:
        _, steps, filters = input_shapes[0]
        tracks = 1 if self.share_splines else filters
        self.splines = b_splines(steps, self.n_bases, self.spline_degree)
        self.add_weight("kernel", (self.n_bases, tracks), "zeros")
        if self.use_bias:
            self.add_weight("bias", (tracks,), self.bias_initializer)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        bias = [t.weight("bias")] if self.use_bias else []
        track = t(ops.Dense(), t.constant(self.splines), t.weight("kernel"), *bias)
        return t(ops.Mul(), args[0], t(ops.Add(), track, t.constant(1.0)))


def b_splines(steps: int, count: int, degree: int) -> np.ndarray:
    """The values of B-splines at ``0 .. steps - 1``, f32[steps, count], with the knots of mmsplice's `get_knots`."""
    margin = (steps - 1) * 0.001
    start, end, inner = -margin, steps - 1 + margin, count - degree + 1
    distance = (end - start) / (inner - 1)
    knots = np.linspace(start - degree * distance, end + degree * distance, inner + 2 * degree).astype(np.float32)
    x, k = np.arange(steps)[:, None], knots.astype(np.float64)
    values = ((k[:-1] <= x) & (x < k[1:])).astype(np.float64)
    for n in range(1, degree + 1):
        rising = (x - k[: -n - 1]) / (k[n:-1] - k[: -n - 1])
        falling = (k[n + 1 :] - x) / (k[n + 1 :] - k[1:-n])
        values = rising * values[:, :-1] + falling * values[:, 1:]
    return values.astype(np.float32)


@dataclass(eq=False)
class ClippedLeakyReLU(Layer):
    """deeplc 2.2.1, ``deeplc.py``, `lrelu`: ``relu(x, alpha=0.1, max_value=20)``."""

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        return t(ops.Minimum(), t(ops.LeakyRelu(0.1), args[0]), t.constant(20.0))


TAUGHT: dict[str, dict[str, type[Layer]]] = {
    "deeplc_k210": {"<lambda>": ClippedLeakyReLU},
    "mmsplice_acceptor": {"ConvDNA": ConvDNA},
    "mmsplice_exon_mask": {"GlobalAveragePooling1D_Mask0": MaskedAverage},
    "mtsplice0": {"SplineWeight1D": SplineWeight},
}
"""By model, the converters by the names that the refusals give."""
