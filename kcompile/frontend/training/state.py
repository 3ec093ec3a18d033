"""What a step reads and writes: weights, optimizer slots and metric states, as inputs and outputs of its graph.

All of it is held by `Weight` objects. Several may be packed into one vector, so that an elementwise update of a hundred
small arrays is one of a single array; their own arrays are then views of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from operator import is_

import numpy as np

from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.graph import Builder, Value
from kcompile.ir.ops import Concat, Reshape, Slice
from kcompile.ir.types import Array, TensorType, type_of


class Pack:
    """Weights whose elements stand one after another in a vector."""

    def __init__(self, members: Sequence[Weight]) -> None:
        self.members = tuple(members)
        sizes = [weight.array.size for weight in self.members]
        self.bounds = [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
        self.value = np.empty(0, self.members[0].array.dtype)
        self._views: list[Array] = []

    @property
    def type(self) -> TensorType:
        """The vector's type."""
        return TensorType(self.members[0].array.dtype.name, (self.bounds[-1][1],))

    def gathered(self) -> Array:
        """The vector; made anew where a member was given another array."""
        current = [weight.array for weight in self.members]
        if len(self._views) != len(current) or not all(map(is_, current, self._views)):
            self.scatter(np.concatenate([array.reshape(-1) for array in current]))
        return self.value

    def scatter(self, value: Array) -> None:
        """Make the members' arrays views of a new vector."""
        self.value = value
        pairs = zip(self.members, self.bounds, strict=True)
        self._views = [value[start:stop].reshape(weight.array.shape) for weight, (start, stop) in pairs]
        for weight, view in zip(self.members, self._views, strict=True):
            weight.array = view


@dataclass
class State:
    """The weights that the graph written by `b` reads, and their new values.

    A weight is read as what was last written to it, as an assignment in Keras has it.
    """

    b: Builder
    inputs: dict[Weight | Pack, Value] = field(default_factory=dict[Weight | Pack, Value])
    current: dict[Weight | Pack, Value] = field(default_factory=dict[Weight | Pack, Value])
    written: dict[Weight | Pack, Value] = field(default_factory=dict[Weight | Pack, Value])
    _first: dict[Weight | Pack, Value] = field(default_factory=dict[Weight | Pack, Value])
    _packs: dict[Weight, tuple[Pack, int]] = field(default_factory=dict[Weight, tuple[Pack, int]])

    def pack(self, weights: Sequence[Weight]) -> Pack:
        """Hold `weights`, which have not been read yet, in one vector."""
        made = Pack(weights)
        self._packs.update({weight: (made, i) for i, weight in enumerate(made.members)})
        return made

    def read(self, weight: Weight | Pack, name: str = "") -> Value:
        """The present value of a weight or of a vector of them; `name` is the input's where it becomes one."""
        if weight not in self.current:
            value = self._member(weight) if isinstance(weight, Weight) and weight in self._packs else None
            self.current[weight] = self._input(weight, name) if value is None else value
            self._first.setdefault(weight, self.current[weight])
        return self.current[weight]

    def original(self, weight: Weight | Pack) -> Value:
        """The value of a weight before anything was written to it."""
        self.read(weight)
        return self._first[weight]

    def restart(self) -> dict[Weight | Pack, Value]:
        """The present values of all that was read or written, as new values that are read from here on.

        Gradients by them do not see what was computed from the old ones.
        """
        self.current = {w: self.b(Reshape(value.type.static_shape()), value) for w, value in self.current.items()}
        return dict(self.current)

    def _input(self, weight: Weight | Pack, name: str) -> Value:
        own = name or (weight.name if isinstance(weight, Weight) else "packed")
        type = weight.type if isinstance(weight, Pack) else type_of(weight.array)
        taken = {value.name for value in self.inputs.values()}
        unique = own if own not in taken else next(n for i in range(len(taken) + 1) if (n := f"{own}:{i}") not in taken)
        self.inputs[weight] = self.b.input(unique, type)
        return self.inputs[weight]

    def _member(self, weight: Weight) -> Value:
        pack, index = self._packs[weight]
        vector = self.read(pack)
        return self.b(Reshape(weight.shape), self.b(Slice(0, *pack.bounds[index]), vector))

    def write(self, weight: Weight | Pack, value: Value) -> None:
        """Give a weight, or a vector of them, a new value."""
        self.current[weight] = self.written[weight] = value
        if isinstance(weight, Pack):
            for member in weight.members:
                self.current.pop(member, None)

    def expression(self, weight: Weight | Pack, name: str = "") -> Expression:
        """`read` as an expression."""
        return Expression(self.b, self.read(weight, name))

    def packed(self, values: Sequence[Value]) -> Value:
        """Values one after another in a vector."""
        flat = [self.b(Reshape((prod(value.type.static_shape()),)), value) for value in values]
        return self.b(Concat(0), *flat) if len(flat) > 1 else flat[0]

    def arrays(self) -> dict[str, Array]:
        """The arrays of all weights by the names of the graph's inputs."""
        return {value.name: array_of(weight) for weight, value in self.inputs.items()}


class Memory:
    """Arrays in which a program changes weights; nobody else has them but through the weights."""

    def __init__(self, weights: Sequence[Weight | Pack]) -> None:
        self.arrays = {weight: np.array(array_of(weight), order="C") for weight in weights}
        assign(tuple(self.arrays), tuple(self.arrays.values()))
        for weight in weights:
            for member in weight.members if isinstance(weight, Pack) else (weight,):
                member.trained = True

    def settle(self) -> None:
        """Bring weights that were given other arrays since the last run back into their own."""
        found = [weight for weight, array in self.arrays.items() if array_of(weight) is not array]
        # One weight may have been given the array of another: all are read before any is written.
        moved = {weight: array_of(weight).copy() for weight in found}
        for weight, array in moved.items():
            self.arrays[weight][...] = array
        assign(tuple(moved), [self.arrays[weight] for weight in moved])


def array_of(weight: Weight | Pack) -> Array:
    """The present array."""
    return weight.array if isinstance(weight, Weight) else weight.gathered()


def assign(weights: Sequence[Weight | Pack], arrays: Sequence[Array]) -> None:
    """Give weights, or vectors of them, new arrays."""
    for weight, array in zip(weights, arrays, strict=True):
        if isinstance(weight, Pack):
            weight.scatter(array)
        else:
            weight.array = array


def copied(weights: Mapping[str, Weight]) -> dict[str, Array]:
    """The arrays of weights by name, which later steps do not change."""
    return {name: weight.array.copy() for name, weight in weights.items()}
