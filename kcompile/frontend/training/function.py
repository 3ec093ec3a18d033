"""Steps that are functions, for training loops of users' own: traced once for each kind of arguments."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np

from kcompile.frontend.initializers import drawn_seed
from kcompile.frontend.tensor import Tensor, current, writing
from kcompile.frontend.tracing import Trace, flatten, map_structure
from kcompile.frontend.training.eager import as_array
from kcompile.frontend.training.effects import Effects
from kcompile.frontend.training.formulas import as_expression, call_users
from kcompile.frontend.training.naming import object_name
from kcompile.frontend.training.program import Program
from kcompile.frontend.training.state import State
from kcompile.frontend.training.step import SEED, Step, finished
from kcompile.frontend.weight import Weight
from kcompile.ir.graph import Builder
from kcompile.ir.types import Array, TensorType, type_of


class Function:
    """A function of arrays that is traced to a graph, once for each kind of arguments, and runs as that.

        @kcompile.function
        def train_step(x, y):
            with kcompile.GradientTape() as tape:
                loss = loss_fn(y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_weights)
            optimizer.apply(gradients, model.trainable_weights)
            return loss

    Weights, optimizers and metrics that it changes are changed by each call. Arguments that are no arrays, such as
    numbers and texts, are known while the function is traced.
    """

    def __init__(self, python_function: Callable[..., Any]) -> None:
        self.python_function = python_function
        update_wrapper(self, python_function)
        self._traced: dict[str, _Traced] = {}
        self._seed, self._calls = drawn_seed(), 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, with arrays in the place of tensors.

        Raises:
            ModelError: it does with tensors what only arrays can do.
        """
        if current() is not None:
            return self.python_function(*args, **kwargs)
        arrays: dict[str, Array] = {}
        objects: list[Any] = []

        def place(leaf: Any) -> Any:
            if isinstance(leaf, Weight) or not hasattr(leaf, "__array__"):
                objects.append(leaf)
                return leaf
            name = f"argument/{len(arrays)}"
            arrays[name] = np.ascontiguousarray(as_array(leaf)).reshape(np.shape(leaf))
            return _Place(name)

        structure = map_structure(place, (args, kwargs))
        kinds = [(array.dtype.name, array.shape) for array in arrays.values()]
        key = repr((map_structure(_identity, structure), kinds))
        if key not in self._traced:
            types = {name: type_of(array) for name, array in arrays.items()}
            self._traced[key] = _Traced(self._trace(structure, types), objects)
        seed = np.asarray((self._seed + self._calls) % 2**63, np.int64)
        self._calls += 1
        return self._traced[key].run({**arrays, SEED: seed})

    def _trace(self, structure: Any, types: dict[str, TensorType]) -> Step:
        b = Builder(object_name(self.python_function))
        state = State(b)
        effects = Effects(state, b.input(SEED, TensorType("int64", ())), training=False, roots=[])
        inputs = {name: Tensor(b.input(name, type)) for name, type in types.items()}
        args, kwargs = map_structure(lambda leaf: inputs[leaf.name] if isinstance(leaf, _Place) else leaf, structure)
        what = f"`{object_name(self.python_function)}`"
        t = Trace(b, state.read, effects)
        with writing(t):
            found = call_users(self.python_function, what, *args, **kwargs)
            results = {
                str(number): as_expression(b, leaf, what)
                for number, leaf in enumerate(flatten(found))
                if not isinstance(leaf, _KNOWN)
            }
        numbers = iter(range(len(list(flatten(found)))))
        shape = map_structure(lambda leaf: _named(next(numbers), leaf), found)
        return finished(state, results, shape)


# What a function may return beside tensors, and gets back as it was while it was traced.
_KNOWN = (bool, int, float, str, type(None))


class _Place:
    """An argument that is an array."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _identity(leaf: Any) -> Any:
    """What makes an argument another one."""
    return leaf if isinstance(leaf, (*_KNOWN, _Place)) else id(leaf)


def _named(number: int, leaf: Any) -> Any:
    return leaf if isinstance(leaf, _KNOWN) else _Place(str(number))


class _Traced:
    """The program of one kind of arguments; those that are no arrays are kept, so that none takes their place."""

    def __init__(self, step: Step, kept: list[Any]) -> None:
        self._program = Program(step, kept)

    def run(self, arrays: dict[str, Array]) -> Any:
        """The results, in the structure that the function returns."""
        found = self._program.run(arrays)
        structure = self._program.step.structure
        return map_structure(lambda leaf: found[leaf.name] if isinstance(leaf, _Place) else leaf, structure)


def function(python_function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function of arrays one graph; as a decorator, with or without arguments.

    Args:
        options: of no effect: a function is always compiled.
    """
    del options
    return Function if python_function is None else Function(python_function)
