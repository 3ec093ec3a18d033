"""Files that real Keras wrote, of every family of layers: the reference and both targets compute what Keras did.

`make.py` beside this wrote them.
"""

from pathlib import Path

import numpy as np
import pytest

import kcompile
from kcompile.ir.evaluate import evaluate

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in HERE.glob("*.npz"))
LEAST = {"half_precision": 5e-3, "spectrograms": 1e-4}
"""Shares of the largest output that results may be off by at least: float16 has 11 bits, and in decibels the logarithm
of what cancels to little shows all of its rounding."""
# What each target is compiled from, so that both formats go the whole way.
TARGETS = {"onnx": ".keras", "tvm": ".h5"}


def recorded(case: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The inputs and outputs of a case, in the model's order."""
    with np.load(HERE / f"{case}.npz") as archive:
        keys = {kind: sorted((k for k in archive.files if k.startswith(kind)), key=_number) for kind in ("in", "out")}
        return [archive[key] for key in keys["in"]], [archive[key] for key in keys["out"]]


def _number(key: str) -> int:
    return int(key.lstrip("inout"))


def assert_agree(case: str, received: list[np.ndarray], expected: list[np.ndarray], share: float) -> None:
    """Equal in shape and dtype, and off by at most `share` of the largest number."""
    share = max(share, LEAST.get(case, 0.0))
    assert len(received) == len(expected)
    for i, (y, reference) in enumerate(zip(received, expected, strict=True)):
        assert (y.shape, y.dtype) == (reference.shape, reference.dtype), i
        largest = np.abs(reference).max(initial=0)
        assert np.isfinite(largest)
        np.testing.assert_allclose(y, reference, rtol=0, atol=share * max(float(largest), 1e-3), err_msg=f"output {i}")


def test_every_case_was_recorded_in_both_formats() -> None:
    assert len(CASES) >= 16
    for suffix in TARGETS.values():
        assert sorted(path.stem for path in HERE.glob(f"*{suffix}")) == CASES


@pytest.mark.parametrize("suffix", TARGETS.values())
@pytest.mark.parametrize("case", CASES)
def test_the_reference_computes_what_keras_did(case: str, suffix: str) -> None:
    inputs, outputs = recorded(case)
    graph = kcompile.load_model(HERE / f"{case}{suffix}").trace()
    results = evaluate(graph, dict(zip(graph.input_types, inputs, strict=True)))
    assert_agree(case, list(results.values()), outputs, 1e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_compiled_files_compute_what_keras_did(case: str, target: str, tmp_path: Path) -> None:
    inputs, outputs = recorded(case)
    artifact = kcompile.compile(HERE / f"{case}{TARGETS[target]}", target, tmp_path / "model.kcb")
    session = kcompile.load(artifact)
    for rows in (len(inputs[0]), 1):
        results = session.run({name: x[:rows] for name, x in zip(session.inputs, inputs, strict=True)})
        assert_agree(case, list(results.values()), [y[:rows] for y in outputs], 1e-4)
