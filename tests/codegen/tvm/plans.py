"""Run lowered graphs stage by stage on guarded memory, without the planner of the arena and the C runtime."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from kcompile.codegen.tvm.kernels.scaled import scalings
from kcompile.codegen.tvm.plan import Argument, Packed, Plan, Temporary
from kcompile.codegen.tvm.rules import TVM
from kcompile.codegen.tvm.targets import Machine, host
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph, Value
from kcompile.ir.op import Op
from kcompile.ir.types import Array, TensorType, bind_shapes
from tests.codegen.tvm.harness import Compiled


def graph_of(op: Op, *operands: TensorType | Array, outputs: Sequence[int] | None = None) -> Graph:
    """A graph of one op: types are inputs ``x0, x1, …``, arrays are constants; `outputs` says which results count."""
    b = Builder()
    values = [
        b.input(f"x{i}", operand) if isinstance(operand, TensorType) else b.constant(operand)
        for i, operand in enumerate(operands)
    ]
    results = b.multi(op, *values)
    return b.build([results[i] for i in outputs] if outputs is not None else results)


class Planned:
    """Graphs in one library."""

    def __init__(self, graphs: Sequence[Graph], machine: Machine | None = None) -> None:
        self._plans: dict[Graph, Plan] = {}
        for graph in graphs:
            unused = (v for node in graph.nodes for v in node.outputs if v not in graph.uses)
            expanded = TVM.expand(graph)
            plan = Plan(machine or host(), frozenset(unused), scaled=scalings(expanded))
            plan.lower(expanded.nodes)
            self._plans[graph] = plan
        kernels = [stage.kernel for plan in self._plans.values() for stage in plan.stages]
        self._compiled = Compiled(list(dict.fromkeys(kernels)), machine)

    def families(self, graph: Graph) -> list[str]:
        """What kinds of kernels a graph became, in order."""
        return [stage.kernel.family for stage in self._plans[graph].stages]

    def __call__(self, graph: Graph, inputs: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
        """The outputs by name. A stage's arguments are what it reads, then what it writes."""
        symbols = bind_shapes(graph.input_types, {name: array.shape for name, array in inputs.items()})
        memory: dict[object, Array] = {value: inputs[value.name] for value in graph.inputs}
        plan = self._plans[graph]

        def home(argument: Argument) -> object:
            while isinstance(argument, Value) and argument in plan.aliases:
                argument = plan.aliases[argument]
            return None if isinstance(argument, np.ndarray | Packed) else argument

        def known(argument: Argument) -> Array | None:
            place = home(argument)
            if isinstance(place, Value) and place.constant is not None:
                return place.constant
            if isinstance(argument, Packed):
                return argument.make()
            return argument if isinstance(argument, np.ndarray) else memory.get(place)

        for stage in plan.stages:
            read: list[Array] = []
            written: list[Argument] = []
            for argument in stage.arguments:
                array = known(argument)
                if array is None:
                    written.append(argument)
                else:
                    assert not written, "what is read must stand before what is written"
                    read.append(array)
            fresh = [_empty(argument, symbols) for argument in written]
            results = self._compiled(stage.kernel, read, fresh, symbols, threads)
            memory.update({home(w): result for w, result in zip(written, results, strict=True)})
        outputs: dict[str, Array] = {}
        for name, value in zip(graph.output_names, graph.outputs, strict=True):
            array = known(value)
            assert array is not None, "an output was not computed"
            outputs[name] = array.reshape(value.type.bind(symbols).static_shape())
        return outputs

    def check(self, graph: Graph, inputs: Mapping[str, Array], rtol: float = 0, atol: float = 0) -> None:
        """One and three threads give the same bits, which are near the reference in float64; exact by default."""
        expected = evaluate(graph, inputs, precision="float64" if rtol or atol else None)
        alone, shared = self(graph, inputs), self(graph, inputs, threads=3)
        for name, y in alone.items():
            assert_array_equal(y, shared[name], "threads change the result")
            assert y.dtype == graph.output_types[name].dtype
            if rtol or atol:
                assert_allclose(y, expected[name], rtol, atol)
            else:
                assert_array_equal(y, expected[name])


def random_inputs(graph: Graph, seed: int = 0, **symbols: int) -> dict[str, Array]:
    """Inputs of every type, with the symbols' values."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for name, type in graph.input_types.items():
        shape = type.bind(symbols).static_shape()
        if type.is_float:
            arrays[name] = random.normal(size=shape).astype(type.dtype)
        elif type.dtype == "bool":
            arrays[name] = random.random(shape) < 0.5
        else:
            arrays[name] = random.integers(0 if type.dtype.startswith("u") else -99, 99, shape).astype(type.dtype)
    return arrays


def _empty(argument: Argument, symbols: Mapping[str, int]) -> Array:
    assert isinstance(argument, Value | Temporary)
    type = argument.type.bind(symbols)
    # Not zeros, so that a kernel that leaves an element unwritten is found out.
    return np.frombuffer(b"\x7b" * (type.itemsize * int(type.size)), type.dtype).reshape(type.static_shape()).copy()
