"""From functions to machine code: TensorIR to an object file by LLVM, and objects to a shared library.

The library has no timestamps, no paths and no debug information, so equal models give equal bytes. It names no other
library: the few symbols that it needs of the C library (`memcpy`, `memset`, `pthread_create` and the like) are in every
process that loads it, whichever C library that process runs on.
"""

import ctypes
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kcompile.codegen.tvm.compiler import tirx, tvm
from kcompile.codegen.tvm.targets import Machine
from kcompile.errors import MissingExtra, TargetError

C_RUNTIME = Path(__file__).parent.parent / "c_runtime"

_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def compile_object(functions: Mapping[str, Any], machine: Machine) -> bytes:
    """An object file of `functions`, PrimFuncs by name, which become plain C functions of these names.

    Calls between them are ``call`` nodes on `global_variable` of the callee's name. Were they private, LLVM would
    inline the whole model into its one caller, and take several times as long.

    Raises:
        TargetError: LLVM makes no code for the machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.o"
        build_module(functions, machine).write_to_file(str(path), "o")
        return path.read_bytes()


def release_memory() -> None:
    """Give memory that nothing uses any more back to the system, as far as the C library knows how to.

    Nodes of a graph and their values refer to each other, so only the garbage collector lets them go.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def build_module(functions: Mapping[str, Any], machine: Machine, level: int | None = None) -> Any:
    """TVM's module of `functions`, optimized by LLVM to a level from 0 to 3, which is the default.

    Raises:
        TargetError: LLVM makes no code for the machine.
    """
    module = tvm.IRModule(
        {global_variable(name): function.with_attr("global_symbol", name) for name, function in functions.items()}
    )
    try:
        chosen = {} if level is None else {"opt-level": level}
        target = tvm.target.Target(_attributes(machine) | chosen)
        # All that is left to lower is division: kernels are written in what LLVM code generation takes.
        lowered = tirx.transform.LowerIntrin()(tirx.transform.BindTarget(target.with_host(target))(module))
        return tvm.get_global_func("target.build.llvm")(lowered, target)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TargetError(f"LLVM makes no code for {machine.name} ({machine.triple}): {reason}") from error


def cpu_features(machine: Machine) -> frozenset[str]:
    """LLVM's names of what the machine's CPU has, with the features that are added and without those taken away."""
    target = tvm.target.Target(_attributes(machine))
    return frozenset(map(str, tvm.get_global_func("target.llvm_get_cpu_features")(target)))


def check_cpu(machine: Machine) -> None:
    """Make sure that LLVM knows the machine's CPU and features; else it would only say so on the terminal.

    Raises:
        TargetError: it does not.
    """
    if machine.cpu:
        _check_name(machine)
    known = cpu_features(machine) if machine.features else frozenset[str]()
    unknown = [flag for flag in machine.features if flag.startswith("+") and flag[1:] not in known]
    if unknown:
        law = f"`features` must be flags that LLVM knows for {machine.triple}"
        raise TargetError(f"{law}. Received: {', '.join(unknown)}.")


def _check_name(machine: Machine) -> None:
    generic = tvm.target.Target(_attributes(replace(machine, cpu="", features=())))
    known = [str(name) for name in tvm.get_global_func("target.llvm_get_cpu_archlist")(generic)]
    if machine.cpu not in known:
        near = get_close_matches(machine.cpu, known, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise TargetError(f"`cpu` must be one that LLVM knows for {machine.triple}. Received: {machine.cpu!r}.{hint}")


def _attributes(machine: Machine) -> dict[str, object]:
    """TVM's description of the machine."""
    attributes: dict[str, object] = {"kind": "llvm", "mtriple": machine.triple}
    optional = {
        "mcpu": machine.cpu,
        "mattr": list(machine.features),
        "mabi": machine.abi,
        "mfloat-abi": machine.float_abi,
        # Else TVM guesses, and says that it does. Only its own vectorizer, which nothing here uses, reads it.
        # Loops over the taps inside an image run a few times at most; written out for every number, they made kernels
        # several times as long, and slower where their code has to come from memory.
        "cl-opt": ["-unroll-max-upperbound:uint=0"],
        "vector-width": 0 if machine.threaded else 128,
    }
    return attributes | {key: value for key, value in optional.items() if value}


_GLOBALS: dict[str, Any] = {}


def global_variable(name: str) -> Any:
    """TVM's name of a function of the module, one object per name."""
    if name not in _GLOBALS:
        _GLOBALS[name] = tvm.ir.GlobalVar(name)
    return _GLOBALS[name]


def link_library(objects: Sequence[bytes], exports: Sequence[str], machine: Machine) -> bytes:
    """A shared library of object files, and the C runtime for threads, of which only `exports` can be seen.

    Raises:
        MissingExtra: there is neither ziglang nor, for this machine's own architecture, a C compiler.
        TargetError: the compiler failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, content in enumerate(objects):
            (folder / f"model{i}.o").write_bytes(content)
        sources = sorted(path.name for path in C_RUNTIME.glob("*.c")) if machine.threaded else []
        for path in (*C_RUNTIME.glob("*.c"), *C_RUNTIME.glob("*.h")):
            shutil.copyfile(path, folder / path.name)
        (folder / "exports.txt").write_text("{ global: " + "".join(f"{e}; " for e in exports) + "local: *; };\n")
        files = [f"model{i}.o" for i in range(len(objects))]
        _toolchain(machine).link(folder, sources, files)
        return (folder / "model.so").read_bytes()


def link_source(source: str, header: tuple[str, str], machine: Machine) -> bytes:
    """A shared library of one C file, whose header has a name and a text, with everything that it needs.

    Raises:
        MissingExtra, TargetError: as for `link_library`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.c").write_text(source)
        (folder / header[0]).write_text(header[1])
        flags = ["-O2", "-fPIC", "-shared", *_WARNINGS]
        _execute([*_toolchain(machine).compiler, *flags, "model.c", "-o", "model.so", "-lm"], folder)
        return (folder / "model.so").read_bytes()


class _Toolchain:
    """A C compiler and a linker as command prefixes."""

    def __init__(self, compiler: list[str], linker: list[str], linker_flags: list[str]) -> None:
        self.compiler = compiler
        self.linker = linker
        self.linker_flags = linker_flags

    def link(self, folder: Path, sources: Sequence[str], objects: Sequence[str]) -> None:
        """Make model.so in `folder`."""
        flags = ["-O2", "-fPIC", "-ffile-prefix-map=" + str(folder) + "=.", *_WARNINGS]
        for source in sources:
            _execute([*self.compiler, *flags, "-c", source, "-o", f"{source}.o"], folder)
        runtime = [f"{source}.o" for source in sources]
        _execute([*self.linker, *self.linker_flags, "-o", "model.so", *runtime, *objects], folder)


def _toolchain(machine: Machine) -> _Toolchain:
    flags = ["-shared", "--strip-all", "--gc-sections", "--build-id=none", "--version-script=exports.txt"]
    flags += ["-z", "noexecstack", "-z", "now", "-z", "relro"]
    if importlib.util.find_spec("ziglang"):
        zig = [sys.executable, "-m", "ziglang"]
        compiler = [*zig, "cc", "-target", machine.zig, "-fno-sanitize=all"]
        return _Toolchain(compiler, [*zig, "ld.lld"], ["-m", machine.emulation, *flags])
    compiler = _system_compiler(machine)
    passed = [f"-Wl,{flag}" for flag in flags if flag.startswith("--")] + ["-shared", "-nostdlib"]
    return _Toolchain(compiler, compiler, [*passed, "-Wl,-z,noexecstack,-z,now,-z,relro"])


def _system_compiler(machine: Machine) -> list[str]:
    native = machine.architecture == os.uname().machine
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if native and name and shutil.which(name.split()[0]):
            return name.split()
    raise MissingExtra(
        f'target "tvm" needs ziglang to link for {machine.name}, or a C compiler of that machine. '
        'Install it with: pip install "kcompile[tvm]"'
    )


def _execute(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"linking failed: {' '.join(command[:4])} …\n{done.stderr.strip()[-1000:]}")
