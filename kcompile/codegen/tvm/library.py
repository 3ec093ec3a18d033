"""A graph of fixed extents as an object file and, where the machine has them, a shared library.

Nothing runs beside the caller's thread, nothing is allocated, and no memory is written but the outputs and the
workspace, which is the arena.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm import entry
from kcompile.codegen.tvm.build import check_cpu, link_library
from kcompile.codegen.tvm.lower import Lowered, lower
from kcompile.codegen.tvm.object import library_object
from kcompile.codegen.tvm.targets import Machine
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
        shared: the shared library; None where the machine has none.
        weights: as the kernels read them; they are in `code`, too, unless they were asked to stay outside.
        workspace: its size in bytes.
        stack: the most bytes of stack that the function takes, without functions of others that it calls.
        stages: what the workspace holds, stage by stage.
    """

    code: bytes
    shared: bytes | None
    weights: bytes
    workspace: int
    stack: int
    stages: tuple[Live, ...]


def compile_library(graph: Graph, machine: Machine, name: str, external: bool = False) -> Library:
    """Native code for `graph`, whose extents are all known; its function is ``<name>_run``.

    Args:
        external: whether the weights are a parameter of the function instead of a part of the object.

    Raises:
        TargetError: LLVM does not know the machine.
        UnsupportedOp: the graph holds ops that this back end cannot express.
        MissingExtra: the shared library needs a linker that is missing.
    """
    check_cpu(machine)
    lowered = lower(graph, machine, name)
    text = None if external else _weights_text(lowered.weights, name)
    functions = dict(lowered.functions)
    functions[f"{name}_run"] = entry.library_run(
        machine, lowered.arena, lowered.calls, len(graph.inputs), len(graph.outputs), text
    )
    made = library_object(functions, machine, f"{name}_run")
    shared = link_library([made.code], [f"{name}_run"], machine) if machine.emulation else None
    return Library(made.code, shared, lowered.weights, lowered.arena.bytes({}), made.stack, live_stages(lowered))


def _weights_text(weights: bytes, name: str) -> str:
    """LLVM text of a constant array, and of the function that gives its address."""
    content = f'c"\\{weights.hex(chr(92))}"' if weights else "zeroinitializer"
    return (
        f'@weights = internal constant [{len(weights)} x i8] {content}, align 64, section ".rodata.{name}_weights"\n'
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
