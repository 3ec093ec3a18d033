"""How far two computations of one thing may lie apart: one table, with the reason for each number.

`assert_close` allows ``relative * |expected| + absolute * sqrt(terms) * scale``: the rounding errors of a sum of
`terms` numbers grow like the square root of their number, and are as large as the terms are, whatever the sum comes to.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences, and why these."""

    relative: float
    absolute: float
    reason: str


EXACT = Tolerance(0.0, 0.0, "moving, copying and fusing compute the same numbers")

# A kernel against an independent loop in the same precision, by dtype.
KERNEL = {
    "float64": Tolerance(1e-12, 1e-14, "an ulp is 2e-16: some dozens of roundings, and sums in another order"),
    "float32": Tolerance(1e-5, 1e-6, "an ulp is 1e-7: some dozens of roundings, and sums in another order"),
    "float16": Tolerance(1e-2, 1e-2, "an ulp is 1e-3, and some back ends sum in halves"),
}

# A whole rewritten graph against the graph that it came from, both evaluated in float64 with float64 weights.
REWRITE = Tolerance(1e-9, 1e-11, "folded weights round once more, and deep graphs amplify that a thousandfold")

# A whole model on a back end in float32 against the reference in float32.
MODEL = Tolerance(1e-4, 1e-5, "a hundred layers of float32 sums in another order")


def assert_close(actual: NDArray, expected: NDArray, tolerance: Tolerance, terms: int = 1) -> None:
    """Fail unless shapes and dtypes agree and every element lies within `tolerance`; NaN equals NaN."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    if not expected.size:
        return
    if expected.dtype.kind != "f" or tolerance is EXACT:
        np.testing.assert_array_equal(actual, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(max(finite.max(initial=0.0), 1.0))
    absolute = tolerance.absolute * np.sqrt(max(terms, 1)) * scale
    np.testing.assert_allclose(actual, expected, rtol=tolerance.relative, atol=absolute)
