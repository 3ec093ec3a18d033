"""Machines that are not this one: what builds and runs a bundle's self-test for each target."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kcompile.codegen.library.interface import identifier
from kcompile.codegen.tvm.targets import MACHINES
from kcompile.runtime.bundle import machine_misfit

HERE = Path(__file__).parent

# What each tool comes in, on Debian and Ubuntu.
PACKAGES = {
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "qemu-riscv64": "qemu-user",
    "qemu-system-arm": "qemu-system-arm",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "make": "make",
    "gcc": "gcc",
    "rustc": "rustc",
}


@dataclass(frozen=True)
class Board:
    """A board of QEMU: its name, and where its memories begin."""

    name: str
    flash: int
    ram: int


# Arm's application notes AN386, AN500 and AN505; the last starts in secure state, whose memories begin at 0x1…, 0x3….
BOARDS = {
    "cortex-m4f": Board("mps2-an386", 0x00000000, 0x20000000),
    "cortex-m7": Board("mps2-an500", 0x00000000, 0x20000000),
    "cortex-m33": Board("mps2-an505", 0x10000000, 0x38000000),
}
TARGETS = [name for name, machine in MACHINES.items() if not machine.threaded]


def unpacked(bundle: Path, folder: Path) -> Path:
    """The bundle's files in `folder`."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def require(tool: str) -> None:
    """Fail where a tool is missing: a check that does not run is no check."""
    if not shutil.which(tool):
        raise RuntimeError(f"the edge tests need {tool}. Install it with: apt-get install {PACKAGES.get(tool, tool)}")


def misfit(target: str) -> str:
    """What keeps this machine from running the target's programs, for targets that have no emulator."""
    machine = MACHINES[target]
    if machine.emulator or target in BOARDS:
        return ""
    from kcompile.codegen.backends import describe

    return machine_misfit(describe(machine))


def stack_of(target: str, folder: Path, name: str) -> int:
    """Bytes of stack that a run of an unpacked bundle takes on the machine."""
    manifest = json.loads((folder / "manifest.json").read_text())
    ports = {kind: [identifier(port["name"]) for port in manifest["signature"][kind]] for kind in ("inputs", "outputs")}
    source = (HERE / "stack.c").read_text()
    parts = {
        "MODEL_HEADER": f'"{name}.h"',
        "INPUTS": f"{name}_inputs",
        "OUTPUTS": f"{name}_outputs",
        "SET_INPUTS": "; ".join(f"inputs.{field} = in_{field}" for field in ports["inputs"]),
        "SET_OUTPUTS": "; ".join(f"outputs.{field} = y_{field}" for field in ports["outputs"]),
        "RUN": f"{name}_run",
    }
    defined = "".join(f"#define {key} {text}\n" for key, text in parts.items())
    (folder / "stack.c").write_text(defined + source)
    makefile = folder / "Makefile"
    text = makefile.read_text().replace("-Wpedantic", "-Wno-unused-function").replace("main.c", "stack.c")
    (folder / "Makefile").write_text(text.replace("-std=c99", "-std=gnu99"))
    return int(check(target, folder).split()[-1])


def check(target: str, folder: Path, *arguments: str) -> str:
    """What ``make check`` prints in an unpacked bundle.

    Raises:
        AssertionError: it fails.
    """
    require("make")
    given = [*_arguments(target, folder), *arguments]
    tools = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "--no-print-directory", "check", *given],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "main.c:" not in done.stderr, done.stderr
    return done.stdout


def _arguments(target: str, folder: Path) -> list[str]:
    """What the Makefile does not know: the board, and wasmtime's Python package for its command."""
    board = BOARDS.get(target)
    if board:
        require("arm-none-eabi-gcc")
        require("qemu-system-arm")
        script = (HERE / "board" / "board.ld.in").read_text()
        (folder / "board.ld").write_text(script.replace("@FLASH@", hex(board.flash)).replace("@RAM@", hex(board.ram)))
        run = f"qemu-system-arm -M {board.name} -nographic -semihosting-config enable=on,target=native -kernel"
        sources = f"{HERE / 'board' / 'startup.c'} -T board.ld --specs=rdimon.specs -nostartfiles"
        return [f"BOARD={sources}", f"RUN={run}"]
    emulator = MACHINES[target].emulator.partition(" ")[0]
    if emulator == "wasmtime":
        return [f"RUN={sys.executable} {HERE / 'run_wasm.py'}"]
    if emulator:
        require(emulator)
    return []
