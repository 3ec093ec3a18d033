"""Which Keras wrote a file: what a number in it means follows from that."""

import re
from dataclasses import dataclass

# The Keras whose formats are written.
WRITTEN = "3.15.1"


@dataclass(frozen=True)
class KerasVersion:
    """A version as files state it: ``"2.2.4"`` of Keras alone, ``"2.2.4-tf"`` or 2.4 and later of TensorFlow's."""

    text: str
    major: int
    minor: int

    @classmethod
    def parse(cls, text: str | None, otherwise: int = 3) -> "KerasVersion":
        """The version that a text states; `otherwise` is the major version where it states none."""
        found = re.match(r"(\d+)\.(\d+)", text or "")
        if found is None:
            return cls(text or "", otherwise, 0)
        return cls(text or "", int(found[1]), int(found[2]))

    @property
    def is_3(self) -> bool:
        """Whether it is Keras 3 or later."""
        return self.major >= 3

    @property
    def dtype_is_the_inputs(self) -> bool:
        """Whether a layer's `dtype` is that of the model's input: before 2.3, outside TensorFlow."""
        return (self.major, self.minor) < (2, 3) and not self.text.endswith("-tf")
