"""Batches for steps of a user's own: as they were given, but for their dtypes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.frontend.tracing import flatten, map_structure
from kcompile.frontend.training.data import Batch, Named, Reader, Structure, even, label_dtype
from kcompile.frontend.training.eager import as_array
from kcompile.runtime.feeds import cast_input


@dataclass(frozen=True)
class FreeReader(Reader):
    """Keeps the structure of what users give, for steps of their own: names are places in it."""

    def named(self, x: Any, y: Any = None, weights: Any = None) -> Batch:
        inputs, labels, scales = _places("x/", x), _places("", y), _places("", weights)
        structure = Structure(inputs.names, _prefixed("y/", labels.names), _prefixed("weight/", scales.names))
        return even(Batch(inputs.arrays, labels.arrays, scales.arrays, structure))

    def cast(self, batch: Batch) -> Batch:
        """The batch with dtypes of inputs that the model knows; others in single precision where they are doubles."""
        known = self.model.inputs if self.model.is_traced and len(self.model.inputs) == len(batch.x) else []
        dtypes = {name: tensor.dtype for name, tensor in zip(batch.x, known, strict=False)}
        x = {n: cast_input(n, a, dtypes[n]) if n in dtypes else as_array(a) for n, a in batch.x.items()}
        return Batch(
            {name: np.ascontiguousarray(array) for name, array in x.items()},
            {name: np.ascontiguousarray(array, label_dtype(name, array)) for name, array in batch.y.items()},
            {name: np.ascontiguousarray(array, np.float32) for name, array in batch.weights.items()},
            batch.structure,
        )


@dataclass(frozen=True)
class _Places:
    """Arrays by their places in a structure, and the structure of their names."""

    names: Any
    arrays: Named


def _places(prefix: str, value: Any) -> _Places:
    if isinstance(value, list | tuple) and not any(hasattr(leaf, "__array__") for leaf in flatten(value)):
        value = np.asarray(value)
    arrays: Named = {}

    def place(leaf: Any) -> str | None:
        if leaf is None:
            return None
        name = f"{prefix}{len(arrays)}"
        arrays[name] = np.asarray(leaf)
        return name

    return _Places(map_structure(place, value), arrays)


def _prefixed(prefix: str, names: Any) -> Any:
    return map_structure(lambda name: None if name is None else f"{prefix}{name}", names)
