"""Extents that must be equal where tensors meet: every engine asks for it before it computes."""

import ctypes

import numpy as np
import onnxruntime
import pytest

from kcompile.codegen.backends import backend
from kcompile.codegen.shapes import fix_shapes
from kcompile.errors import InputError
from kcompile.frontend import Functional, Input, layers
from kcompile.ir.graph import Graph
from kcompile.runtime.native import NativeSession
from kcompile.runtime.reference import ReferenceSession
from kcompile.runtime.session import Session
from kcompile.runtime.signature import Signature


def meeting() -> Graph:
    """A network that needs an even extent H and one W of 6."""
    x = Input((None, None, 2), name="x")
    up = layers.UpSampling2D()(layers.MaxPooling2D(name="pool")(x))
    both = layers.Concatenate(name="join")([layers.Conv2D(2, 3, padding="same", kernel_initializer="ones")(up), x])
    y = Input((1, 6, 4), name="y")
    return Functional([x, y], layers.Add(name="sum")([both, y])).trace()


@pytest.fixture(scope="module", params=["reference", "onnx", "tvm"])
def session(request: pytest.FixtureRequest) -> Session:
    graph = meeting()
    return ReferenceSession(graph) if request.param == "reference" else backend(request.param).session(graph)


def feeds(rng: np.random.Generator, height: int, width: int) -> dict[str, np.ndarray]:
    shapes = {"x": (2, height, width, 2), "y": (2, 1, 6, 4)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_every_engine_computes_where_extents_are_equal(session: Session, rng: np.random.Generator) -> None:
    given = feeds(rng, 8, 6)
    expected = ReferenceSession(meeting()).run(given)["sum"]
    np.testing.assert_allclose(session.run(given)["sum"], expected, atol=1e-4)


def test_every_engine_refuses_extents_that_differ(session: Session, rng: np.random.Generator) -> None:
    with pytest.raises(InputError) as refusal:
        session.run(feeds(rng, 7, 8))
    assert str(refusal.value) == (
        "extents must be such that 2*(H//2) is H in layer `join`\n"
        "extents must be such that W is 6 in layer `sum`. Received: H=7, W=8. Make H 6 or 8. Make W 6."
    )


def test_laws_travel_with_the_artifact(session: Session) -> None:
    assert len(session.signature.equalities) == 3
    assert Signature.from_json(session.signature.to_json()).equalities == session.signature.equalities


def test_the_c_function_refuses_extents_that_differ() -> None:
    session = backend("tvm").session(meeting())
    assert isinstance(session, NativeSession)
    sizes = {
        extents: session._library.kc_arena_bytes((ctypes.c_int64 * 3)(*extents), 1)
        for extents in [(7, 1, 6), (8, 1, 6)]
    }
    assert sizes[7, 1, 6] == -1 < sizes[8, 1, 6]


def test_an_onnx_file_fails_on_extents_that_differ_wherever_it_runs(rng: np.random.Generator) -> None:
    graph = meeting()
    content = backend("onnx").compile(graph, ReferenceSession(graph).signature, {}).members["model.onnx"]
    bare = onnxruntime.InferenceSession(bytes(content), providers=["CPUExecutionProvider"])
    (y,) = bare.run(None, feeds(rng, 8, 6))
    assert isinstance(y, np.ndarray)
    assert y.shape == (2, 8, 6, 4)
    with pytest.raises(Exception, match="Concat"):
        bare.run(None, feeds(rng, 7, 6))


def test_extents_that_are_fixed_must_be_equal_too() -> None:
    with pytest.raises(InputError, match=r"2\*\(H//2\) is H in layer `join`. Received: H=7. Make H 6 or 8\."):
        fix_shapes(meeting(), {"x": (None, 7, None, 2)})
    assert fix_shapes(meeting(), {"x": (None, 8, 6, 2)}).outputs[0].type.shape == ("N", 8, 6, 4)
