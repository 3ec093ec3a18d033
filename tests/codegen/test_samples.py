"""Drawn inputs suit what the inputs are used for."""

import numpy as np
import pytest

from kcompile.codegen.samples import Role, draw_for, draw_inputs, input_roles, sample_extents
from kcompile.errors import InputError
from kcompile.ir import ops
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from kcompile.runtime.reference import graph_signature


def test_indices_stay_in_the_smallest_table_that_they_select_from() -> None:
    b = Builder("embeddings")
    ids = b.input("ids", TensorType("float32", ("N", 50)))
    whole = b(ops.Cast("int32"), ids)
    tables = [b.constant(np.zeros((rows, 2), np.float32)) for rows in (9, 7, 30)]
    y = [b(ops.Gather(), table, whole) for table in tables]
    graph = b.build(y)
    assert input_roles(graph) == {"ids": Role(limit=7)}
    drawn = draw_inputs(graph)["ids"]
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == set(range(7))


def test_a_masking_value_ends_some_rows() -> None:
    b = Builder("masking")
    x = b.input("x", TensorType("float32", ("N", "T", 3)))
    seen = b(ops.Compare("!="), x, b.constant(np.asarray(-7, np.float32)))
    graph = b.build({"seen": seen})
    drawn = draw_inputs(graph, seed=3)["x"]
    marked = (drawn == -7).all(axis=2)
    assert marked.any()
    assert not marked[:, 0].any()
    assert (np.diff(marked.astype(int), axis=1) >= 0).all()


def test_a_mask_is_true_for_the_first_step_of_every_row() -> None:
    b = Builder("mask")
    mask = b.input("mask", TensorType("bool", ("N", 20)))
    drawn = draw_inputs(b.build({"y": b(ops.Not(), mask)}))["mask"]
    assert drawn[:, 0].all()
    assert not drawn.all()


def test_open_extents_are_legal_for_the_windows() -> None:
    b = Builder("windows")
    x = b.input("x", TensorType("float32", ("N", "T", 1)))
    wide = b(ops.Conv((3,)), x, b.constant(np.ones((40, 1, 1), np.float32)))
    graph = b.build({"y": b(ops.MaxPool((4,), (4,)), wide)})
    extents = sample_extents(graph)
    assert extents["N"] == 2
    # Four windows of 40 at distance 3 reach over 49 elements.
    assert 49 < int(extents["T"]) < 70
    assert draw_inputs(graph)["x"].shape == (2, extents["T"], 1)


def test_classes_that_integers_are_compared_with_occur() -> None:
    b = Builder("one_hot")
    ids = b.input("ids", TensorType("int32", ("N", 40)))
    wide = b(ops.Reshape(("N", 40, 1)), ids)
    graph = b.build({"y": b(ops.Compare("=="), wide, b.constant(np.arange(5, dtype=np.int32)))})
    assert set(np.unique(draw_inputs(graph)["ids"])) == set(range(5))


def test_the_same_seed_draws_the_same_numbers() -> None:
    b = Builder("plain")
    x = b.input("x", TensorType("float32", ("N", 4)))
    graph = b.build({"y": b(ops.Relu(), x)})
    first, again, other = (draw_inputs(graph, seed)["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_signature_is_enough_to_draw_for() -> None:
    b = Builder("plain")
    x = b.input("x", TensorType("float32", ("N", "T", 4)))
    ids = b.input("ids", TensorType("int32", ("N", 3)))
    signature = graph_signature(b.build({"y": b(ops.Relu(), x), "z": b(ops.Neg(), ids)}))
    drawn = draw_for(signature, 8, {"x": (None, 11, None)})
    assert drawn["x"].shape == (8, 11, 4)
    assert drawn["ids"].shape == (8, 3)
    assert set(np.unique(drawn["ids"])) <= {0, 1}
    with pytest.raises(InputError) as caught:
        draw_for(signature, 8, {"x": (None, 11), "y": (None,)})
    assert str(caught.value).splitlines() == [
        "the model's inputs are `x`, `ids`. Received: a shape of `y`.",
        "input `x` must have shape (N, T, 4). Received: 2 extents.",
    ]
