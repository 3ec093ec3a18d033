"""The table of machines."""

import platform

import pytest

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


def test_an_unknown_machine_lists_those_known():
    with pytest.raises(TargetError) as error:
        machine("pdp-11")
    text = "`target` must name one of x86-64-v2, x86-64-v3, x86-64-v4, aarch64 or host. Received: 'pdp-11'."
    assert str(error.value) == text
