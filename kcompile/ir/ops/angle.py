"""Angles of points in the plane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import expression
from kcompile.ir.op import Arrays, Binary, Gradients, Values

if TYPE_CHECKING:
    from kcompile.ir.expression import Expression
    from kcompile.ir.graph import Builder, Value

# atan(z) / z in powers of z^2, highest first, for |z| <= tan(pi / 8): S. L. Moshier, Cephes library, atanf.
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1, 1.0)
_TAN_PI_8 = math.sqrt(2.0) - 1.0


@dataclass(frozen=True)
class Atan2(Binary, name="atan2"):
    """The angle of the point ``(y, x)`` seen from the origin, from -pi to pi; a zero counts as positive."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.arctan2(args[0] + 0, args[1] + 0),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        y, x = expression.lift(b, *xs)
        steep, large = y.abs().minimum(x.abs()), y.abs().maximum(x.abs())
        angle = _atan(steep / large.where(large > 0.0, 1.0))
        angle = (math.pi / 2 - angle).where(y.abs() > x.abs(), angle)
        angle = (math.pi - angle).where(x < 0.0, angle)
        return ((-angle).where(y < 0.0, angle).value,)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, x, dy = expression.lift(b, *xs, *dys)
        share = dy / (x.square() + y.square())
        return expression.unbroadcast(share * x, xs[0].type), expression.unbroadcast(-share * y, xs[1].type)


def _atan(q: "Expression") -> "Expression":
    """The arc tangent of numbers from 0 to 1."""
    far = q > _TAN_PI_8
    z = ((q - 1.0) / (q + 1.0)).where(far, q)
    series = z.like(_ATAN[0])
    for coefficient in _ATAN[1:]:
        series = series * z.square() + coefficient
    return series * z + (q.like(math.pi / 4)).where(far, 0.0)
