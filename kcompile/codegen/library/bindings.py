"""The C interface for other languages: a C++ class that owns the workspace, and declarations of Rust."""

from collections.abc import Iterable, Sequence

from kcompile.codegen.library.interface import C_TYPES, Interface, Port, comment

_RUST_TYPES = {
    "bool": "u8",
    "float16": "u16",
    "float32": "f32",
    "float64": "f64",
    **{f"{sign}int{bits}": f"{rust}{bits}" for sign, rust in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)},
}
# Words of Rust that are none of C and C++, and so may be names of fields.
_RUST_TEXT = """
abstract as async await become box crate dyn final fn impl in let loop macro match mod move mut override priv pub ref
self Self super trait type unsafe unsized use where yield
"""
_RUST_WORDS = frozenset(_RUST_TEXT.split())


def cpp(face: Interface) -> str:
    """``<model>.hpp``: a class that holds the workspace, and the state of a step, where it lies itself."""
    weights = "weights_, " if face.external else ""
    parts = [
        f"/* {face.name} for C++11 and later: an object holds the memory that a run needs, and allocates none.",
        "   It is as large as the workspace, so it may have to be static. One thread may use an object at a time. */",
        f"#ifndef {face.macro}_HPP",
        f"#define {face.macro}_HPP",
        "",
        "#include <stddef.h>",
        "",
        f'#include "{face.name}.h"',
        "",
        f"namespace {face.name}_cpp {{",
        "",
        "class Model {",
        "public:",
        *_constructors(face),
        "    Model(const Model &) = delete;",
        "    Model &operator=(const Model &) = delete;",
        "",
        *_sizes(face.inputs, "input"),
        *_sizes(face.outputs, "output"),
        "",
        "    /* Compute the outputs; returns 0. */",
        *_method("run", face, f"{weights}workspace_"),
    ]
    if face.step:
        parts += [
            "",
            "    /* Take one element of the sequence; the outputs are those of a run whose sequence ends here. */",
            *_method("step", face, f"&state_, {weights}workspace_"),
            "",
            "    /* Begin a new sequence. */",
            f"    void reset() noexcept {{ state_ = {face.name}_state(); }}",
        ]
    members = ["    const void *weights_;"] if face.external else []
    members += [f"    {face.name}_state state_ = {face.name}_state();"] if face.step else []
    size = max(face.workspace, face.step.workspace if face.step else 0)
    members += [f"    alignas({face.alignment}) unsigned char workspace_[{size}];"]
    return "\n".join([*parts, "", "private:", *members, "};", "", "}", "", "#endif", ""])


def _constructors(face: Interface) -> list[str]:
    if not face.external:
        return ["    Model() = default;"]
    return [
        "    /* `weights` is where weights.bin has been loaded or mapped, at a multiple of 64; it must stay there. */",
        "    explicit Model(const void *weights) noexcept : weights_(weights) {}",
    ]


def _sizes(ports: Iterable[Port], kind: str) -> list[str]:
    return [f"    static constexpr size_t {kind}_{port.field}_size = {port.size};" for port in ports]


def _method(verb: str, face: Interface, rest: str) -> list[str]:
    """A function that takes an address for every input and output."""
    takes = [f"const {C_TYPES[p.type.dtype]} *in_{p.field}" for p in face.inputs]
    takes += [f"{C_TYPES[p.type.dtype]} *out_{p.field}" for p in face.outputs]
    return [
        f"    int {verb}({', '.join(takes)}) noexcept",
        "    {",
        f"        const {face.name}_inputs inputs = {{{', '.join(f'in_{p.field}' for p in face.inputs)}}};",
        f"        {face.name}_outputs outputs = {{{', '.join(f'out_{p.field}' for p in face.outputs)}}};",
        f"        return {face.name}_{verb}(&inputs, &outputs, {rest});",
        "    }",
    ]


def rust(face: Interface) -> str:
    """``<model>.rs``: the declarations of a ``-sys`` crate, which may be a module, too."""
    numbers = {
        "WORKSPACE_BYTES": face.workspace,
        "WORKSPACE_ALIGNMENT": face.alignment,
        "WEIGHTS_BYTES": face.weights,
        **_port_sizes(face.inputs, "INPUT"),
        **_port_sizes(face.outputs, "OUTPUT"),
    }
    void, integer = "core::ffi::c_void", "i32"
    arrays = f"inputs: *const {face.name}_inputs, outputs: *mut {face.name}_outputs"
    weights = f", weights: *const {void}" if face.external else ""
    functions = [f"    pub fn {face.name}_run({arrays}{weights}, workspace: *mut {void}) -> {integer};"]
    types = [*_struct(face, "inputs", face.inputs, "*const "), *_struct(face, "outputs", face.outputs, "*mut ")]
    if face.step:
        numbers |= {"STEP_WORKSPACE_BYTES": face.step.workspace, "STEPS": face.step.length}
        state = f"state: *mut {face.name}_state"
        functions += [f"    pub fn {face.name}_step({arrays}, {state}{weights}, workspace: *mut {void}) -> {integer};"]
        types += _state(face, face.step.states)
    return "\n".join(
        [
            f"// {face.name} for Rust: declarations of what lib{face.name}.a holds; {face.name}.h says what it does.",
            f"// A build script links it: println!(\"cargo:rustc-link-lib=static={face.name}\");",
            "",
            *(f"pub const {face.macro}_{name}: usize = {number};" for name, number in numbers.items()),
            "",
            *types,
            'extern "C" {',
            *functions,
            "}",
            "",
        ]
    )  # fmt: skip


def _port_sizes(ports: Iterable[Port], kind: str) -> dict[str, int]:
    return {f"{kind}_{port.field.upper()}_SIZE": port.size for port in ports}


def _rust_field(field: str) -> str:
    if field in ("self", "Self", "super", "crate"):
        return f"{field}_"
    return f"r#{field}" if field in _RUST_WORDS else field


def _struct(face: Interface, kind: str, ports: Sequence[Port], pointer: str) -> list[str]:
    fields = [
        f"    /// `{comment(p.name)}`: {p.type}\n    pub {_rust_field(p.field)}: {pointer}{_RUST_TYPES[p.type.dtype]},"
        for p in ports
    ]
    return [*_attributes(""), f"pub struct {face.name}_{kind} {{", *fields, "}", ""]


def _state(face: Interface, states: Sequence[Port]) -> list[str]:
    fields = [f"    pub {_rust_field(s.field)}: [{_RUST_TYPES[s.type.dtype]}; {s.size}]," for s in states]
    return [*_attributes(", Clone"), f"pub struct {face.name}_state {{", *fields, "}", ""]


def _attributes(more: str) -> list[str]:
    return ["#[allow(non_camel_case_types, non_snake_case)]", "#[repr(C)]", f"#[derive(Debug{more})]"]
