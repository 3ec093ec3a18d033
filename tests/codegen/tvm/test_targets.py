"""The table of machines."""

import platform
from dataclasses import replace

import pytest

from kcompile.codegen.tvm.build import check_cpu
from kcompile.codegen.tvm.targets import MACHINES, host, machine, required_flags, x86_level
from kcompile.errors import TargetError

V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("flags", "level"),
    [(V4, "x86-64-v4"), (V4 - {"avx512vl"}, "x86-64-v3"), (V3 - {"fma"}, "x86-64-v2"), (V2 - {"ssse3"}, None)],
)
def test_a_level_is_the_highest_whose_every_flag_is_there(flags: frozenset[str], level: str | None):
    assert x86_level(flags) == level


def test_a_level_with_holes_below_does_not_count():
    assert x86_level(V4 - {"avx2"}) == "x86-64-v2"


def test_required_flags_are_those_of_the_levels_below_too():
    assert required_flags(MACHINES["x86-64-v3"]) == V3


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the host is another architecture")
def test_the_host_has_the_flags_of_its_own_machine():
    assert host() == machine("host")
    assert host().name.startswith("x86-64-v")


LAW = "`target` must name a machine that `kcompile targets` lists, or be an LLVM triple"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pdp-11", f"{LAW}. Received: 'pdp-11'."),
        ("cortex-m77", f"{LAW}. Received: 'cortex-m77'. Did you mean cortex-m7 or cortex-m4f or cortex-m33?"),
        ("x86-64-v5", f"{LAW}. Received: 'x86-64-v5'. Did you mean x86-64-v4 or x86-64-v3 or x86-64-v2?"),
    ],
)
def test_an_unknown_machine_lists_those_that_are_near(name: str, text: str):
    with pytest.raises(TargetError) as error:
        machine(name)
    assert str(error.value) == text


def test_a_triple_is_a_machine_with_the_width_of_its_addresses():
    arm, riscv = machine("armv7-none-eabihf", "cortex-a9"), machine("riscv32-unknown-elf", None, ("+m", "+f"))
    assert (arm.triple, arm.cpu, arm.pointer_bytes, arm.float_abi) == ("armv7-none-eabihf", "cortex-a9", 4, "hard")
    assert (riscv.pointer_bytes, riscv.abi, riscv.features, riscv.threaded) == (4, "ilp32f", ("+m", "+f"), False)


def test_a_cpu_and_features_change_a_machine_of_the_table():
    changed = machine("aarch64-linux", "cortex-a76", ("+dotprod",))
    assert (changed.cpu, changed.features) == ("cortex-a76", ("+neon", "+dotprod"))
    assert changed.lanes == MACHINES["aarch64-linux"].lanes


def test_a_feature_without_a_sign_is_refused():
    with pytest.raises(TargetError) as error:
        machine("aarch64-linux", None, ("dotprod",))
    assert str(error.value) == "`features` must be LLVM flags such as +dotprod or -fp64. Received: dotprod."


def test_code_for_a_cpu_by_name_asks_for_what_that_cpu_has_and_for_the_level_of_its_kernels():
    level = MACHINES["x86-64-v3"]
    skylake = required_flags(replace(level, cpu="skylake-avx512"))
    assert required_flags(MACHINES["x86-64-v4"]) <= skylake
    assert not {flag for flag in skylake if "vnni" in flag}
    assert {"avx512_vnni", "avx512_bf16", "gfni"} <= required_flags(replace(level, cpu="znver4"))
    assert required_flags(level) <= required_flags(replace(level, cpu="nehalem"))


def test_an_added_feature_is_asked_for():
    level = MACHINES["x86-64-v3"]
    added = replace(level, features=(*level.features, "+avxvnniint8"))
    assert required_flags(added) - required_flags(level) == {"avx_vnni_int8"}


@pytest.mark.parametrize(
    ("name", "cpu", "features", "text"),
    [
        ("host", "pentium9", (), "`cpu` must be one that LLVM knows for .*Received: 'pentium9'"),
        ("host", None, ("+sse99",), r"`features` must be flags that LLVM knows for .*Received: \+sse99"),
        ("cortex-m7", None, ("+sse2",), r"`features` must be flags that LLVM knows for .*Received: \+sse2"),
    ],
)
def test_a_cpu_or_feature_that_llvm_does_not_know_is_refused(
    name: str, cpu: str | None, features: tuple[str, ...], text: str
):
    with pytest.raises(TargetError, match=text):
        check_cpu(machine(name, cpu, features))
