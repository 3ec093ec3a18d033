"""Fixing open extents of a graph's inputs."""

from collections.abc import Mapping, Sequence

from kcompile.errors import InputError
from kcompile.ir.dims import Dim
from kcompile.ir.evaluate import bind_graph
from kcompile.ir.graph import Graph
from kcompile.runtime.equality import unmet
from kcompile.runtime.extents import equalities


def fix_shapes(graph: Graph, shapes: Mapping[str, Sequence[int | None]]) -> Graph:
    """`graph` with inputs of `shapes`, by name; None leaves an extent as it is. The same object if nothing changes.

    Raises:
        InputError: there is no such input, or a shape does not fit it; all problems are named.
        GraphError: an op does not accept the extents.
    """
    bindings: dict[str, Dim] = {}
    problems: list[str] = []
    types = graph.input_types
    for name, shape in shapes.items():
        if name not in types:
            problems.append(f"the model's inputs are {', '.join(f'`{n}`' for n in types)}. Received: `{name}`.")
        elif any(not _is_extent(extent) for extent in shape):
            problems.append(f"the extents of input `{name}` must be integers from 1 on, or None. Received: {shape}.")
        elif not _bind(types[name].shape, shape, bindings):
            stated = ", ".join(map(str, types[name].shape))
            received = ", ".join("?" if extent is None else str(extent) for extent in shape)
            problems.append(f"input `{name}` must have shape ({stated}). Received: ({received}).")
    problems = problems or unmet(equalities(graph), bindings)
    if problems:
        raise InputError("\n".join(problems))
    return bind_graph(graph, bindings) if bindings else graph


def _is_extent(extent: object) -> bool:
    return extent is None or (isinstance(extent, int) and not isinstance(extent, bool) and extent >= 1)


def _bind(stated: Sequence[Dim], shape: Sequence[int | None], bindings: dict[str, Dim]) -> bool:
    """Enter the symbols' values that `shape` asks for; whether it fits."""
    if len(stated) != len(shape):
        return False
    for dim, extent in zip(stated, shape, strict=True):
        if extent is None or dim == extent:
            continue
        if isinstance(dim, int) or not dim.isidentifier() or bindings.setdefault(dim, extent) != extent:
            return False
    return True
