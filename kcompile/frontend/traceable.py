"""How models become graphs, and how what users give is matched with their inputs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kcompile.errors import KCompileError
from kcompile.frontend.inputs import BATCH, sharings, symbolic_shape
from kcompile.frontend.tracing import Trace, flatten, map_structure
from kcompile.frontend.weight import Weight
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.feeds import by_name, converted
from kcompile.runtime.reference import graph_signature
from kcompile.runtime.signature import Signature, Structure

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Written = TypeVar("Written")


class Traceable:
    """What a model inherits."""

    @property
    def _self(self) -> "Model":
        return cast("Model", self)

    def trace(self, shapes: Mapping[str, Sequence[int | None]] | None = None) -> Graph:
        """The graph of the model.

        Inputs and outputs carry their names in Keras. The batch is ``N`` in all inputs. Open extents of several inputs
        get symbols of their own; where the model needs some to be equal, those on the same axis share one.

        Args:
            shapes: extents of inputs, by name, that are no longer open, for layers that must know them.

        Raises:
            ModelError: a layer does not accept its inputs.
        """
        return self.for_input_types(lambda types: self._trace(types, shapes or {}))

    def for_input_types(self, write: Callable[[dict[str, TensorType]], Written], any_batch: bool = False) -> Written:
        """What `write` makes of the inputs' types by name, with as many symbols for open extents as it accepts.

        Args:
            any_batch: try them with any number of samples first, where the model states a number.

        Raises:
            ModelError: `write` accepts none.
        """
        *finer, coarsest = sharings([tensor.shape for tensor in self._self.inputs])
        found = [self._input_types(suffixes) for suffixes in (*finer, coarsest)]
        if any_batch and any(isinstance(tensor.shape[0], int) for tensor in self._self.inputs if tensor.shape):
            opened = [{name: _of_any_batch(type) for name, type in types.items()} for types in found]
            found = [*opened, *found]
        for types in found[:-1]:
            with suppress(KCompileError, TypeError):  # of code that counts on a known number, too
                return write(types)
        return write(found[-1])

    def _input_types(self, suffixes: Sequence[str]) -> dict[str, TensorType]:
        pairs = zip(self._self.inputs, suffixes, strict=True)
        return {t.name: TensorType(t.dtype, symbolic_shape(t.shape, suffix)) for t, suffix in pairs}

    def _trace(self, types: Mapping[str, TensorType], shapes: Mapping[str, Sequence[int | None]]) -> Graph:
        b = Builder(self._self.name)
        constants: dict[int, Value] = {}

        def constant(weight: Weight, path: str) -> Value:
            if id(weight) not in constants:
                constants[id(weight)] = b.constant(weight.numpy() if weight.trained else weight.array, path)
            return constants[id(weight)]

        given = [pair for name, shape in shapes.items() for pair in zip(types[name].shape, shape, strict=False)]
        fixed = {dim: extent for dim, extent in given if isinstance(dim, str) and extent is not None}
        values = [b.input(name, type.bind(fixed)) for name, type in types.items()]
        outputs, _ = self._self.run(Trace(b, constant), values, (None,) * len(values))
        return b.build(dict(zip(self._self.output_names, flatten(outputs), strict=True)))

    @property
    def input_keys(self) -> dict[str, str]:
        """The inputs' names by their keys, where the model takes a dict with keys that are not the names."""
        keys = sorted(self._self.input) if isinstance(self._self.input, Mapping) else []
        return {key: name for key, name in zip(keys, self._self.input_names, strict=False) if key != name}

    def signature(self, graph: Graph) -> Signature:
        """What `graph`, traced from this model, takes and gives, in the structures that the model was built with."""
        names = iter(graph.output_names)
        structure = map_structure(lambda _: next(names), self._self.output)
        return replace(graph_signature(graph, _with_lists(structure)), keys=self.input_keys)

    def match_inputs(self, x: Any) -> dict[str, Array]:
        """Arrays in any structure that `predict` takes, by the inputs' names, with their ranks and any batch size.

        Raises:
            InputError: numbers, names or shapes do not fit.
        """
        self._self.build_for(x)
        types = {t.name: _of_any_batch(t.type) for t in self._self.inputs}
        arrays = converted(types, by_name(types, self.input_keys, x), casts=False)
        return dict(zip(types, arrays, strict=True))

    def structure_outputs(self, arrays: Mapping[str, Array]) -> Any:
        """Outputs by name in the structure that Keras gives: an array, or a list or dict of them."""
        queue = iter([arrays[name] for name in self._self.output_names])
        return map_structure(lambda _: next(queue), self._self.output)


def _of_any_batch(type: TensorType) -> TensorType:
    """The type with an open batch axis."""
    return type.with_shape((BATCH, *type.shape[1:])) if type.rank else type


def _with_lists(structure: Any) -> Structure:
    """`structure` with lists for tuples, as JSON has it."""
    if isinstance(structure, Mapping):
        items = cast(Mapping[str, Any], structure)
        return {key: _with_lists(item) for key, item in items.items()}
    if isinstance(structure, list | tuple):
        return [_with_lists(item) for item in cast(Sequence[Any], structure)]
    return structure
