"""The C interface of a model: names, sizes, and the header that declares them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from math import prod

from kcompile.codegen.library.stepping import Step
from kcompile.ir.types import TensorType
from kcompile.runtime.signature import Signature

C_TYPES = {
    "bool": "uint8_t",
    "float16": "uint16_t",
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

# Words of C99 and C++ that no member may be called.
_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const const_cast constexpr
continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if
inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct switch template this
thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
"""
_KEYWORDS = frozenset(_WORDS.split())


@dataclass(frozen=True)
class Port:
    """An input or output: its name in the model, its name in C, and its type, whose extents are known."""

    name: str
    field: str
    type: TensorType

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.type.static_shape())

    @property
    def bytes(self) -> int:
        """The bytes of the array."""
        return self.size * self.type.itemsize


@dataclass(frozen=True)
class StepInterface:
    """What the header declares for a step.

    Attributes:
        inputs: the inputs; those that hold a sequence hold one element of it.
        outputs: likewise.
        states: what is kept between steps.
        moving: the inputs and outputs that hold an element of a sequence.
        length: the number of steps of a run.
        workspace: bytes of memory that a step needs.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    moving: tuple[str, ...]
    length: int
    workspace: int

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each state lies in the structure."""
        ends = accumulate((state.bytes for state in self.states), initial=0)
        return tuple(ends)[:-1]


@dataclass(frozen=True)
class Interface:
    """What the header declares.

    Attributes:
        name: the model's name, which begins every C name.
        inputs: in the order of the model.
        outputs: likewise.
        workspace: bytes of memory that a run needs.
        alignment: of the workspace's address.
        weights: their bytes.
        external: whether the caller gives the weights.
        step: what the header says of the step, if there is one.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    workspace: int
    alignment: int
    weights: int
    external: bool
    step: "StepInterface | None" = None

    @property
    def macro(self) -> str:
        """What every macro begins with."""
        return self.name.upper()

    @property
    def declaration(self) -> str:
        """The function's declaration, without the semicolon."""
        return self._function("run", "")

    @property
    def step_declaration(self) -> str:
        """The step's declaration, without the semicolon."""
        return self._function("step", f"{self.name}_state *state, ")

    def _function(self, verb: str, state: str) -> str:
        weights = "const void *weights, " if self.external else ""
        arrays = f"const {self.name}_inputs *inputs, {self.name}_outputs *outputs"
        return f"int {self.name}_{verb}({arrays}, {state}{weights}void *workspace)"


def identifier(text: str) -> str:
    """`text` as a name that C and C++ take: letters, digits and underscores."""
    name = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_") or "model"
    return f"m{name}" if name[0].isdigit() else f"{name}_" if name in _KEYWORDS else name


def ports(types: Mapping[str, TensorType]) -> tuple[Port, ...]:
    """One port for each of `types`, with C names that all differ."""
    taken: set[str] = set()
    made: list[Port] = []
    for name, type in types.items():
        base = field = identifier(name)
        number = 2
        while field.upper() in taken:
            field, number = f"{base}_{number}", number + 1
        taken.add(field.upper())
        made.append(Port(name, field, type))
    return tuple(made)


def interface(
    signature: Signature, name: str, workspace: int, alignment: int, weights: int, external: bool
) -> Interface:
    """The interface of a model whose extents are all known."""
    # C has no arrays of no bytes, and a caller should not have to care.
    used = max(workspace, alignment)
    return Interface(name, ports(signature.inputs), ports(signature.outputs), used, alignment, weights, external)


def step_interface(step: Step, workspace: int, alignment: int) -> StepInterface:
    """The interface of a step, whose inputs and outputs are called as those of a run."""
    types = step.graph.input_types
    inputs = {name: type for name, type in types.items() if name not in step.states}
    outputs = dict(list(step.graph.output_types.items())[: -len(step.states)])
    length = next(iter(step.moving.values()))
    used = max(workspace, alignment)
    moving = (*step.moving, *step.sequences)
    return StepInterface(ports(inputs), ports(outputs), ports(step.states), moving, length, used)


def header(face: Interface) -> str:
    """``<model>.h``."""
    weights = "where weights.bin has been loaded or mapped" if face.external else "in the library, as constants"
    lines = [
        f"/* {face.name}: the C interface of a model compiled by kcompile {version('kcompile')}.",
        "",
        "   A run reads the inputs, writes the outputs and the workspace, and does nothing else: it allocates nothing",
        "   and has no variables. Runs may go on at the same time where each has a workspace and outputs of its own.",
        "   Arrays are dense and row-major; a batch has one row unless the shape says otherwise.",
        f"   The weights are {weights}. */",
        f"#ifndef {face.macro}_H",
        f"#define {face.macro}_H",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Bytes of the workspace, and what its address must be a multiple of. It need not be cleared, nor kept. */",
        f"#define {face.macro}_WORKSPACE_BYTES {face.workspace}",
        f"#define {face.macro}_WORKSPACE_ALIGNMENT {face.alignment}",
        "",
        f"/* Bytes of the weights{', whose address must be a multiple of 64' if face.external else ''}. */",
        f"#define {face.macro}_WEIGHTS_BYTES {face.weights}",
        "",
        *_ports(face, "input", face.inputs),
        *_ports(face, "output", face.outputs),
        "/* Compute the outputs. Addresses suit their element types, the outputs overlap nothing else. Returns 0. */",
        f"{face.declaration};",
        "",
        *(_step(face, face.step) if face.step else []),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _step(face: Interface, step: StepInterface) -> list[str]:
    """What the header says of the step."""
    fields = [
        f"    {C_TYPES[s.type.dtype]} {s.field}[{s.size}]; /* {comment(s.name)}: {s.type} */" for s in step.states
    ]
    held = [f"{kind} `{comment(p.name)}`" for kind, ports in (("input", step.inputs), ("output", step.outputs))
            for p in ports if p.name in step.moving]  # fmt: skip
    return [
        "/* What the layers keep from one step to the next. All zero is the beginning of a sequence. */",
        "typedef struct {",
        *fields,
        f"}} {face.name}_state;",
        "",
        "/* Bytes of the workspace of a step, and the number of steps that make a run. */",
        f"#define {face.macro}_STEP_WORKSPACE_BYTES {step.workspace}",
        f"#define {face.macro}_STEPS {step.length}",
        "",
        "/* Take one element of the sequence, and change the state. One element is held by:",
        f"   {', '.join(held)}.",
        "   The outputs are those of a run whose sequence ends here. Returns 0. */",
        f"{face.step_declaration};",
        "",
    ]


def _ports(face: Interface, kind: str, members: Iterable[Port]) -> list[str]:
    """Constants of every port, and the structure that holds their addresses."""
    lines: list[str] = []
    for port in members:
        begin = f"#define {face.macro}_{kind.upper()}_{port.field.upper()}"
        shape = port.type.static_shape()
        lines += [
            f"/* {kind.capitalize()} `{comment(port.name)}`: {port.type}. */",
            f"{begin}_NAME {c_string(port.name)}",
            f'{begin}_DTYPE "{port.type.dtype}"',
            f"{begin}_RANK {len(shape)}",
            f"{begin}_SHAPE {{{', '.join(map(str, shape or (1,)))}}}",
            f"{begin}_SIZE {port.size}",
            f"{begin}_BYTES {port.bytes}",
            "",
        ]
    constant = "const " if kind == "input" else ""
    fields = [f"    {constant}{C_TYPES[port.type.dtype]} *{port.field};" for port in members]
    return [*lines, "typedef struct {", *fields, f"}} {face.name}_{kind}s;", ""]


def comment(text: str) -> str:
    """`text` so that it does not end a comment."""
    return text.replace("*/", "* /").replace("\n", " ")


def c_string(text: str) -> str:
    """`text` as a C literal; bytes beyond ASCII are written in octal."""
    plain = {ord("\\"): "\\\\", ord('"'): '\\"', ord("?"): "\\?"}
    return '"' + "".join(plain.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text.encode()) + '"'
