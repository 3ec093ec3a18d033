"""What frames take for vectors whose length the machine decides."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

import kcompile
from kcompile.codegen.tvm.scalable_stack import scalable_frames, vector_bits
from kcompile.codegen.tvm.targets import MACHINES, machine
from kcompile.errors import TargetError
from tests.edge.models import build

ASSEMBLY = """\
first:
\taddi\tsp, sp, -2048
\tcsrr\ta5, vlenb
\tli\ta6, 18
\tmul\ta5, a5, a6
\tsub\tsp, sp, a5
.LBB0_1:
\tcsrr\ta0, vlenb
\tslli\ta0, a0, 3
\tadd\ta0, a0, sp
second:
\taddi\tsp, sp, -64
third:
\tcsrr\ta1, vlenb
\tslli\ta2, a1, 2
\tsh1add\ta1, a1, a2
\tsub\tsp, sp, a1
"""


@pytest.mark.parametrize("bits", [128, 256])
def test_multiples_of_the_length_are_followed_through_registers(bits: int):
    assert scalable_frames(ASSEMBLY, bits) == {"first": 18 * bits // 8, "third": 6 * bits // 8}


def test_an_unknown_computation_is_an_error():
    with pytest.raises(TargetError, match=r"the stack of `f` depends on the length of vectors in an unknown way"):
        scalable_frames("f:\n\tcsrr\ta0, vlenb\n\txori\ta0, a0, 3\n\tsub\tsp, sp, a0\n", 128)


def test_the_length_is_the_one_asked_for():
    assert vector_bits(MACHINES["riscv64-linux"]) == 0
    assert vector_bits(MACHINES["riscv64-linux-v"]) == 128
    assert vector_bits(machine("riscv64-linux-v", features=("+zvl256b",))) == 256


def test_a_library_for_vectors_is_made_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    made = kcompile.compile(build("gru"), "tvm:riscv64-linux-v", tmp_path / "m.kcb")
    assert json.loads(ZipFile(made.path).read("manifest.json"))["memory"]["stack_vector_bits"] == 128
    assert capfd.readouterr().err == ""
