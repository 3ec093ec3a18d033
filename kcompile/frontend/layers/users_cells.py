"""Cells of recurrent layers as Keras's users write them: ``call(self, inputs, states)`` and `state_size`."""

from collections.abc import Sequence
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers.recurrent_cells import UnrolledCell
from kcompile.frontend.tracing import Trace, ensure_built, flatten
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value


class UsersCell(UnrolledCell):
    """A cell that runs one of the user's, in whose place it stands.

    Raises:
        ModelError: the cell does not say how large its states are.
    """

    # The output of a step may be another than its first state.
    output_is_state = False

    def __init__(self, inner: Layer) -> None:
        super().__init__(name=inner.name)
        self.inner = inner
        sizes: Any = getattr(inner, "state_size", None)
        if sizes is None:
            law = f"a cell must say how large its states are, in `state_size`, as {type(inner).__name__} does not"
            raise ModelError(f"{law}. A cell is a layer with `state_size` and `call(inputs, states)`.")
        self._sizes: list[Any] = list(sizes) if isinstance(sizes, list | tuple) else [sizes]

    @property
    def stands_for(self) -> Layer:
        """The user's cell."""
        return self.inner

    @property
    def state_count(self) -> int:
        return len(self._sizes)

    @property
    def output_size(self) -> int:
        return int(getattr(self.inner, "output_size", self._sizes[0]))

    def build(self, *input_shapes: Any) -> None:
        ensure_built(self.inner, input_shapes[:1])

    def state_shapes(self, step: Shape) -> list[Shape]:
        return [(step[0], *((size,) if isinstance(size, int) else tuple(size))) for size in self._sizes]

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        output, new_states = t.run(self.inner, x, list(states))
        found: Sequence[Value] = list(flatten(new_states))
        return output, tuple(found)
