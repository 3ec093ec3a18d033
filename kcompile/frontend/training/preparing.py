"""Arrays made ready for a model, in Keras's words (``keras/src/utils``)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kcompile.errors import InputError
from kcompile.frontend.training.source import PyDataset
from kcompile.ir.types import Array

Side = Literal["pre", "post"]


def to_categorical(x: Any, num_classes: int | None = None) -> Array:
    """Classes as one-hot rows: ``i[...] -> f64[..., num_classes]``; a last axis of extent 1 is dropped.

    Raises:
        InputError: a class is below 0 or from `num_classes` on.
    """
    given = np.asarray(x)
    classes = given.astype(np.int64)
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    count = num_classes or (int(classes.max()) + 1 if classes.size else 0)
    if classes.size and not 0 <= classes.min() <= classes.max() < count:
        law = f"`x` must hold classes from 0 to {count - 1}"
        raise InputError(f"{law}. Received: classes from {classes.min()} to {classes.max()}.")
    return np.eye(count)[classes]


def normalize(x: Any, axis: int = -1, order: int = 2) -> Array:
    """`x` divided by its norms along an axis; where a norm is 0, by 1."""
    array = np.asarray(x)
    norms = np.atleast_1d(np.linalg.norm(array, order, axis))
    norms[norms == 0] = 1
    return array / np.expand_dims(norms, axis)


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: str = "int32",
    padding: Side = "pre",
    truncating: Side = "pre",
    value: Any = 0.0,
) -> Array:
    """Sequences of several lengths as one array: ``[count, maxlen, ...]``.

    Args:
        maxlen: by default the longest length.
        padding: on which side short ones are filled with `value`.
        truncating: on which side long ones are cut.

    Raises:
        InputError: a sequence has no length, or its steps another shape than those of the others.
    """
    if not all(hasattr(sequence, "__len__") for sequence in sequences):
        wrong = next(each for each in sequences if not hasattr(each, "__len__"))
        raise InputError(f"`sequences` must hold lists or arrays. Received: {wrong!r}.")
    arrays = [np.asarray(sequence) for sequence in sequences]
    steps = {array.shape[1:] for array in arrays if len(array)}
    if len(steps) > 1:
        raise InputError(f"the steps of all `sequences` must have one shape. Received: {sorted(steps)}.")
    length = max(map(len, arrays), default=0) if maxlen is None else maxlen
    found = np.full((len(arrays), length, *next(iter(steps), ())), value, dtype)
    for row, array in zip(found, arrays, strict=True):
        cut = array[-length:] if truncating == "pre" else array[:length]
        if len(cut) and length:
            row[slice(-len(cut), None) if padding == "pre" else slice(len(cut))] = cut
    return found


def split_dataset(
    dataset: Any,
    left_size: float | int | None = None,
    right_size: float | int | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Arrays in two parts, of sizes given as numbers of samples or as shares.

    Raises:
        InputError: neither size is given, or they do not fit.
    """
    from kcompile.frontend.tracing import flatten, map_structure

    count = len(next(iter(flatten(dataset))))
    sizes = [round(size * count) if isinstance(size, float) else size for size in (left_size, right_size)]
    left, right = sizes
    if left is None and right is None:
        raise InputError("`split_dataset` needs `left_size` or `right_size`. Received neither.")
    left = count - (right or 0) if left is None else left
    right = count - left if right is None else right
    if left < 0 or right < 0 or left + right > count:
        raise InputError(f"the sizes of both parts must fit {count} samples. Received: {left} and {right}.")
    order = np.random.default_rng(seed).permutation(count) if shuffle else np.arange(count)

    def part(chosen: Array) -> Any:
        return map_structure(lambda array: np.asarray(array)[chosen], dataset)

    return part(order[:left]), part(order[count - right :] if left_size is None else order[left : left + right])


class _Windows(PyDataset):
    """Batches of windows of a series."""

    def __init__(self, data: Array, targets: Any, starts: Array, offsets: Array, batch_size: int) -> None:
        super().__init__()
        self._data, self._targets, self._starts = data, targets, starts
        self._offsets, self._batch_size = offsets, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._starts) / self._batch_size)

    def __getitem__(self, index: int) -> Any:
        starts = self._starts[index * self._batch_size : (index + 1) * self._batch_size]
        windows = self._data[starts[:, None] + self._offsets]
        return windows if self._targets is None else (windows, self._targets[starts])


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> PyDataset:
    """Windows of a series, in batches; the target of a window is that of its first step.

    Args:
        sequence_length: steps of a window, every `sampling_rate`-th of the series.
        sequence_stride: from the start of one window to that of the next.

    Raises:
        InputError: the series is shorter than a window.
    """
    series = np.asarray(data)
    start, end = start_index or 0, len(series) if end_index is None else end_index
    span = (sequence_length - 1) * sampling_rate + 1
    last = end - span + 1
    if targets is not None:
        last = min(last, start + len(targets))
    if last <= start:
        raise InputError(f"`data` must hold at least one window of {span} steps. Received: {end - start} steps.")
    starts = np.arange(start, last, sequence_stride)
    if shuffle:
        np.random.default_rng(seed).shuffle(starts)
    labels = None if targets is None else np.asarray(targets)
    return _Windows(series, labels, starts, np.arange(sequence_length) * sampling_rate, batch_size)
