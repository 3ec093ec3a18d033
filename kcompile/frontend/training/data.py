"""Batches from what users give: arrays in any structure, generators, and datasets with `__len__` and `__getitem__`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from kcompile.errors import InputError
from kcompile.frontend import initializers
from kcompile.frontend.tracing import flatten, map_structure
from kcompile.ir.types import Array
from kcompile.runtime.feeds import cast_input

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Named = dict[str, Array]

# Shuffled samples that are gathered at a time: many, as handing the work to another thread takes 30 µs.
_AHEAD_BYTES = 1 << 21


@dataclass(frozen=True)
class Structure:
    """A batch as a user gave it, with the names of a step's inputs for its arrays."""

    x: Any
    y: Any = None
    weights: Any = None

    def parts(self, batch: "Batch") -> tuple[Any, Any, Any]:
        """Inputs, labels and sample weights; such as come from weights of classes have no structure of their own."""
        weights = self.weights if self.weights is not None else next((f"weight/{name}" for name in batch.weights), None)
        return self.x, self.y, weights


@dataclass(frozen=True)
class Batch:
    """Inputs by name; labels and sample weights by output, where given.

    Attributes:
        structure: in which a step of a user's own gets them.
        whole: the batch of which this one is a part.
    """

    x: Named
    y: Named
    weights: Named
    structure: Structure | None = None
    whole: "Batch | None" = None

    @property
    def size(self) -> int:
        """The number of samples."""
        return next(iter(self.x.values())).shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for group in self.groups.values() for array in group.values())

    @property
    def groups(self) -> dict[str, Named]:
        """The three parts by the prefix of their names in a step."""
        return {"": self.x, "y/": self.y, "weight/": self.weights}

    @property
    def signature(self) -> tuple[object, ...]:
        """Names, dtypes and shapes but for the number of samples."""
        parts = ((kind, name, a) for kind, group in self.groups.items() for name, a in group.items())
        found = tuple((kind, name, array.dtype.char, array.shape[1:]) for kind, name, array in parts)
        return found if self.structure is None else (*found, repr(self.structure))

    def rows(self, chosen: slice | Array) -> "Batch":
        """Some samples: a slice of them, or copies of those with these numbers."""
        x, y, weights = (
            {n: a[chosen] if isinstance(chosen, slice) else a.take(chosen, axis=0) for n, a in group.items()}
            for group in self.groups.values()
        )
        return Batch(x, y, weights, self.structure, self.whole or self)

    def arrays(self) -> Named:
        """The arrays by the names of a step's inputs."""
        return {f"{kind}{name}": array for kind, group in self.groups.items() for name, array in group.items()}


@dataclass(frozen=True)
class Reader:
    """Brings what users give into the form of a model: names, ranks and dtypes.

    Attributes:
        outputs: the outputs that have a loss or metrics and so need labels.
    """

    model: "Model"
    outputs: Sequence[str]

    def named(self, x: Any, y: Any = None, weights: Any = None) -> Batch:
        """Arrays by name, not cast yet.

        Raises:
            InputError: numbers, names or shapes do not fit.
        """
        inputs = self.model.match_inputs(x)
        labels = self._per_output("y", y) if y is not None else {}
        scales = self._per_output("sample_weight", weights, shared=True) if weights is not None else {}
        batch = Batch(inputs, labels, scales)
        return even(batch)

    def _per_output(self, argument: str, value: Any, shared: bool = False) -> Named:
        names = list(self.outputs)
        if isinstance(value, Mapping):
            unknown = [str(key) for key in value if key not in self.model.output_names]
            if unknown:
                law = f"`{argument}` must name outputs of the model: {', '.join(self.model.output_names)}"
                raise InputError(f"{law}. Received: {', '.join(unknown)}.")
            return {str(name): np.asarray(array) for name, array in value.items() if array is not None}
        several = isinstance(value, list | tuple) and any(isinstance(v, np.ndarray | list | tuple) for v in value)
        if several and len(value) == len(names) and (len(names) > 1 or isinstance(value[0], np.ndarray)):
            return {name: np.asarray(array) for name, array in zip(names, value, strict=True) if array is not None}
        if several and len(value) == len(self.model.output_names) and len(names) > 0:
            pairs = zip(self.model.output_names, value, strict=True)
            return {name: np.asarray(array) for name, array in pairs if array is not None}
        if len(names) > 1 and not shared:
            law = f"`{argument}` must hold one array for each of the outputs {', '.join(names)}"
            raise InputError(f"{law}. Received: {type(value).__name__}.")
        array = np.asarray(value)
        return dict.fromkeys(names, array)

    def cast(self, batch: Batch) -> Batch:
        """The batch with the dtypes of the model's inputs; labels as int32 or float32."""
        dtypes = {tensor.name: tensor.dtype for tensor in self.model.inputs}
        return Batch(
            {n: np.ascontiguousarray(cast_input(n, array, dtypes[n])) for n, array in batch.x.items()},
            {name: np.ascontiguousarray(array, label_dtype(name, array)) for name, array in batch.y.items()},
            {name: np.ascontiguousarray(array, np.float32) for name, array in batch.weights.items()},
            whole=batch.whole,
        )

    def leaves(self, batch: Batch) -> bool:
        """Whether `cast` gives back any slice of these arrays as it is."""
        x, y, weights = ({name: array[:0] for name, array in group.items()} for group in batch.groups.values())
        none = Batch(x, y, weights)
        pairs = zip(none.groups.values(), self.cast(none).groups.values(), strict=True)
        same = all(cast[name] is array for given, cast in pairs for name, array in given.items())
        return same and all(a.flags.c_contiguous for group in batch.groups.values() for a in group.values())


def even(batch: Batch) -> Batch:
    """The batch, whose arrays must agree in their number of samples.

    Raises:
        InputError: they do not.
    """
    given = {f"{kind}{n}": a.shape for kind, group in batch.groups.items() for n, a in group.items()}
    if len({shape[:1] for shape in given.values()}) > 1 or () in given.values():
        what = "inputs, labels and sample weights" if batch.y or batch.weights else "inputs"
        received = ", ".join(f"{name}: {shape}" for name, shape in given.items())
        raise InputError(f"all {what} must have the same number of samples. Received: {received}.")
    return batch


def label_dtype(name: str, array: Array) -> Any:
    """The dtype in which labels reach a step.

    Raises:
        InputError: they are no numbers.
    """
    if array.dtype.kind not in "biuf":
        law = f"labels of output `{name}` must be numbers"
        raise InputError(f"{law}. Received: dtype {array.dtype}. Map classes to 0, 1, 2 and so on first.")
    return np.int32 if array.dtype.kind in "iu" else np.float32


class Batches(ABC):
    """A source of batches that can be run through again and again."""

    # How many batches one run gives, where that is known.
    count: int | None = None
    # Whether a new run goes on where the last one stopped, as that of a generator does.
    goes_on: bool = False

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """One run through the data."""

    def end_epoch(self) -> None:
        """What the source does between two runs: nothing."""
        return


class ArrayBatches(Batches):
    """Slices of arrays, in random order where `shuffle`; of no samples, one batch of none.

    Raises:
        InputError: both kinds of weights are given.
    """

    def __init__(
        self,
        reader: Reader,
        data: tuple[Any, Any, Any],
        batch_size: int | None,
        shuffle: bool = False,
        class_weight: Mapping[int, float] | None = None,
        steps: int | None = None,
    ) -> None:
        x, y, weights = data
        self._reader, self._data, self._shuffle = reader, reader.named(x, y, weights), shuffle
        if class_weight is not None:
            self._data = _class_weighted(self._data, class_weight)
        self.samples = self._data.size
        self.batch_size = batch_size or (math.ceil(self.samples / steps) or 1 if steps else 32)
        self.count = math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        ready = self._reader.leaves(self._data)
        for part in self._shuffled() if self._shuffle else [self._data]:
            for start in range(0, max(part.size, 1), self.batch_size):
                batch = part.rows(slice(start, start + self.batch_size))
                yield batch if ready else self._reader.cast(batch)

    def _shuffled(self) -> Iterator[Batch]:
        """The data in random order, some batches at a time; the next ones are gathered while those before are used."""
        order = initializers.shuffled(self.samples)
        step = self.batch_size * max(_AHEAD_BYTES * self.samples // (self.batch_size * self._data.nbytes or 1), 1)
        chosen = [order[start : start + step] for start in range(0, max(self.samples, 1), step)]
        if len(chosen) == 1:
            yield self._data.rows(order)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="kcompile data") as thread:
            following = thread.submit(self._data.rows, chosen[0])
            for rows in chosen[1:]:
                ready, following = following, thread.submit(self._data.rows, rows)
                yield ready.result()
            yield following.result()


class IterableBatches(Batches):
    """What an iterable gives: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``; one with `__getitem__` by its indices."""

    def __init__(
        self, reader: Reader, source: Any, shuffle: bool = False, class_weight: Mapping[int, float] | None = None
    ) -> None:
        self._reader, self._source, self._shuffle, self._class_weight = reader, source, shuffle, class_weight
        self._indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
        self.count = len(source) if self._indexed else None
        self.goes_on = not self._indexed and iter(source) is source

    def __iter__(self) -> Iterator[Batch]:
        return (self._read(item) for item in self._items())

    def _items(self) -> Iterable[Any]:
        if self._indexed:
            order = initializers.shuffled(self.count or 0) if self._shuffle else range(self.count or 0)
            return (self._source[int(i)] for i in order)
        return self._source if self.goes_on else iter(self._source)

    def _read(self, item: Any) -> Batch:
        parts: tuple[Any, ...] = item if isinstance(item, tuple) else (item,)
        if not 1 <= len(parts) <= 3:
            raise InputError(f"a batch must be x, (x, y) or (x, y, sample_weight). Received: {len(parts)} parts.")
        x, y, weights = (*parts, None, None)[:3]
        batch = self._reader.named(x, y, weights)
        if self._class_weight is not None:
            batch = _class_weighted(batch, self._class_weight)
        return self._reader.cast(batch)

    def end_epoch(self) -> None:
        finish = getattr(self._source, "on_epoch_end", None)
        if callable(finish):
            finish()


def _class_weighted(batch: Batch, class_weight: Mapping[int, float]) -> Batch:
    """The batch with the weight of each sample's class; classes that are not named weigh 1."""
    if batch.weights:
        raise InputError("`class_weight` and `sample_weight` cannot both be given.")
    if len(batch.y) != 1:
        raise InputError(f"`class_weight` is for models with one output. Received: {len(batch.y)} arrays of labels.")
    ((name, y),) = batch.y.items()
    if y.ndim > 1:
        y = y.argmax(-1) if y.shape[-1] != 1 else y[..., 0]
    classes = np.round(y).astype(np.int64)
    weights = np.ones(classes.shape, np.float32)
    for label, weight in class_weight.items():
        weights[classes == label] = weight
    return Batch(batch.x, batch.y, {name: weights}, batch.structure)


def is_arrays(x: Any) -> bool:
    """Whether `x` is arrays, alone or in lists or dicts, rather than a source of batches."""
    if isinstance(x, np.ndarray) or hasattr(x, "__array__"):
        return True
    if isinstance(x, list | tuple | dict):
        return all(isinstance(leaf, np.ndarray | int | float) or hasattr(leaf, "__array__") for leaf in flatten(x))
    return False


def built_for(model: "Model", x: Any) -> Any:
    """`x`, whose first batch tells a model without weights the shapes of its inputs.

    Raises:
        InputError: there is no batch.
    """
    if model.built or x is None:
        return x
    if is_arrays(x):
        model.build_for(x)
        return x
    iterator: Any = None if hasattr(x, "__getitem__") else iter(x)
    first = x[0] if iterator is None else next(iterator, None)
    if first is None:
        raise InputError("the data must give at least one batch. Received: none.")
    model.build_for(first[0] if isinstance(first, tuple) else first)
    return chain([first], x) if iterator is x else x


def split(data: Any, share: float) -> tuple[Any, Any]:
    """Arrays without their last `share` of samples, and that share.

    Raises:
        InputError: these are no arrays, or either part would be empty.
    """
    if not is_arrays(data[0]):
        law = "`validation_split` is for arrays; of other data, give a part as `validation_data`"
        raise InputError(f"{law}. Received: {type(data[0]).__name__}.")
    leaves = [np.asarray(leaf) for leaf in flatten(data) if leaf is not None]
    count = leaves[0].shape[0] if leaves else 0
    at = math.floor(count * (1.0 - share))
    if at in (0, count):
        law = f"`validation_split` must leave samples on both sides of {count}"
        raise InputError(f"{law}. Received: validation_split={share}.")

    def part(chosen: slice) -> Any:
        return map_structure(lambda leaf: None if leaf is None else np.asarray(leaf)[chosen], data)

    return part(slice(None, at)), part(slice(at, None))
