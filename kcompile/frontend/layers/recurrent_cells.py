"""Recurrent cells: the weights and the step of each recurrence.

A cell writes a whole sequence as one op (`sequence`); called by itself it runs one step of it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import activations, initializers
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.regularization import dropped
from kcompile.frontend.layers.unrolling import Run, unrolled
from kcompile.frontend.layers.writing import expand_dims, full, squeeze
from kcompile.frontend.tracing import Trace, ensure_built, flatten
from kcompile.frontend.weight import Weight
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value
from kcompile.ir.op import Elementwise, Op
from kcompile.ir.types import Array

_ACTIVATIONS = ("activation", "recurrent_activation")


class Recurrence(Layer):
    """Base of what a recurrent layer can run over the steps of a sequence."""

    # Whether the output of a step is the first of its states.
    output_is_state: ClassVar[bool] = True
    # The class in snake case, as files name a cell.
    keras_name: ClassVar[str] = "cell"

    @property
    def state_count(self) -> int:
        """The number of states."""
        return 1

    @property
    def output_size(self) -> int:
        """The number of features of the result."""
        raise NotImplementedError

    def sequence(self, t: Trace, x: Value, run: Run) -> tuple[Value, tuple[Value, ...]]:
        """The output of every step and the last states: ``x: T[N, L, K] -> T[N, L, units]``, ``T[N, units]`` each.

        `t` is the trace of the cell.
        """
        raise NotImplementedError

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> tuple[Value, list[Value]]:
        states = tuple(flatten(kwargs.get("states", args[1:])))
        outputs, new_states = self.sequence(t, expand_dims(t, args[0], 1), Run(states))
        return squeeze(t, outputs, 1), list(new_states)


class UnrolledCell(Recurrence):
    """Base of cells that have no op of their own: their steps are written one after another.

    A subclass says the shapes of its states and what a step does; converters of custom cells derive from it.
    """

    def state_shapes(self, step: Shape) -> list[Shape]:
        """The shapes of the states, batch first, for the shape of one step of the prepared input."""
        raise NotImplementedError

    def prepare(self, t: Trace, x: Value) -> Value:
        """What every step needs of the input, computed for all of them at once; by default the input."""
        del t
        return x

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        """The output of a step and its states."""
        raise NotImplementedError

    def sequence(self, t: Trace, x: Value, run: Run) -> tuple[Value, tuple[Value, ...]]:
        x = self.prepare(t, x)
        shapes = self.state_shapes((x.type.shape[0], *x.type.shape[2:]))
        return unrolled(self, t, x, run, shapes, self.step)


class Cell(Recurrence):
    """Base of the cells whose loop is one op; with activations that are more than one, it is written step by step."""

    gates: ClassVar[int]

    units: int
    activation: Any
    recurrent_activation: Any
    use_bias: bool
    kernel_initializer: Any
    recurrent_initializer: Any
    bias_initializer: Any
    dropout: float
    recurrent_dropout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.positive(self, "units")
        for argument in ("activation", "recurrent_activation"):
            if hasattr(self, argument):
                found = activations.get(getattr(self, argument), f"`{argument}` of layer `{self.name}`")
                setattr(self, argument, found)

    @property
    def output_size(self) -> int:
        """The number of features of the result."""
        return self.units

    @property
    def bias_shape(self) -> Shape:
        """The shape of the bias."""
        return (self.gates * self.units,)

    def build(self, *input_shapes: Any) -> None:
        wide = self.gates * self.units
        self.add_weight("kernel", (input_shapes[0][-1], wide), self.kernel_initializer)
        self.add_weight("recurrent_kernel", (self.units, wide), self.recurrent_initializer)
        if self.use_bias:
            self.add_weight("bias", self.bias_shape, self.bias_initializer)

    def operator(self, run: Run) -> Op:
        """The whole loop as an op."""
        raise NotImplementedError

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        """The output of a step and its states; ``x: T[N, gates * units]`` is the input times the kernel."""
        raise NotImplementedError

    def elementwise(self, argument: str) -> Elementwise | None:
        """An activation as an op."""
        return activations.as_op(getattr(self, argument), f"`{argument}` of layer `{self.name}`")

    def activated(self, t: Trace, argument: str, x: Value) -> Value:
        """An activation of one step's values."""
        return activations.apply(t, getattr(self, argument), x)

    def parts(self, t: Trace, x: Value) -> list[Value]:
        """The values of the gates, which stand side by side."""
        axis, count = x.type.rank - 1, x.type.shape[-1]
        starts = range(0, int(count), self.units)  # pyright: ignore[reportArgumentType]
        return [t(ops.Slice(axis, start, start + self.units), x) for start in starts]

    def sequence(self, t: Trace, x: Value, run: Run) -> tuple[Value, tuple[Value, ...]]:
        biases = self.biases(t, x.type.dtype)
        x = self.entered(t, x)
        chosen = [getattr(self, argument) for argument in _ACTIVATIONS if hasattr(self, argument)]
        if all(activations.is_elementwise(activation) for activation in chosen):
            operands = (x, t.weight("kernel"), t.weight("recurrent_kernel"), *biases, *run.operands())
            outputs, *states = t.multi(self.operator(run), *operands)
            return outputs, tuple(states)
        projected = t(ops.Dense(), x, t.weight("kernel"), biases[0])
        shapes: list[Shape] = [(x.type.shape[0], self.units)] * self.state_count
        return unrolled(self, t, projected, run, shapes, self.step)

    def entered(self, t: Trace, x: Value) -> Value:
        """``x`` as it enters the cell: while training, without a share `dropout` of its features, alike in all steps.

        Raises:
            ModelError: the cell has `recurrent_dropout`, and is trained.
        """
        recurrent = not t.training or not self.recurrent_dropout
        self.require(recurrent, "recurrent_dropout", "0 while training: kcompile drops inputs only")
        return dropped(t, x, self.dropout, (x.type.shape[0], 1, x.type.shape[2]))

    def biases(self, t: Trace, dtype: str) -> tuple[Value, ...]:
        """The biases of the op: zeros where there is none."""
        return (t.weight("bias") if self.use_bias else full(t, (self.gates * self.units,), 0.0, dtype),)


@register_layer("keras>SimpleRNNCell")
@dataclass(eq=False)
class SimpleRNNCell(Cell):
    """``h' = activation(x @ kernel + bias + h @ recurrent_kernel)``."""

    keras_name = "simple_rnn_cell"
    gates = 1

    units: int
    activation: Any = "tanh"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None

    def operator(self, run: Run) -> Op:
        return ops.SimpleRnn(self.elementwise("activation"), **run.attributes())

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        drive = t(ops.Add(), x, t(ops.Dense(), states[0], t.weight("recurrent_kernel")))
        h = self.activated(t, "activation", drive)
        return h, (h,)


@dataclass(frozen=True)
class ForgetBias:
    """`initializer`, but ones for the forget gate, so that a new cell remembers; Jozefowicz et al. 2015."""

    initializer: Any

    def __call__(self, shape: tuple[int, ...], dtype: str) -> Array:
        values = np.array(initializers.get(self.initializer)(shape, dtype))
        units = shape[0] // 4
        values[units : 2 * units] = 1
        return values


@register_layer("keras>LSTMCell")
@dataclass(eq=False)
class LSTMCell(Cell):
    """Long short-term memory, with the gates in the order i, f, c, o; Hochreiter and Schmidhuber 1997."""

    keras_name = "lstm_cell"
    gates = 4

    units: int
    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None

    @property
    def state_count(self) -> int:
        return 2

    def add_weight(self, *order: Any, **named: Any) -> Weight:
        if order[0] == "bias" and self.unit_forget_bias:
            order = (*order[:2], ForgetBias(order[2]), *order[3:])
        return super().add_weight(*order, **named)

    def operator(self, run: Run) -> Op:
        return ops.Lstm(self.elementwise("activation"), self.elementwise("recurrent_activation"), **run.attributes())

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        drive = t(ops.Add(), x, t(ops.Dense(), states[0], t.weight("recurrent_kernel")))
        i, f, g, o = self.parts(t, drive)
        i, f, o = (self.activated(t, "recurrent_activation", gate) for gate in (i, f, o))
        new = t(ops.Mul(), i, self.activated(t, "activation", g))
        c = t(ops.Add(), t(ops.Mul(), f, states[1]), new)
        h = t(ops.Mul(), o, self.activated(t, "activation", c))
        return h, (h, c)


@register_layer("keras>GRUCell")
@dataclass(eq=False)
class GRUCell(Cell):
    """Gated recurrent unit, with the gates in the order z, r, h; Cho et al. 2014, arXiv:1406.1078.

    With `reset_after` the reset gate acts on the product with the recurrent kernel, and the bias has a second row for
    that product, as in cuDNN.
    """

    keras_name = "gru_cell"
    gates = 3

    units: int
    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    reset_after: bool = True
    seed: Any = None

    @property
    def bias_shape(self) -> Shape:
        wide = 3 * self.units
        return (2, wide) if self.reset_after else (wide,)

    def biases(self, t: Trace, dtype: str) -> tuple[Value, ...]:
        if not self.use_bias or not self.reset_after:
            return *super().biases(t, dtype), full(t, (3 * self.units,), 0.0, dtype)
        bias = t.weight("bias")
        rows = [squeeze(t, t(ops.Slice(0, row, row + 1), bias), 0) for row in (0, 1)]
        return rows[0], rows[1]

    def operator(self, run: Run) -> Op:
        gate = self.elementwise("recurrent_activation")
        return ops.Gru(self.elementwise("activation"), gate, reset_after=self.reset_after, **run.attributes())

    def step(self, t: Trace, x: Value, states: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        (h,), units = states, self.units
        kernel, bias = t.weight("recurrent_kernel"), self.biases(t, x.type.dtype)[1]
        x_z, x_r, x_h = self.parts(t, x)

        def times(y: Value, start: int) -> Value:
            """``y @ kernel + bias`` for the gate whose columns begin at `start`."""
            columns, some = t(ops.Slice(1, start, start + units), kernel), t(ops.Slice(0, start, start + units), bias)
            return t(ops.Dense(), y, columns, some)

        z, r = (
            self.activated(t, "recurrent_activation", t(ops.Add(), part, times(h, start)))
            for part, start in ((x_z, 0), (x_r, units))
        )
        inner = t(ops.Mul(), r, times(h, 2 * units)) if self.reset_after else times(t(ops.Mul(), r, h), 2 * units)
        candidate = self.activated(t, "activation", t(ops.Add(), x_h, inner))
        kept = t(ops.Mul(), z, t(ops.Sub(), h, candidate))
        new = t(ops.Add(), candidate, kept)
        return new, (new,)


@register_layer("keras>StackedRNNCells")
@dataclass(eq=False)
class StackedRNNCells(Recurrence):
    """Cells one upon the other: each reads the output of the one before at the same step."""

    keras_name = "stacked_rnn_cells"

    cells: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.cells
        self.require(isinstance(given, list | tuple) and bool(given), "cells", "a list of cells")
        self.cells = [require_cell(deserialize_layer(cell), self) for cell in given]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cells": [serialize_layer(cell) for cell in self.cells]}

    @property
    def sublayers(self) -> dict[str, Layer]:
        names: dict[str, Layer] = {}
        for cell in self.cells:
            count = sum(isinstance(o, Recurrence) and o.keras_name == cell.keras_name for o in names.values())
            names[f"cells/{cell.keras_name}_{count}" if count else f"cells/{cell.keras_name}"] = cell.stands_for
        return names

    def build(self, *input_shapes: Any) -> None:
        shape: Shape = input_shapes[0]
        for cell in self.cells:
            ensure_built(cell, [shape])
            shape = (shape[0], cell.output_size)

    @property
    def output_size(self) -> int:
        """The number of features of the result."""
        return int(self.cells[-1].output_size)

    @property
    def state_count(self) -> int:
        """The number of states of all cells."""
        return sum(cell.state_count for cell in self.cells)

    def sequence(self, t: Trace, x: Value, run: Run) -> tuple[Value, tuple[Value, ...]]:
        """The output of the last cell at every step, and the last states of all cells."""
        left = list(run.states or ())
        states: list[Value] = []
        for cell in self.cells:
            own = tuple(left[: cell.state_count]) if run.states is not None else None
            left = left[cell.state_count :]
            inner = Run(own, run.mask, run.reverse, run.zero_masked_output)
            x, last = cell.sequence(t.inside(cell), x, inner)
            states += last
        return x, tuple(states)


def require_cell(cell: Layer, owner: Layer) -> Recurrence:
    """`cell`, where a recurrent layer can run it.

    Raises:
        ModelError: it is another layer.
    """
    if isinstance(cell, Recurrence):
        return cell
    if cell.is_users_own():
        from kcompile.frontend.layers.users_cells import UsersCell

        return UsersCell(cell)
    law = f"a cell of layer `{owner.name}` must be one of Keras's or an UnrolledCell"
    raise ModelError(f"{law}. Received: {type(cell).__name__}.")
