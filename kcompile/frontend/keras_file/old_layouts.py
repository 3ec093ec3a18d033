"""Arrays of ``.h5`` files in the layouts that older layers, and those of cuDNN, gave them.

The layouts are those that Keras 2 converted on loading (`preprocess_weights_for_loading` in keras/engine/saving.py of
2.2.4): kernels of Keras 1 with the filters first, recurrent kernels in one array per gate, convolutions of Theano,
which runs kernels backwards, and the kernels and biases of CuDNNLSTM and CuDNNGRU.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kcompile.frontend.keras_file.layout import Owned
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers.convolution import Conv1D, Conv2D, Conv2DTranspose, Conv3D, SeparableConv2D
from kcompile.frontend.layers.normalization import BatchNormalization
from kcompile.frontend.layers.recurrent_cells import GRUCell, LSTMCell
from kcompile.frontend.layers.recurrent_convolution import ConvLSTMCell
from kcompile.ir.types import Array

Change: TypeAlias = Callable[[Array], Array]
Shape: TypeAlias = tuple[int, ...]

_CONVOLUTIONS = (Conv1D, Conv2D, Conv2DTranspose, Conv3D, ConvLSTMCell)
# The gates of Keras 1 in the order of Keras 2: Keras 1 wrote i, c, f, o for an LSTM and z, r, h for a GRU.
_GATES: dict[type[Layer], tuple[int, ...]] = {LSTMCell: (0, 2, 1, 3), ConvLSTMCell: (0, 2, 1, 3), GRUCell: (0, 1, 2)}


@dataclass(frozen=True)
class Stored:
    """An array of a file: its path there, its shape, and how to read it."""

    path: str
    shape: Shape | None
    read: Callable[[], Array]


def joined_gates(weights: Sequence[Owned], stored: Sequence[Stored]) -> list[Stored]:
    """The arrays with those of the single gates of Keras 1 joined, for weights in the order of the file."""
    if len(stored) <= len(weights):
        return list(stored)
    queue, made = deque(stored), list[Stored]()
    left = deque(weights)
    while left and queue:
        owned = left.popleft()
        order = _GATES.get(type(owned.owner), ())
        per_gate = owned.weight.shape[-1] // len(order) if order else 0
        if owned.weight.name != "kernel" or not order or _filters(owned.owner, queue[0]) != per_gate:
            made.append(queue.popleft())
            continue
        count = 3 * len(order)
        arrays = [queue.popleft() for _ in range(min(count, len(queue)))]
        if len(arrays) < count:
            return list(stored)
        made += [_joined([arrays[3 * gate + kind] for gate in order], owned.owner) for kind in range(3)]
        for _ in range(min(2, len(left))):
            left.popleft()
    return [*made, *queue]


def _filters_first(owner: Layer, stored: Stored) -> bool:
    images = isinstance(owner, ConvLSTMCell) and owner.layer.data_format == "channels_first"
    return images and len(stored.shape or ()) == 4


def _filters(owner: Layer, stored: Stored) -> int | None:
    return stored.shape[0 if _filters_first(owner, stored) else -1] if stored.shape else None


def _joined(gates: Sequence[Stored], owner: Layer) -> Stored:
    first = gates[0].shape or (0,)
    order = (2, 3, 1, 0) if _filters_first(owner, gates[0]) else tuple(range(len(first)))
    one = tuple(first[axis] for axis in order)
    shape = (*one[:-1], len(gates) * one[-1])
    return Stored(gates[0].path, shape, lambda: np.concatenate([g.read().transpose(order) for g in gates], axis=-1))


def change_to(owned: Owned, shape: Shape | None, version: KerasVersion) -> Change | None:
    """What makes the weight of an array of that shape; None where the array can't be that weight's."""
    wanted = owned.weight.shape
    owner, name = owned.owner, owned.weight.name
    if shape is None:
        return None
    if isinstance(owner, LSTMCell | GRUCell) and name == "bias" and shape != wanted:
        return _bias_of_cudnn(owner, shape, wanted)
    change = _kernel_change(owner, name, shape, wanted, version)
    if change is None and shape != wanted:
        return None
    if isinstance(owner, BatchNormalization) and name == "moving_variance" and version.keeps_deviations:
        return _squared(owner.epsilon, version)
    if version.is_theano and isinstance(owner, _CONVOLUTIONS) and name in ("kernel", "recurrent_kernel"):
        return _composed(change, lambda array: np.flip(array, tuple(range(array.ndim - 2))))
    return change or _unchanged


def _unchanged(array: Array) -> Array:
    return array


def _composed(first: Change | None, second: Change) -> Change:
    return (lambda array: second(first(array))) if first else second


def _kernel_change(owner: Layer, name: str, shape: Shape, wanted: Shape, version: KerasVersion) -> Change | None:
    """What brings the axes of a kernel of Keras 1 into the order of Keras 2; None where they are or can't be."""
    if not version.is_1 or not name.endswith("kernel"):
        return None
    order: tuple[int, ...] | None = None
    if isinstance(owner, Conv1D) and len(shape) == 4:
        window, channels, filters = wanted
        # As an image of one column; before 1.1 with the filters first.
        if shape == (window, 1, channels, filters):
            return lambda array: array[:, 0]
        return (lambda array: array.transpose(2, 3, 1, 0)[:, 0]) if shape == (filters, channels, window, 1) else None
    if isinstance(owner, Conv2DTranspose) and len(shape) == 4:
        order = (2, 3, 0, 1) if owner.data_format == "channels_first" else (0, 1, 3, 2)
    elif isinstance(owner, Conv2D | Conv3D | SeparableConv2D) and owner.data_format == "channels_first":
        order = (*range(2, len(shape)), 1, 0)
    fits = order is not None and len(order) == len(wanted) and tuple(shape[axis] for axis in order) == wanted
    return (lambda array: array.transpose(order)) if fits else None


def _squared(epsilon: float, version: KerasVersion) -> Change:
    """Before Keras 1.0.7 the running deviation stood in place of the variance; before 1.0.6 as ``s + epsilon``."""
    added = epsilon if version.numbers < (1, 0, 6) else 0.0
    return lambda array: np.square(array.astype(np.float64) + added) - epsilon


# -- cuDNN ------------------------------------------------------------------------------------------------------------


def is_cudnn_bias(owned: Owned, shape: Shape | None) -> bool:
    """Whether an array is the bias of CuDNNLSTM or CuDNNGRU, which add one to each of the two products."""
    cell = owned.owner
    if not isinstance(cell, LSTMCell | GRUCell) or owned.weight.name != "bias":
        return False
    return shape == (2 * cell.gates * cell.units,) != owned.weight.shape


def _bias_of_cudnn(owner: LSTMCell | GRUCell, shape: Shape, wanted: Shape) -> Change | None:
    if isinstance(owner, LSTMCell) and shape == (2 * wanted[0],):
        return lambda array: array[: wanted[0]] + array[wanted[0] :]
    if isinstance(owner, GRUCell) and len(wanted) == 2 and shape == (2 * wanted[1],):
        return lambda array: array.reshape(wanted)
    return None


def from_cudnn(owned: Owned, array: Array) -> Array:
    """A kernel of CuDNNLSTM or CuDNNGRU, which keep each gate's transposed: the input's also in Fortran's order."""
    if owned.weight.name not in ("kernel", "recurrent_kernel"):
        return array
    gates = np.split(array, array.shape[1] // owned.owner.own_weights[1].shape[0], axis=1)
    if owned.weight.name == "recurrent_kernel":
        return np.concatenate([gate.T for gate in gates], axis=1)
    return np.concatenate([gate.T.reshape(gate.shape, order="F") for gate in gates], axis=1)
