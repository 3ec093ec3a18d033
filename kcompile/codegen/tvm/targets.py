"""The machines that code is made for: one table of target facts, read by every kernel template.

Code for a `threaded` machine becomes a program that a `Session` runs; code for any other becomes a C library.
"""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

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
        zig: the triple that ``zig cc`` takes, if it has one; its last part pins the oldest C library.
        emulation: the ELF emulation that the linker takes; empty where there are no shared libraries.
        abi: LLVM's name of the calling convention, where the triple does not say it.
        float_abi: ``"hard"`` where floats are passed in registers and the triple alone does not make LLVM do so.
        threaded: whether functions share their work among threads.
        alignment: of the intermediate results, in bytes.
        compiler: a command that compiles and links C for the machine.
        emulator: a command that runs the machine's programs elsewhere.
        compact: whether few bytes of code count for more than speed.
        half_weights: whether weights that float16 can hold are stored as such.
        double: whether the CPU computes in float64.
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
    abi: str = ""
    float_abi: str = ""
    threaded: bool = True
    alignment: int = 64
    compiler: str = ""
    emulator: str = ""
    compact: bool = False
    half_weights: bool = False
    double: bool = True

    @property
    def architecture(self) -> str:
        """The first part of the triple."""
        return self.triple.partition("-")[0]

    @property
    def widens_halves(self) -> bool:
        """Whether instructions turn float16 into float32; else LLVM would call a function for every element."""
        return self.architecture.startswith(("aarch64", "thumb")) or self.cpu in ("x86-64-v3", "x86-64-v4")

    @property
    def system(self) -> str:
        """What the machine runs: ``"linux"``, ``"wasi"``, or ``"none"`` for bare metal."""
        return next((name for name in ("linux", "wasi") if name in self.triple), "none")


def _x86_64(level: str, lanes: int, registers: int) -> Machine:
    # The levels of the x86-64 psABI: v2 has SSE4.2, v3 AVX2 and FMA, v4 AVX-512 F, BW, CD, DQ and VL.
    return Machine(
        f"x86-64-{level}", "x86_64-linux-gnu", f"x86-64-{level}", (), lanes, registers, 8, "x86_64-linux-gnu.2.17",
        "elf_x86_64",
    )  # fmt: skip


def _linux(machine: Machine, name: str, emulator: str = "", cpu: str = "") -> Machine:
    """`machine` for C libraries, under another name."""
    libc = re.sub(r"-gnu(\w*)(\.[\d.]+)?$", r"-musl\1", machine.zig)
    return replace(
        machine, name=name, cpu=cpu or machine.cpu, threaded=False, alignment=max(4 * machine.lanes, 16),
        compiler=f"python3 -m ziglang cc -target {libc} -static", emulator=emulator,
    )  # fmt: skip


def _cortex_m(name: str, triple: str, cpu: str, fpu: str) -> Machine:
    # 32 registers of one float each; some hold what LLVM keeps beside the tile.
    return Machine(
        name, triple, cpu, (), 1, 24, 4, "thumb-freestanding-eabihf", "", float_abi="hard", threaded=False, alignment=8,
        compiler=f"arm-none-eabi-gcc -mcpu={cpu} -mthumb -mfloat-abi=hard -mfpu={fpu}", double="-sp-" not in fpu,
    )  # fmt: skip


_V2, _V3, _V4 = _x86_64("v2", 4, 16), _x86_64("v3", 8, 16), _x86_64("v4", 16, 32)
_AARCH64 = Machine(
    "aarch64", "aarch64-linux-gnu", "generic", ("+neon",), 4, 32, 8, "aarch64-linux-gnu.2.17", "aarch64linux",
)  # fmt: skip
_ARMV7 = Machine(
    "armv7-linux", "armv7a-linux-gnueabihf", "generic", ("+neon",), 4, 16, 4, "arm-linux-gnueabihf",
    "armelf_linux_eabi", float_abi="hard",
)  # fmt: skip
_RISCV64 = Machine(
    "riscv64-linux", "riscv64-linux-gnu", "generic-rv64", ("+m", "+a", "+f", "+d", "+c"), 1, 24, 8,
    "riscv64-linux-gnu", "elf64lriscv", abi="lp64d",
)  # fmt: skip
_RISCV64_V = replace(_RISCV64, features=(*_RISCV64.features, "+v"), lanes=4, registers=28)

MACHINES = {
    machine.name: machine
    for machine in (
        _V2,
        _V3,
        _V4,
        _AARCH64,
        _linux(_V2, "x86-64-v2-linux"),
        _linux(_V3, "x86-64-v3-linux"),
        _linux(_V4, "x86-64-v4-linux"),
        _linux(_AARCH64, "aarch64-linux", "qemu-aarch64"),
        _linux(_AARCH64, "cortex-a53", "qemu-aarch64", "cortex-a53"),
        _linux(_AARCH64, "cortex-a72", "qemu-aarch64", "cortex-a72"),
        _linux(_AARCH64, "neoverse-n1", "qemu-aarch64 -cpu max", "neoverse-n1"),
        _linux(_ARMV7, "armv7-linux", "qemu-arm"),
        _linux(_RISCV64, "riscv64-linux", "qemu-riscv64"),
        _linux(_RISCV64_V, "riscv64-linux-v", "qemu-riscv64 -cpu rv64,v=true,vlen=128"),
        Machine(
            "wasm32", "wasm32-wasi", "generic", ("+simd128",), 4, 16, 4, "wasm32-wasi", "", threaded=False,
            alignment=16, compiler="python3 -m ziglang cc -target wasm32-wasi -msimd128", emulator="wasmtime",
        ),
        _cortex_m("cortex-m4f", "thumbv7em-none-eabihf", "cortex-m4", "fpv4-sp-d16"),
        _cortex_m("cortex-m7", "thumbv7em-none-eabihf", "cortex-m7", "fpv5-d16"),
        _cortex_m("cortex-m33", "thumbv8m.main-none-eabihf", "cortex-m33", "fpv5-sp-d16"),
    )
}  # fmt: skip

# What kernels are written for where C is made: one float at a time, few enough of them for any CPU.
PORTABLE = Machine("c", "", "", (), 1, 16, 8, "", "", threaded=False, alignment=8, compiler="cc")

# Architectures of LLVM that a triple may begin with, and the bytes of their addresses.
_ARCHITECTURES = (
    (re.compile(r"x86_64|aarch64|riscv64|powerpc64le|loongarch64|mips64el"), 8),
    (re.compile(r"i[3-6]86|arm\w*|thumb[\w.]*|riscv32|wasm32|mipsel"), 4),
)
_VECTORS = ("+neon", "+simd128", "+v", "+sse2", "+altivec")

# Feature flags, as Linux prints them, that each x86-64 level adds to the one below it.
_LEVEL_FLAGS = {
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}

# LLVM's flags of instructions that multiply numbers of few bits: the level that they extend, and how Linux prints them.
_NARROW_FLAGS = {
    "+avxvnni": ("x86-64-v3", "avx_vnni"),
    "+avx512vnni": ("x86-64-v4", "avx512_vnni"),
    "+avx512bf16": ("x86-64-v4", "avx512_bf16"),
}


# How Linux prints the features that LLVM may use by itself for x86-64; those of AVX that are not here are named alike.
_LINUX_FLAGS = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "popcnt": "popcnt",
    "cx16": "cx16",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "tbm": "tbm",
    "lzcnt": "abm",
    "movbe": "movbe",
    "adx": "adx",
    "f16c": "f16c",
    "fma": "fma",
    "fma4": "fma4",
    "xop": "xop",
    "gfni": "gfni",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512vp2intersect": "avx512_vp2intersect",
    "avxvnni": "avx_vnni",
    "avxvnniint8": "avx_vnni_int8",
    "avxvnniint16": "avx_vnni_int16",
    "avxifma": "avx_ifma",
    "avxneconvert": "avx_ne_convert",
}


def machine(name: str, cpu: str | None = None, features: Sequence[str] = ()) -> Machine:
    """The machine called `name`: one of the table, an LLVM triple, or ``"host"``, the one that this process runs on.

    Args:
        cpu: LLVM's name of the CPU, instead of the machine's own.
        features: LLVM feature flags to add (``"+dotprod"``).

    Raises:
        TargetError: there is no such machine, or a feature is no flag.
    """
    wrong = [flag for flag in features if not re.fullmatch(r"[+-][\w.-]+", flag)]
    if wrong:
        raise TargetError(f"`features` must be LLVM flags such as +dotprod or -fp64. Received: {', '.join(wrong)}.")
    if name == "host":
        found = host()
    else:
        found = MACHINES.get(name) or _of_triple(name, features)
    return replace(found, cpu=cpu or found.cpu, features=(*found.features, *features))


def _of_triple(triple: str, features: Sequence[str]) -> Machine:
    """A machine of which only LLVM knows more than its name; its vectors have the 128 bits that all kinds have."""
    architecture = triple.partition("-")[0]
    widths = [width for pattern, width in _ARCHITECTURES if pattern.fullmatch(architecture)]
    if not widths or not re.fullmatch(r"[\w.]+(-[\w.]+){1,3}", triple):
        near = get_close_matches(triple, MACHINES, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        law = "`target` must name a machine that `kcompile targets` lists, or be an LLVM triple"
        raise TargetError(f"{law}. Received: {triple!r}.{hint}")
    vectors = architecture in ("x86_64", "aarch64") or any(flag in _VECTORS for flag in features)
    return Machine(
        triple, triple, "", (), 4 if vectors else 1, 16, widths[0], "", "", abi=_riscv_abi(architecture, features),
        float_abi="hard" if triple.endswith("hf") else "", threaded=False, alignment=16, compiler="cc",
    )  # fmt: skip


def _riscv_abi(architecture: str, features: Sequence[str]) -> str:
    if not architecture.startswith("riscv"):
        return ""
    suffix = "d" if "+d" in features else "f" if "+f" in features else ""
    return ("lp64" if architecture == "riscv64" else "ilp32") + suffix


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
    known = ", ".join(machine.name for machine in MACHINES.values() if machine.threaded)
    raise TargetError(f"no target of {known} fits this machine. Received: {platform.machine()!r}.")


# What may be asked for in the place of a CPU's name, for code that runs here.
CPUS = ("native", "baseline", "all")


def host_machines(cpu: str) -> tuple[Machine, ...]:
    """The machines of the table to make code for, the best one first: the host, the least of its kind, or all up to it.

    Args:
        cpu: one of `CPUS`.
    """
    best = host()
    kind = [m for m in MACHINES.values() if m.threaded and m.architecture == best.architecture]
    runnable = kind[: kind.index(best) + 1]
    return {"native": (best,), "baseline": (runnable[0],), "all": tuple(reversed(runnable))}[cpu]


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
    # Kernels are written for the level that the machine's name says, whatever CPU was asked for.
    level = machine.cpu if machine.cpu in levels else machine.name
    used = levels[: levels.index(level) + 1] if level in levels else []
    narrow = frozenset(_NARROW_FLAGS[flag][1] for flag in machine.features if flag in _NARROW_FLAGS)
    plain = machine.cpu == level and all(flag in _NARROW_FLAGS for flag in machine.features)
    others = frozenset[str]() if plain or machine.architecture != "x86_64" else _linux_flags(machine)
    return (narrow | others).union(*(_LEVEL_FLAGS[level] for level in used))


def _linux_flags(machine: Machine) -> frozenset[str]:
    """What LLVM may use by itself of the machine's CPU and features, as Linux prints it."""
    from kcompile.codegen.tvm.build import cpu_features

    names = cpu_features(machine)
    return frozenset(_LINUX_FLAGS.get(name, name) for name in names if name in _LINUX_FLAGS or name.startswith("avx"))


def with_narrow_products(machine: Machine) -> Machine:
    """`machine`, the host, with those of its instructions that multiply numbers of few bits."""
    here = _cpu_flags()
    found = [flag for flag, (level, name) in _NARROW_FLAGS.items() if machine.cpu == level and name in here]
    return replace(machine, features=tuple(dict.fromkeys((*machine.features, *found))))
