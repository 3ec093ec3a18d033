"""A graph of fixed extents as an object file and, where the machine has them, a shared library.

Nothing runs beside the caller's thread, nothing is allocated, and no memory is written but the outputs and the
workspace, which is the arena.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm import entry
from kcompile.codegen.tvm.build import check_cpu, link_library
from kcompile.codegen.tvm.lower import Lowered, lower
from kcompile.codegen.tvm.object import Object, library_object
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.weights import Weights
from kcompile.ir.graph import Graph


@dataclass(frozen=True)
class Live:
    """What lies in the workspace while a stage runs.

    Attributes:
        function: the stage's function.
        layer: the path of the Keras layer that it comes from.
        arrays: the offset and the size in bytes of each array.
    """

    function: str
    layer: str
    arrays: tuple[tuple[int, int], ...]

    @property
    def bytes(self) -> int:
        """Of all arrays together."""
        return sum(size for _, size in self.arrays)

    def to_json(self) -> dict[str, object]:
        """The stage as JSON values."""
        return {"function": self.function, "layer": self.layer, "arrays": [list(array) for array in self.arrays]}


@dataclass(frozen=True)
class Library:
    """A model as native code without a runtime.

    Attributes:
        code: the object file.
        step: the object file of the step; None where there is none.
        shared: the shared library of both; None where the machine has none.
        weights: as the kernels read them; they are in `code`, too, unless they were asked to stay outside.
        workspace: bytes that a run needs.
        step_workspace: bytes that a step needs.
        stack: the most bytes of stack that a function takes, without functions of others that it calls.
        stages: what the workspace holds, stage by stage.
    """

    code: bytes
    step: bytes | None
    shared: bytes | None
    weights: bytes
    workspace: int
    step_workspace: int
    stack: int
    stages: tuple[Live, ...]


@dataclass(frozen=True)
class Function:
    """A function of a library: its graph, what C calls it, and the memory of its states, if it has any.

    Inputs and outputs of the graph beyond the first `inputs` and `outputs` lie in that memory at the offsets `states`.
    """

    graph: Graph
    name: str
    inputs: int
    outputs: int
    states: tuple[int, ...] = ()

    @property
    def prefix(self) -> str:
        """What the names of its kernels begin with."""
        return self.name.removesuffix("_run")


@dataclass(frozen=True)
class _Made:
    lowered: Lowered
    object: Object


def compile_library(run: Function, step: Function | None, machine: Machine, external: bool = False) -> Library:
    """Native code for functions whose extents are all known.

    Args:
        run: what computes the model.
        step: what computes a step of it, an object of its own, so that a program holds what it calls.
        machine: what it is for.
        external: whether the weights are a parameter of the functions instead of a part of the objects.

    Raises:
        TargetError: LLVM does not know the machine.
        UnsupportedOp: a graph holds ops that this back end cannot express.
        MissingExtra: the shared library needs a linker that is missing.
    """
    check_cpu(machine)
    together = Weights(machine) if external else None
    made = [_made(function, machine, together) for function in (run, step) if function]
    names = [function.name for function in (run, step) if function]
    shared = link_library([part.object.code for part in made], names, machine) if machine.emulation else None
    return Library(
        made[0].object.code,
        made[1].object.code if step else None,
        shared,
        bytes(together.blob() if together else made[0].lowered.weights),
        made[0].lowered.arena.bytes({}),
        made[-1].lowered.arena.bytes({}),
        max(part.object.stack for part in made),
        live_stages(made[0].lowered),
    )


def _made(function: Function, machine: Machine, together: Weights | None) -> _Made:
    """One function; its weights go into the blob, if there is one."""
    lowered = lower(function.graph, machine, function.prefix, together, function.outputs)
    text = (
        _weights_text(bytes(lowered.weights), function.name, Weights(machine).alignment) if together is None else None
    )
    functions = dict(lowered.functions)
    functions[function.name] = entry.library_run(
        machine, lowered.calls, function.inputs, function.outputs, text, function.states
    )
    return _Made(lowered, library_object(functions, machine, function.name))


def _weights_text(weights: bytes, name: str, alignment: int) -> str:
    """LLVM text of a constant array, and of the function that gives its address."""
    content = f'c"\\{weights.hex(chr(92))}"' if weights else "zeroinitializer"
    placed = f'align {alignment}, section ".rodata.{name}_weights"'
    return (
        f"@weights = internal constant [{len(weights)} x i8] {content}, {placed}\n"
        "define ptr @weights_address() { ret ptr @weights }\n"
    )


def live_stages(lowered: Lowered) -> tuple[Live, ...]:
    """What the workspace holds, stage by stage."""
    starts = _slot_starts(lowered)
    places = [
        (starts[place.slot] + int(place.offset), int(place.size), life.first, life.last)
        for place, life in zip(lowered.arena.places, lowered.lives, strict=True)
    ]
    return tuple(
        Live(
            call.function,
            call.source,
            tuple(sorted((offset, size) for offset, size, first, last in places if first <= number <= last)),
        )
        for number, call in enumerate(lowered.table)
    )


def _slot_starts(lowered: Lowered) -> Sequence[int]:
    starts = [0]
    for slot in lowered.arena.slots:
        starts.append(starts[-1] + max(int(size) for size in slot))
    return starts
