"""Which Keras wrote a file: what a number in it means follows from that."""

import re
from dataclasses import dataclass

# The Keras whose formats are written.
WRITTEN = "3.15.1"


@dataclass(frozen=True)
class KerasVersion:
    """A version as files state it: ``"2.2.4"`` of Keras alone, ``"2.2.4-tf"`` or 2.4 and later of TensorFlow's.

    `backend` is the library that computed: ``"tensorflow"``, ``"theano"`` and others, empty where it is unknown.
    """

    text: str
    major: int
    minor: int
    patch: int = 0
    backend: str = ""

    @classmethod
    def parse(cls, text: str | None, otherwise: int = 3, backend: str = "") -> "KerasVersion":
        """The version that a text states; `otherwise` is the major version where it states none."""
        found = re.match(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", text or "")
        if found is None:
            # An unknown 1 is taken for one of the last, as Keras 2 did.
            return cls(text or "", otherwise, 9 if otherwise == 1 else 0, backend=backend)
        return cls(text or "", int(found[1]), int(found[2]), int(found[3] or 0), backend)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Major, minor and patch, for comparison."""
        return self.major, self.minor, self.patch

    @property
    def packs_rows(self) -> bool:
        """Whether bytes of two weights of 4 bits hold those of two inputs instead of two outputs."""
        return self.numbers < (3, 15, 0)

    @property
    def is_1(self) -> bool:
        """Whether it is before Keras 2."""
        return self.major < 2

    @property
    def is_3(self) -> bool:
        """Whether it is Keras 3 or later."""
        return self.major >= 3

    @property
    def is_theano(self) -> bool:
        """Whether Theano computed, whose convolutions run kernels backwards."""
        return self.backend == "theano"

    @property
    def keeps_deviations(self) -> bool:
        """Whether batch normalization kept the running standard deviation in place of the variance: before 1.0.7."""
        return self.numbers < (1, 0, 7)

    @property
    def dtype_is_the_inputs(self) -> bool:
        """Whether a layer's `dtype` is that of the model's input: before 2.3, outside TensorFlow."""
        return (self.major, self.minor) < (2, 3) and not self.text.endswith("-tf")
