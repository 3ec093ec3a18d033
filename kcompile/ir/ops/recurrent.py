"""Recurrent layers with the time loop inside.

Operands: ``x: T[N, L, K]``, ``kernel: T[K, gates * H]``, ``recurrent_kernel: T[H, gates * H]``, ``bias: T[gates * H]``
(and `recurrent_bias` for the GRU), then the initial states ``T[N, H]`` where `has_initial_state` (else zeros), then
``mask: bool[N, L]`` where `has_mask`. Results: the output of every step ``T[N, L, H]``, aligned with ``x`` in time also
where `reverse` runs from the last step to the first, then the last states ``T[N, H]``.

A masked step (False) keeps the states and repeats the last output, or outputs zeros where `zero_masked_output`
(https://keras.io/guides/understanding_masking_and_padding/). Gates stand in Keras's order: i, f, c, o for the LSTM,
z, r, h for the GRU. An activation is an elementwise op, or None for the identity.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kcompile.ir import dims, expression
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Elementwise, Gradients, Op, Types, Values
from kcompile.ir.ops.activation import Sigmoid, Tanh
from kcompile.ir.ops.linear import product
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder

_TANH, _SIGMOID = Tanh(), Sigmoid()


def apply(activation: Elementwise | None, x: Array) -> Array:
    """`activation` of an array; None is the identity."""
    return x if activation is None else activation.kernel((x,))[0]


def of_all_steps(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` for all steps at once: ``x: T[L, N, K], matrix: T[K, M] -> T[L, N, M]``."""
    rows = x.shape[0] * x.shape[1]
    return product(x.reshape(rows, x.shape[2]), matrix).reshape(*x.shape[:2], matrix.shape[1])


@dataclass(frozen=True)
class _Recurrent(Op):
    """Base of the recurrent ops."""

    gates: ClassVar[int]
    states: ClassVar[int] = 1
    biases: ClassVar[int] = 1

    activation: Elementwise | None = _TANH
    recurrent_activation: Elementwise | None = _SIGMOID
    reverse: bool = False
    has_initial_state: bool = False
    has_mask: bool = False
    zero_masked_output: bool = False

    def initial_states(self, args: tuple[object, ...]) -> tuple[object, ...]:
        """The operands that are initial states; empty where the states start at zero."""
        first = 3 + self.biases
        return args[first : first + self.states] if self.has_initial_state else ()

    def infer(self, types: Types) -> Types:
        count = 3 + self.biases + self.states * self.has_initial_state + self.has_mask
        self.require(len(types) == count, f"takes {count} operands", types)
        x, kernel, recurrent = types[:3]
        self.require(x.rank == 3 and kernel.rank == recurrent.rank == 2, "x must be [N, L, K]", types)
        hidden, state = recurrent.shape[0], x.with_shape((x.shape[0], recurrent.shape[0]))
        wide = dims.mul(hidden, self.gates)
        fits = kernel.shape == (x.shape[2], wide) and recurrent.shape[1] == wide
        fits = fits and all(t.shape == (wide,) for t in types[3 : 3 + self.biases])
        fits = fits and all(t == state for t in self.initial_states(types))
        fits = fits and (not self.has_mask or (types[-1].dtype, types[-1].shape) == ("bool", x.shape[:2]))
        self.require(fits, "kernels, biases, states and mask must fit x: [N, L, K] and H units", types)
        return (x.with_shape((*x.shape[:2], hidden)), *[state] * self.states)

    def step(self, x: Array, states: Arrays, weights: Arrays) -> Arrays:
        """The states after one step, the output first, from the input projection ``x: T[N, gates * H]``."""
        raise NotImplementedError

    def kernel(self, args: Arrays) -> Arrays:
        x, kernel, recurrent, bias = args[:4]
        hidden = recurrent.shape[0]
        # Time first, so that the rows of a step lie together.
        projected = of_all_steps(np.ascontiguousarray(x.swapaxes(0, 1)), kernel)
        projected += bias
        given = self.initial_states(args)
        states: Arrays = tuple(np.asarray(s) for s in given) or tuple(
            np.zeros((x.shape[0], hidden), x.dtype) for _ in range(self.states)
        )
        output = np.zeros_like(states[0])
        outputs = np.zeros((*x.shape[:2], hidden), x.dtype)
        order = range(x.shape[1] - 1, -1, -1) if self.reverse else range(x.shape[1])
        for t in order:
            new = self.step(projected[t], states, args[2 : 3 + self.biases])
            if self.has_mask:
                seen = args[-1][:, t, None]
                output = np.where(seen, new[0], np.zeros_like(output) if self.zero_masked_output else output)
                states = tuple(np.where(seen, after, before) for after, before in zip(new, states, strict=True))
            else:
                states, output = new, new[0]
            outputs[:, t] = output
        return (outputs, *states)

    def macs(self, types: Types, results: Types) -> Dim:
        steps = dims.mul(*types[0].shape[:2])
        return dims.mul(steps, dims.add(types[1].size, types[2].size))

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        from kcompile.ir.ops.gradients_recurrent import RecurrentGradient

        assert isinstance(self, SimpleRnn | Lstm | Gru)
        found = b.multi(RecurrentGradient(self), *xs, ys[0], *expression.given(b, dys, ys))
        return (*found, None) if self.has_mask else found


@dataclass(frozen=True)
class SimpleRnn(_Recurrent, name="simple_rnn", operands=("x", "kernel", "recurrent_kernel", "bias", "h?", "mask?")):
    """``h' = activation(x @ kernel + bias + h @ recurrent_kernel)``."""

    gates: ClassVar[int] = 1

    def step(self, x: Array, states: Arrays, weights: Arrays) -> Arrays:
        return (apply(self.activation, x + np.matmul(states[0], weights[0])),)


@dataclass(frozen=True)
class Lstm(_Recurrent, name="lstm", operands=("x", "kernel", "recurrent_kernel", "bias", "h?", "c?", "mask?")):
    """``c' = f * c + i * activation(g)`` and ``h' = o * activation(c')``; Hochreiter and Schmidhuber 1997."""

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def step(self, x: Array, states: Arrays, weights: Arrays) -> Arrays:
        drive = np.matmul(states[0], weights[0])
        drive += x
        hidden, gate = states[0].shape[1], self.recurrent_activation
        opened = apply(gate, drive[:, : 2 * hidden])
        cell = opened[:, hidden:] * states[1]
        cell += opened[:, :hidden] * apply(self.activation, drive[:, 2 * hidden : 3 * hidden])
        return apply(gate, drive[:, 3 * hidden :]) * apply(self.activation, cell), cell


@dataclass(frozen=True)
class Gru(
    _Recurrent, name="gru", operands=("x", "kernel", "recurrent_kernel", "bias", "recurrent_bias", "h?", "mask?")
):
    """``h' = z * h + (1 - z) * activation(candidate)``; Cho et al. 2014, arXiv:1406.1078.

    With `reset_after` the reset gate multiplies ``h @ recurrent_kernel + recurrent_bias``, as in cuDNN, else ``h``
    (then `recurrent_bias` must be zero for the candidate).
    """

    gates: ClassVar[int] = 3
    biases: ClassVar[int] = 2

    reset_after: bool = True

    def step(self, x: Array, states: Arrays, weights: Arrays) -> Arrays:
        h, (recurrent, bias) = states[0], weights[:1] + weights[-1:]
        hidden = h.shape[1]
        gate = self.recurrent_activation
        inner = np.matmul(h, recurrent[:, : 2 * hidden]) + bias[: 2 * hidden]
        z, r = np.split(apply(gate, x[:, : 2 * hidden] + inner), 2, axis=1)
        last, last_bias = recurrent[:, 2 * hidden :], bias[2 * hidden :]
        drive = r * (np.matmul(h, last) + last_bias) if self.reset_after else np.matmul(r * h, last) + last_bias
        candidate = apply(self.activation, x[:, 2 * hidden :] + drive)
        return (z * h + (1 - z) * candidate,)
