"""Backpropagation through time, Werbos 1990, for the recurrent ops.

The outputs of all steps are known, so that the gates are computed again with one product over all steps; the way back
then multiplies by the recurrent kernel alone, step by step, and the weights' gradients are products over all steps.

Inside, time comes first and runs in the order of the computation: ``[L, N, ...]``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kcompile.ir.op import Arrays, Elementwise, Op, Types
from kcompile.ir.ops.activation import Sigmoid, Tanh
from kcompile.ir.ops.linear import product
from kcompile.ir.ops.recurrent import Gru, Lstm, SimpleRnn, apply, of_all_steps
from kcompile.ir.types import Array, TensorType


@lru_cache(maxsize=256)
def _derivative(activation: Elementwise, dtype: str) -> Callable[[Arrays], Arrays]:
    """The derivative of an activation as a function of its operand and its result."""
    from kcompile.ir.evaluate import run_nodes
    from kcompile.ir.expression import given
    from kcompile.ir.graph import Builder

    b = Builder("derivative")
    x, y = (b.input(name, TensorType(dtype, ("n",))) for name in "xy")
    slopes = activation.vjp(b, (x,), (y,), (b.constant(np.ones((), dtype)),))
    graph = b.build(given(b, slopes, [b.constant(np.zeros((), dtype))]))
    return lambda arrays: run_nodes(graph, arrays)


def slope(activation: Elementwise | None, x: Array, y: Array) -> Array:
    """The derivative of ``y = activation(x)``, element by element."""
    if activation is None:
        return np.ones_like(x)
    if isinstance(activation, Sigmoid | Tanh):  # nearly always, and worth a shorter way
        square = y * y
        return np.subtract(y if isinstance(activation, Sigmoid) else y.dtype.type(1), square, out=square)
    return _derivative(activation, x.dtype.name)((x, y))[0]


def _over_time(before: Array, after: Array) -> Array:
    """The sum over steps and samples of ``before^T @ after``: the gradient of a matrix that all steps share."""
    rows = before.shape[0] * before.shape[1]
    return product(before.reshape(rows, before.shape[2]).T, after.reshape(rows, after.shape[2]))


def _steps(x: Array, reverse: bool) -> Array:
    """``x: [N, L, ...] -> [L, N, ...]``, the last step first where `reverse`."""
    steps = x.swapaxes(0, 1)
    return steps[::-1] if reverse else steps


@dataclass
class _Past:
    """What is known of the forward computation.

    ``x: [L, N, K]``, `before`: the first state before each step ``[L, N, H]``, `seen`: ``[L, N, 1]`` where there is a
    mask, `states`: the initial states, `weights`: kernel, recurrent kernel and biases.
    """

    x: Array
    before: Array
    seen: Array | None
    states: Arrays
    weights: Arrays


class _Cell(ABC):
    """The way back through one kind of cell; `back` is called for the last step first.

    `inner` and `outer` collect the gradients by what the recurrent kernel and the kernel gave.
    """

    def __init__(self, past: _Past) -> None:
        self.past = past
        self.outer = np.empty((*past.x.shape[:2], past.weights[0].shape[1]), past.x.dtype)
        self.inner = self.outer

    @abstractmethod
    def back(self, step: int, gradients: Arrays) -> Arrays:
        """The gradients by the states before a step, from those by the states after it."""

    def finish(self) -> Arrays:
        """The gradients by ``x``, the kernel, the recurrent kernel and the bias."""
        kernel, x = self.past.weights[0], self.past.x
        dx = of_all_steps(self.outer, kernel.T)
        return dx, _over_time(x, self.outer), self.recurrent_gradient(), self.outer.sum(axis=(0, 1))

    def recurrent_gradient(self) -> Array:
        """The gradient by the recurrent kernel."""
        return _over_time(self.past.before, self.inner)


def _driven(past: _Past, kernel: Array, recurrent: Array, bias: Array) -> Array:
    """What enters the activations, for all steps: ``x @ kernel + before @ recurrent + bias``."""
    drive = of_all_steps(past.before, recurrent)
    drive += of_all_steps(past.x, kernel)
    drive += bias
    return drive


class _SimpleCell(_Cell):
    def __init__(self, of: SimpleRnn, past: _Past) -> None:
        super().__init__(past)
        kernel, recurrent, bias = past.weights
        drive = _driven(past, kernel, recurrent, bias)
        self.slope = slope(of.activation, drive, apply(of.activation, drive))

    def back(self, step: int, gradients: Arrays) -> Arrays:
        np.multiply(gradients[0], self.slope[step], out=self.outer[step])
        return (product(self.outer[step], self.past.weights[1].T),)


class _LstmCell(_Cell):
    def __init__(self, of: Lstm, past: _Past) -> None:
        super().__init__(past)
        kernel, recurrent, bias = past.weights
        hidden, gate = recurrent.shape[0], of.recurrent_activation
        drive = _driven(past, kernel, recurrent, bias)
        kinds = (gate, gate, of.activation, gate)
        drives = [drive[..., k * hidden : (k + 1) * hidden] for k in range(4)]
        i, f, g, o = gates = [apply(kind, part) for kind, part in zip(kinds, drives, strict=True)]
        before, after = self._cells(i * g, f)
        curve = apply(of.activation, after)
        slopes = [slope(*each) for each in zip(kinds, drives, gates, strict=True)]
        self.forget, self.to_cell = f, o * slope(of.activation, after, curve)
        # Gradient by the drives: the first three per gradient by the cell, the last per gradient by the output.
        self.gates = self.outer.reshape(*self.outer.shape[:2], 4, hidden)
        self.factors = np.empty_like(self.gates)
        for k, (factor, each) in enumerate(zip((g, before, i, curve), slopes, strict=True)):
            np.multiply(factor, each, out=self.factors[:, :, k])

    def _cells(self, added: Array, forget: Array) -> tuple[Array, Array]:
        """The cell before each step, and after it where the step is not masked."""
        cell, seen = self.past.states[1], self.past.seen
        before, after = np.empty_like(added), np.empty_like(added)
        for step in range(added.shape[0]):
            before[step] = cell
            after[step] = forget[step] * cell + added[step]
            cell = after[step] if seen is None else np.where(seen[step], after[step], cell)
        return before, after

    def back(self, step: int, gradients: Arrays) -> Arrays:
        output, cell = gradients
        cell = output * self.to_cell[step] + cell
        np.multiply(self.factors[step, :, :3], cell[:, None], out=self.gates[step, :, :3])
        np.multiply(self.factors[step, :, 3], output, out=self.gates[step, :, 3])
        return product(self.outer[step], self.past.weights[1].T), cell * self.forget[step]


class _GruCell(_Cell):
    def __init__(self, of: Gru, past: _Past) -> None:
        super().__init__(past)
        kernel, recurrent, bias, recurrent_bias = past.weights
        self.hidden, self.reset_after = recurrent.shape[0], of.reset_after
        wide = 2 * self.hidden
        drive = of_all_steps(past.x, kernel) + bias
        gates = drive[..., :wide] + of_all_steps(past.before, recurrent[:, :wide]) + recurrent_bias[:wide]
        opened = apply(of.recurrent_activation, gates)
        slopes = slope(of.recurrent_activation, gates, opened)
        self.update, self.reset = np.split(opened, 2, axis=2)
        last, last_bias = recurrent[:, wide:], recurrent_bias[wide:]
        base = past.before if of.reset_after else self.reset * past.before
        recalled = of_all_steps(base, last) + last_bias
        inner = drive[..., wide:] + (self.reset * recalled if of.reset_after else recalled)
        candidate = apply(of.activation, inner)
        # Gradient by the drives per gradient by the state; the reset gate's per gradient by what it multiplies.
        self.to_update = (past.before - candidate) * slopes[..., : self.hidden]
        self.to_candidate = (1 - self.update) * slope(of.activation, inner, candidate)
        self.to_reset = (recalled if of.reset_after else past.before) * slopes[..., self.hidden :]
        self.inner = np.empty_like(self.outer) if of.reset_after else self.outer

    def back(self, step: int, gradients: Arrays) -> Arrays:
        state, h, recurrent = gradients[0], self.hidden, self.past.weights[1]
        outer, inner = self.outer[step], self.inner[step]
        np.multiply(state, self.to_update[step], out=outer[:, :h])
        np.multiply(state, self.to_candidate[step], out=outer[:, 2 * h :])
        before = state * self.update[step]
        if self.reset_after:
            np.multiply(outer[:, 2 * h :], self.to_reset[step], out=outer[:, h : 2 * h])
            inner[:, : 2 * h] = outer[:, : 2 * h]
            np.multiply(outer[:, 2 * h :], self.reset[step], out=inner[:, 2 * h :])
            return (before + product(inner, recurrent.T),)
        recalled = product(outer[:, 2 * h :], recurrent[:, 2 * h :].T)
        np.multiply(recalled, self.to_reset[step], out=outer[:, h : 2 * h])
        before += recalled * self.reset[step]
        return (before + product(outer[:, : 2 * h], recurrent[:, : 2 * h].T),)

    def recurrent_gradient(self) -> Array:
        if self.reset_after:
            return super().recurrent_gradient()
        gates, last = self.inner[..., : 2 * self.hidden], self.inner[..., 2 * self.hidden :]
        parts = _over_time(self.past.before, gates), _over_time(self.reset * self.past.before, last)
        return np.concatenate(parts, axis=1)

    def finish(self) -> Arrays:
        return *super().finish(), self.inner.sum(axis=(0, 1))


@dataclass(frozen=True)
class RecurrentGradient(Op, name="recurrent_gradient", operands=("x", "*others")):
    """The gradients of the recurrent op `of` by its float operands, in their order.

    Operands: those of the op, its first result, and the gradients by all of its results.
    """

    of: SimpleRnn | Lstm | Gru

    def _split(self, count: int) -> int:
        """How many operands are the op's own."""
        return count - 2 - self.of.states

    def infer(self, types: Types) -> Types:
        own = self._split(len(types))
        self.require(own >= 4, "needs the op's operands, its first result and all gradients", types)
        results = self.of.infer(types[:own])
        self.require(types[own:] == (results[0], *results), "the gradients must be by the op's results", types)
        return types[: own - self.of.has_mask]

    def kernel(self, args: Arrays) -> Arrays:
        own = self._split(len(args))
        operands, outputs, dys = args[:own], args[own], args[own + 1 :]
        cell = _cell(self.of, self._past(operands, _steps(outputs, self.of.reverse)))
        states = self._run_back(cell, _steps(dys[0], self.of.reverse), dys[1:])
        dx, *rest = cell.finish()
        sequence = (dx[::-1] if self.of.reverse else dx).swapaxes(0, 1)
        return (np.ascontiguousarray(sequence), *rest, *(states if self.of.has_initial_state else ()))

    def _past(self, operands: Arrays, outputs: Array) -> _Past:
        of = self.of
        seen = _steps(operands[-1], of.reverse)[..., None] if of.has_mask else None
        zero = np.zeros(outputs.shape[1:], outputs.dtype)
        states = tuple(np.asarray(s) for s in of.initial_states(operands)) or (zero,) * of.states
        before = np.empty(outputs.shape, outputs.dtype)
        state = states[0]
        for step in range(len(outputs)):
            before[step] = state
            state = outputs[step] if seen is None else np.where(seen[step], outputs[step], state)
        return _Past(
            np.ascontiguousarray(_steps(operands[0], of.reverse)), before, seen, states, operands[1 : 3 + of.biases]
        )

    def _run_back(self, cell: _Cell, dy: Array, states: Arrays) -> Arrays:
        """The gradients by the initial states, from those by all outputs and by the last states."""
        seen, repeated = cell.past.seen, np.zeros_like(states[0])
        for step in range(len(dy) - 1, -1, -1):
            output = dy[step] + repeated
            arriving = (states[0] + output, *states[1:])
            if seen is None:
                states = cell.back(step, arriving)
                repeated = np.zeros((), dy.dtype)
                continue
            now = seen[step]
            before = cell.back(step, tuple(np.where(now, d, 0) for d in arriving))
            states = tuple(np.where(now, new, old) for new, old in zip(before, states, strict=True))
            repeated = np.where(now | self.of.zero_masked_output, 0, output)
        return states


def _cell(of: SimpleRnn | Lstm | Gru, past: _Past) -> _Cell:
    if isinstance(of, Lstm):
        return _LstmCell(of, past)
    return _GruCell(of, past) if isinstance(of, Gru) else _SimpleCell(of, past)
