"""Passes on small graphs, before and after, as text.

A file begins with ``// pass: name``, then the graph before, a line ``// becomes`` and the graph after.
"""

from pathlib import Path

import pytest

from kcompile.ir.parse import parse
from kcompile.ir.passes.pipeline import explain
from kcompile.ir.text import to_text
from tests.ir.test_passes import PASSES

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.kir"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pass_makes_the_golden_graph(path: Path) -> None:
    before, after = path.read_text().split("// becomes\n")
    name = before.split("\n")[0].removeprefix("// pass: ")
    assert to_text(PASSES[name](parse(before))) == after.lstrip("\n")


def test_every_pass_has_a_golden_graph() -> None:
    names = {path.read_text().split("\n")[0].removeprefix("// pass: ") for path in FILES}
    assert names == set(PASSES)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("batch_norm_kept", "the conv before it has other uses"),
        ("shift_kept", "the padding puts zeros beside the shifted input"),
        ("pad_kept", "the padded numbers may be negative, and the zeros beside them would win"),
        ("fuse_residual", "the result of the `relu` at its end has 2 uses"),
    ],
)
def test_what_stays_as_it_is_is_explained(path: str, reason: str) -> None:
    graph = parse((GOLDEN / f"{path}.kir").read_text().split("// becomes\n")[0])
    assert reason in [skip.reason for skip in explain(graph)]
