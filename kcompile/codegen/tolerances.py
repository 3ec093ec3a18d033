"""How far an artifact's numbers may be from the reference, each limit with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """``relative`` of the largest finite output, plus ``noise`` times what the NumPy reference in f32 is off by."""

    relative: float
    noise: float

    def allowed(self, largest: float, noise: float) -> float:
        """The largest absolute difference that is no fault."""
        return self.relative * largest + self.noise * noise


WHOLE_MODEL = Tolerance(
    # f32 keeps 6e-8; sums of K terms in another order differ by about √K of that, 3e-6 for K = 2000, and tens of layers
    # add up to some 1e-5 in the worst real models. A wrong epilogue or weight is off by 1e-2 and more.
    relative=1e-4,
    # Where a model cancels (a difference of large sums, a softmax of large logits) f32 itself loses digits. How many is
    # measured: the same graph in f32 and in f64. Another order of sums may lose a few times as much, not ten times.
    noise=8.0,
)
"""An artifact in f32 against the reference in f64."""

INT8 = Tolerance(
    # A difference in the last place, where it falls on the boundary of two steps of 8 bits, becomes a step: 1/255 of a
    # tensor's range. Few elements are hit, but each layer sums over those of the one before. In ResNet50, whose 53
    # convolutions give random results here, two correct programs differ by 1e-2 of the largest probability (ONNX
    # Runtime 1.31 as well as native code). A wrong scale, zero point or kernel is off by the whole.
    relative=3e-2,
    # What a few last digits do to this very graph is measured, in five ways; a sixth is of their size.
    noise=3.0,
)
"""An artifact in 8 bits against the reference of the same quantised graph."""

BFLOAT16 = Tolerance(
    # As for 8 bits; a step of bfloat16 is 2^-8 of the element itself (8 bits of significand).
    relative=1.5e-2,
    noise=3.0,
)
"""An artifact in bfloat16 against the reference of the same rounded graph."""

ABSOLUTE = 1e-5
LARGE = 0.1
"""`ABSOLUTE` is added to the limit of outputs whose largest is at least `LARGE`: beside a probability of 1, another may
be off by a few 1e-6. Smaller outputs are held to their own size, or zeros would pass for them."""

SATURATED = 2e-7
SATURATED_SHARE = 0.01
"""Smaller outputs may be off by `SATURATED`, at most `SATURATED_SHARE` of the largest: engines compute sigmoids to so
much of their range of 1 (ONNX Runtime 1.31: 1.7e-7), and one of -10 is 5e-5."""

PROBABILITY_SUM = 1e-3
"""Rows that sum to 1 within this are probabilities: f32 sums of thousands of terms stay below it."""
