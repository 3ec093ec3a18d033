"""The table of lowerings is complete."""

from kcompile.codegen.tvm.rules import TVM


def test_every_op_has_a_lowering_or_a_reason():
    assert [cls.op_name for cls in TVM.missing()] == []
