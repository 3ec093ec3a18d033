"""The part of RISC-V's stack frames that depends on the length of vectors, which LLVM's count of frames leaves out.

It is read from the assembly: a function that spills vectors begins with a few instructions that compute a multiple of
the length and take it off the stack pointer.
"""

import re
from collections.abc import Callable, Mapping

from kcompile.codegen.tvm.targets import Machine
from kcompile.errors import TargetError

# The length in bits that the extension V guarantees (RISC-V "V" Vector Extension, version 1.0, section 18.3).
_GUARANTEED = 128
_LABEL = re.compile(r"^([\w.$]+):")
_SMALLER = re.compile(r"\tsub\tsp, sp, (\w+)")
_INSTRUCTION = re.compile(r"\t(\w+)\t([^#]+)")

_RULES: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "slli": lambda x, y: x << y,
    "sh1add": lambda x, y: 2 * x + y,
    "sh2add": lambda x, y: 4 * x + y,
    "sh3add": lambda x, y: 8 * x + y,
}


def vector_bits(machine: Machine) -> int:
    """The length of vectors that a stack is counted for; 0 where frames do not depend on it."""
    if "+v" not in machine.features:
        return 0
    asked = [int(found[1]) for flag in machine.features if (found := re.fullmatch(r"\+zvl(\d+)b", flag))]
    return max([_GUARANTEED, *asked])


def scalable_frames(assembly: str, bits: int) -> dict[str, int]:
    """By function, the bytes that it takes off the stack pointer for vectors of `bits`.

    Raises:
        TargetError: they are computed in a way that is not known here.
    """
    frames: dict[str, int] = {}
    name, registers = "", dict[str, int]()
    for line in assembly.splitlines():
        if label := _LABEL.match(line):
            name = label[1] if not label[1].startswith(".") else name
            registers = {}
        elif taken := _SMALLER.match(line):
            if taken[1] not in registers:
                raise TargetError(f"the stack of `{name}` depends on the length of vectors in an unknown way: {line}")
            frames[name] = frames.get(name, 0) + registers[taken[1]]
        elif instruction := _INSTRUCTION.match(line):
            _follow(instruction[1], [part.strip() for part in instruction[2].split(",")], registers, bits // 8)
    return frames


def _follow(kind: str, operands: list[str], registers: dict[str, int], length: int) -> None:
    """Note what an instruction leaves in its register, where that is known."""
    target, *read = operands
    values = [registers[part] if part in registers else int(part) if part.isdigit() else None for part in read]
    registers.pop(target, None)
    if kind == "csrr" and read == ["vlenb"]:
        registers[target] = length
    elif kind in ("li", "mv") and values[0] is not None:
        registers[target] = values[0]
    elif kind in _RULES and len(values) == 2 and values[0] is not None and values[1] is not None:
        registers[target] = _RULES[kind](values[0], values[1])
