"""The machines that code is made for: one table of target facts, read by every kernel template."""

import platform
from dataclasses import dataclass

from kcompile.errors import TargetError


@dataclass(frozen=True)
class Machine:
    """What a kernel template must know of a CPU.

    Attributes:
        name: the name that the user writes and the bundle records.
        triple: LLVM's target triple.
        cpu: LLVM's CPU name, the baseline of the instruction set.
        features: LLVM feature flags beside it (``"+neon"``).
        lanes: float32 elements in one vector register.
        registers: vector registers.
        pointer_bytes: the width of an address.
        zig: the triple that ``zig cc`` takes; its last part pins the oldest C library.
        emulation: the ELF emulation that the linker takes.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    lanes: int
    registers: int
    pointer_bytes: int
    zig: str
    emulation: str


def _x86_64(level: str, lanes: int, registers: int) -> Machine:
    # The levels of the x86-64 psABI: v2 has SSE4.2, v3 AVX2 and FMA, v4 AVX-512 F, BW, CD, DQ and VL.
    return Machine(
        f"x86-64-{level}", "x86_64-linux-gnu", f"x86-64-{level}", (), lanes, registers, 8, "x86_64-linux-gnu.2.17",
        "elf_x86_64",
    )  # fmt: skip


MACHINES = {
    machine.name: machine
    for machine in (
        _x86_64("v2", 4, 16),
        _x86_64("v3", 8, 16),
        _x86_64("v4", 16, 32),
        Machine(
            "aarch64", "aarch64-linux-gnu", "generic", ("+neon",), 4, 32, 8, "aarch64-linux-gnu.2.17", "aarch64linux",
        ),
    )
}  # fmt: skip

# Feature flags, as Linux prints them, that each x86-64 level adds to the one below it.
_LEVEL_FLAGS = {
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}


def machine(name: str) -> Machine:
    """The machine called `name`; ``"host"`` is the one that this process runs on.

    Raises:
        TargetError: there is no such machine.
    """
    if name == "host":
        return host()
    if name not in MACHINES:
        raise TargetError(f"`target` must name one of {', '.join(MACHINES)} or host. Received: {name!r}.")
    return MACHINES[name]


def host() -> Machine:
    """The best machine of the table whose instructions this CPU has.

    Raises:
        TargetError: the table has none.
    """
    architecture = platform.machine().lower()
    if architecture in ("aarch64", "arm64"):
        return MACHINES["aarch64"]
    if architecture in ("x86_64", "amd64"):
        level = x86_level(_cpu_flags())
        if level is not None:
            return MACHINES[level]
    raise TargetError(f"no target of {', '.join(MACHINES)} fits this machine. Received: {platform.machine()!r}.")


def x86_level(flags: frozenset[str]) -> str | None:
    """The highest x86-64 level whose feature flags are all in `flags`; None below v2."""
    best = None
    for level, needed in _LEVEL_FLAGS.items():
        if not needed <= flags:
            break
        best = level
    return best


def _cpu_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def required_flags(machine: Machine) -> frozenset[str]:
    """The feature flags, as Linux prints them, that a CPU must have to run code for `machine`."""
    levels = list(_LEVEL_FLAGS)
    used = levels[: levels.index(machine.name) + 1] if machine.name in levels else []
    return frozenset().union(*(_LEVEL_FLAGS[level] for level in used))
