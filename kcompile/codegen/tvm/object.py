"""Object files of C libraries, made from LLVM's text of a module.

TVM describes its functions for debuggers, shows every one of them to the linker, and adds conversions of half
precision. All of that stands in the text of the optimized module; LLVM makes the object of an edited one, and says how
much stack each function takes. TVM's optimizer knows no small code. Where that is asked for, clang (of ziglang, by the
same LLVM) optimizes the text of a module that TVM left alone.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kcompile.codegen.tvm.build import build_module
from kcompile.codegen.tvm.compiler import load_text
from kcompile.codegen.tvm.scalable_stack import scalable_frames, vector_bits
from kcompile.codegen.tvm.targets import Machine
from kcompile.errors import TargetError

_FUNCTION = re.compile(r"^define .*?^}\n", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"@([\w.$]+)\(")
_USED = re.compile(r"@([\w.$]+)")
_CONVERSIONS = ("__truncsfhf2", "__extendhfsf2")
_DROPPED = re.compile(r",? !dbg !\d+|^ *#dbg_.*\n|^!llvm\.dbg\.cu = .*\n|^@llvm\.global_ctors = .*\n", re.MULTILINE)
_ATTRIBUTES = re.compile(r"^(attributes #\d+ = \{)", re.MULTILINE)
_FRAME = re.compile(
    r"^warning: .*stack frame size \((\d+)\) exceeds limit \(0\) in (?:function )?'([\w.$]+)'.*\n", re.MULTILINE
)
# Bytes that a function takes beside its frame where LLVM moved code that repeats itself into a function.
_OUTLINED = 16
# Bytes below the stack pointer that the last function of a chain may use: System V ABI for x86-64, section 3.2.2.
_RED_ZONE = 128
# Bytes that calls align the stack to (AAPCS32 6.2.1.2), and those that TVM aligns arrays on it to, at least.
_STACK, _STACK_OF_ARM = 16, 8


@dataclass(frozen=True)
class Object:
    """An object file, and the most stack in bytes that its exported function takes, without functions of others."""

    code: bytes
    stack: int


def library_object(functions: Mapping[str, Any], machine: Machine, exported: str) -> Object:
    """An object file of `functions`, as `compile_object` takes them, of which only `exported` is to be called.

    Raises:
        TargetError: LLVM makes no code for the machine.
    """
    small = machine.compact and bool(machine.zig) and importlib.util.find_spec("ziglang") is not None
    module = build_module(functions, machine, 0 if small else 1 if machine.compact else None)
    text = _edited(str(module.inspect_source("ll")), exported, machine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.ll").write_text(text)
        said = _clang(folder, machine) if small else _llvm(folder)
        frames = {name: int(size) for size, name in _FRAME.findall(said)}
        for function, size in _scalable(folder, machine, small).items():
            frames[function] = frames.get(function, 0) + size
        return Object((folder / "model.o").read_bytes(), _stack(text, frames, machine, exported))


def _llvm(folder: Path) -> str:
    """Makes model.o of the optimized model.ll; what LLVM says meanwhile."""
    with _diagnostics() as said:
        load_text(str(folder / "model.ll")).write_to_file(str(folder / "model.o"), "o")
    return "".join(said)


def _scalable(folder: Path, machine: Machine, small: bool) -> dict[str, int]:
    """By function, what its frame takes for vectors whose length the machine decides."""
    bits = vector_bits(machine)
    if not bits:
        return {}
    if small:
        _clang(folder, machine, ("-S", "model.s"))
    else:
        with _diagnostics():  # which the object gave already
            load_text(str(folder / "model.ll")).write_to_file(str(folder / "model.s"), "s")
    return scalable_frames((folder / "model.s").read_text(), bits)


def _clang(folder: Path, machine: Machine, makes: tuple[str, str] = ("-c", "model.o")) -> str:
    """Makes model.o, or what else is asked for, of model.ll, as small as can be; what clang says meanwhile."""
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", machine.zig, "-Oz", "-g0", "-fno-sanitize=all"]
    if "thumb" in machine.triple:
        compiler.append(f"-mcpu={machine.cpu.replace('-', '_')}")
    flags = ["-ffp-contract=fast", "-fPIC" if machine.emulation else "-fno-pic", "-Wno-override-module"]
    done = subprocess.run(
        [*compiler, *flags, makes[0], "model.ll", "-o", makes[1]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TargetError(f"clang makes no code for {machine.name}: {done.stderr.strip()[-1000:]}")
    return done.stderr


def _edited(text: str, exported: str, machine: Machine) -> str:
    """The text without debug information and without functions that `exported` does not need."""
    text = _DROPPED.sub("", text)
    functions = {_name(found[0]): found[0] for found in _FUNCTION.finditer(text)}
    needed = _reached(functions, exported)
    if any("half" in functions[name] for name in needed):
        needed |= set(_CONVERSIONS) & set(functions)

    def function(found: re.Match[str]) -> str:
        name = _name(found[0])
        if name not in needed:
            return ""
        linkage = "define" if name == exported else "define internal"
        return found[0] if name in _CONVERSIONS else found[0].replace("define dllexport", linkage, 1)

    return _ATTRIBUTES.sub(rf"\1 {_asked(machine)}", _FUNCTION.sub(function, text))


def _asked(machine: Machine) -> str:
    """Attributes of every function."""
    asked = '"warn-stack-size"="0"'
    if not machine.compact:
        return asked
    # Features of a function's own keep clang from adding those of its idea of the machine.
    feature = "+sse2" if machine.architecture == "x86_64" else "+thumb-mode" if "thumb" in machine.triple else ""
    features = f'"target-features"="{feature}" ' if feature and not machine.features else ""
    # The smallest code divides by calling others, where the machine has no division.
    size = "optsize" if machine.architecture.startswith("armv7") else "minsize optsize"
    return f"{size} noinline {features}{asked}"


def _name(function: str) -> str:
    found = _NAME.search(function)
    assert found
    return found[1]


def _reached(functions: Mapping[str, str], start: str) -> set[str]:
    """The functions that `start` calls, and those that these call."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            waiting += _USED.findall(functions[name])
    return found


def _stack(text: str, frames: Mapping[str, int], machine: Machine, start: str) -> int:
    """The frames of the longest chain of calls, each with what the call and the alignment of the frame take."""
    functions = {_name(found[0]): found[0] for found in _FUNCTION.finditer(text)}
    wide = machine.architecture == "x86_64"
    x86 = wide or re.fullmatch(r"i[3-6]86", machine.architecture) is not None
    # A call of x86 pushes an address; a frame of arrays that are aligned more than the stack is moved to a multiple.
    aligned = _STACK_OF_ARM if machine.architecture.startswith(("arm", "thumb")) else _STACK
    beside = machine.pointer_bytes * x86 + max(4 * machine.lanes, 16) - aligned + _OUTLINED * machine.compact

    def depth(name: str, above: Collection[str]) -> int:
        called = {callee for callee in _USED.findall(functions[name]) if callee in functions} - {name, *above}
        deepest = max((depth(callee, {*above, name}) for callee in called), default=0)
        return frames.get(name, 0) + beside + deepest

    return depth(start, ()) + _RED_ZONE * wide


@contextmanager
def _diagnostics() -> Generator[list[str]]:
    """What LLVM prints of itself meanwhile, at the end; whatever else is printed goes where it would have gone."""
    said: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield said
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                said.append(file.read().decode(errors="replace"))
        os.write(2, _FRAME.sub("", said[0]).encode())
    finally:
        os.close(kept)
