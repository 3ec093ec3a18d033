"""Every op on ONNX Runtime means what its kernel means."""

import numpy as np
import pytest

from kcompile.codegen.onnx import ONNX
from kcompile.ir import ops
from tests.codegen.onnx.cases import FAMILIES, Case, graph_of
from tests.codegen.onnx.harness import check, draw

_SYMBOLS = {"T": 5, "M": 3, "Q": 4, "K": 6, "H": 5, "W": 7}


def test_every_op_has_a_lowering_or_a_reason_not_to() -> None:
    assert not list(ONNX.missing())


CASES = {f"{family.__name__}-{i}-{case[0].op_name}": case for family in FAMILIES for i, case in enumerate(family())}


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
def test_an_op_agrees_with_its_kernel(case: Case, rng: np.random.Generator) -> None:
    graph = graph_of(case)
    # onnx's own evaluator has no grouped ConvTranspose.
    is_grouped = isinstance(case[0], ops.ConvTranspose) and case[0].groups > 1
    for batch in (4, 1):
        inputs = {name: draw(t, rng, **_SYMBOLS, N=batch) for name, t in graph.input_types.items()}
        check(graph, inputs, reference=not is_grouped)


def test_every_lowering_has_a_case() -> None:
    tested = {type(op) for op, _ in CASES.values()}
    tested_elsewhere = {ops.Lstm, ops.Gru, ops.Scan, ops.SimpleRnn, *ops.TEXT}
    assert set(ONNX.lowerings) - tested - tested_elsewhere == {ops.Constant}
