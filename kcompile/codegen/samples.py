"""Inputs to try a graph on: seeded, and of the kind that each input is used for.

An input that selects rows of a table gets numbers within it, one that is compared with a number (a masking value) gets
that number at the end of some rows, a mask is true for at least the first step, anything else is standard normal.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kcompile.errors import InputError
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Value
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.equality import fitted
from kcompile.runtime.extents import equalities, smallest_extents
from kcompile.runtime.signature import Signature

# Ops whose results are elements of their first operand, perhaps in another dtype.
_MOVES = (
    ops.Cast,
    ops.Reshape,
    ops.Transpose,
    ops.ExpectExtent,
    ops.Slice,
    ops.Reverse,
    ops.Tile,
    ops.BroadcastTo,
    ops.Clip,
    ops.Round,
    ops.Floor,
    ops.Concat,
    ops.StandardizeText,
    ops.SplitText,
)
# Ops that look up their first operand in the keys that are their second.
_TABLES = (ops.Lookup, ops.CountTokens)

_ROWS = 2
_SPARE = 5


@dataclass(frozen=True)
class Role:
    """What an input is used for.

    Attributes:
        limit: the number of rows that it selects from.
        marker: a number that it is compared with.
        keys: what it is looked up among.
    """

    limit: int | None = None
    marker: float | None = None
    keys: tuple[Any, ...] = ()


def draw_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Inputs by name, the same in every run: two rows, open extents as small as the graph allows with some to spare."""
    rng = np.random.default_rng(seed)
    bindings = sample_extents(graph)
    roles = input_roles(graph)
    return {name: _draw(rng, type.bind(bindings), roles.get(name, Role())) for name, type in graph.input_types.items()}


def draw_for(
    signature: Signature, batch: int, shapes: Mapping[str, Sequence[int | None]], seed: int = 0, spare: int = _SPARE
) -> dict[str, Array]:
    """Inputs by name for a model of which only the signature is known: integers are 0 or 1, so that any table has them.

    Args:
        batch: the rows.
        shapes: extents to take, by input; the others are as small as the model allows with some to spare.
        spare: how many.

    Raises:
        InputError: `shapes` do not fit; all problems are named.
    """
    problems = [
        f"the model's inputs are {', '.join(f'`{n}`' for n in signature.inputs)}. Received: a shape of `{name}`."
        for name in shapes
        if name not in signature.inputs
    ]
    problems += [
        f"input `{name}` must have shape ({', '.join(map(str, type.shape))}). Received: {len(shapes[name])} extents."
        for name, type in signature.inputs.items()
        if name in shapes and len(shapes[name]) != type.rank
    ]
    if problems:
        raise InputError("\n".join(problems))
    rng = np.random.default_rng(seed)
    wanted = dict.fromkeys(dims.symbols(*(dim for type in signature.inputs.values() for dim in type.shape)), spare)
    wanted |= {symbol: value + spare for symbol, value in signature.minimums.items()}
    if signature.batch:
        wanted[signature.batch] = batch
    values = fitted(signature.equalities, wanted, signature.minimums)
    drawn: dict[str, Array] = {}
    for name, type in signature.inputs.items():
        given = shapes.get(name) or (None,) * type.rank
        extents = [
            dims.substitute(dim, values) if extent is None else extent
            for dim, extent in zip(type.shape, given, strict=True)
        ]
        role = Role(limit=None if type.is_float else 2)
        drawn[name] = _draw(rng, type.with_shape(extents), role)
    return drawn


def sample_extents(graph: Graph) -> dict[str, Dim]:
    """A value for every symbol of the inputs: 2 for the batch, else a few more than the smallest legal one."""
    shapes = [type.shape for type in graph.input_types.values()]
    least = smallest_extents(graph)
    extents: dict[str, int] = {}
    for dim in (dim for shape in shapes for dim in shape if isinstance(dim, str) and dim.isidentifier()):
        is_batch = all(shape and shape[0] == dim for shape in shapes)
        # Odd, so that halves are rounded, and different, so that no axis is taken for another.
        spare = least.get(dim, 1) + _SPARE + 2 * len(extents)
        extents.setdefault(dim, max(_ROWS, least.get(dim, 0)) if is_batch else spare)
    return dict(fitted(equalities(graph), extents, least))


def input_roles(graph: Graph) -> dict[str, Role]:
    """What each input is used for, by name; inputs that are used as plain numbers are left out."""
    roles: dict[str, Role] = {}
    for node in graph.nodes:
        if isinstance(node.op, _TABLES) and (keys := node.inputs[1].constant) is not None:
            for name in _origins(node.inputs[0]):
                roles[name] = replace(roles.get(name, Role()), keys=tuple(keys.tolist()))
        elif isinstance(node.op, ops.Gather):
            for name in _origins(node.inputs[1]):
                roles[name] = _selecting(roles.get(name, Role()), node.inputs[0].type.shape[node.op.axis])
        elif isinstance(node.op, ops.Compare):
            numbers = [v.constant for v in node.inputs if v.constant is not None and v.constant.size]
            for name in (name for v in node.inputs for name in _origins(v)) if numbers else ():
                roles[name] = _compared(roles.get(name, Role()), graph.input_types[name], numbers[0])
    return roles


def _selecting(known: Role, rows: Dim) -> Role:
    """The role of an input that selects from `rows` rows; an open number of rows sets no limit."""
    return replace(known, limit=min(rows, known.limit or rows)) if isinstance(rows, int) else known


def _compared(known: Role, type: TensorType, numbers: Array) -> Role:
    """The role of an input that is compared with constant numbers: one of them marks, several are the classes."""
    if numbers.size == 1:
        return replace(known, marker=float(numbers.reshape(-1)[0]))
    whole = known.limit is None and not type.is_float
    return replace(known, limit=int(numbers.max()) + 1) if whole else known


def _origins(value: Value) -> Iterator[str]:
    """Names of the inputs whose elements `value` holds."""
    stack = [value]
    while stack:
        current = stack.pop()
        if current.producer is None:
            yield current.name
        elif isinstance(current.op, _MOVES):
            stack += current.producer.inputs


def _draw(rng: np.random.Generator, type: TensorType, role: Role) -> Array:
    shape = type.static_shape()
    if type.dtype == "bool":
        return _prefix(rng, shape)
    if type.dtype == "string":
        return _texts(rng, shape, role.keys)
    if role.keys:
        return rng.choice(np.array([*role.keys, max(role.keys) + 1]), shape).astype(type.dtype)
    if role.limit is not None:
        array = rng.integers(0, max(role.limit, 1), shape).astype(type.dtype)
    elif type.is_float:
        array = rng.standard_normal(shape).astype(type.dtype)
    else:
        array = rng.integers(0, 256 if type.dtype == "uint8" else 8, shape).astype(type.dtype)
    if role.marker is not None and len(shape) > 1:
        array[~_prefix(rng, shape[:2])] = role.marker
    return array


def _texts(rng: np.random.Generator, shape: tuple[int, ...], keys: Sequence[str]) -> Array:
    """Texts of one word, or of several with what stands between words; some words are among `keys`."""
    words = [*keys, *keys, "apple", "Pear", "çédille", "7"]
    between = [" ", ", ", "\t", "! ", "-"]

    def text() -> str:
        drawn = rng.choice(words, int(rng.choice([1, 1, 2, 5])))
        return "".join(word + str(rng.choice(between)) for word in drawn[:-1]) + str(drawn[-1])

    return np.array([text() for _ in range(math.prod(shape))], np.str_).reshape(shape)


def _prefix(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """True up to a drawn length of at least 1 along axis 1, as padded sequences are masked."""
    if len(shape) < 2:
        return np.ones(shape, np.bool_)
    lengths = rng.integers(1, max(shape[1], 1) + 1, shape[0])
    mask = np.arange(shape[1])[None, :] < lengths[:, None]
    return np.broadcast_to(mask.reshape(*mask.shape, *[1] * (len(shape) - 2)), shape).copy()
