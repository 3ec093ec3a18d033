"""Every op on ONNX Runtime means what its kernel means."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kcompile.codegen.onnx import ONNX
from kcompile.ir.types import TensorType
from tests.codegen.onnx.cases import FAMILIES, Case, graph_of
from tests.codegen.onnx.harness import check, draw

_SYMBOLS = {"N": 4, "T": 5, "M": 3, "Q": 4, "K": 6, "H": 5, "W": 7}


def test_every_op_has_a_lowering_or_a_reason_not_to() -> None:
    assert not list(ONNX.missing())


def _label(case: Case) -> str:
    op, types = case
    return f"{op.op_name}{op.attributes()}({', '.join(str(t) if isinstance(t, TensorType) else 'w' for t in types)})"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_ops_agree_with_their_kernels(family: Callable[[], Iterator[Case]], rng: np.random.Generator) -> None:
    failures: list[str] = []
    for case in family():
        graph = graph_of(case)
        for extents in (_SYMBOLS, {**_SYMBOLS, "N": 1}):
            inputs = {name: draw(type_, rng, **extents) for name, type_ in graph.input_types.items()}
            try:
                check(graph, inputs)
            except Exception as error:
                failures.append(f"{_label(case)}\n    {type(error).__name__}: {str(error)[:600]}")
                break
    assert not failures, f"{len(failures)} cases\n" + "\n".join(failures)
