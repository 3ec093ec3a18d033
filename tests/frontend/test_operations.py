"""Functions of keras.ops, traced alone, against NumPy's of the same name or loops."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError
from kcompile.frontend.operations import OPERATIONS
from kcompile.frontend.tracing import Trace, flatten
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.types import type_of


def computed(name: str, *args: Any, **options: Any) -> Any:
    """The results of an operation on arrays of floats, integers or bools; other arguments go as they are."""
    b = Builder()
    feed = {f"x{i}": arg for i, arg in enumerate(args) if isinstance(arg, np.ndarray)}
    values = [b.input(f"x{i}", type_of(arg)) if f"x{i}" in feed else arg for i, arg in enumerate(args)]
    definition: Any = OPERATIONS[name]
    rule = getattr(definition, "rule", definition)
    found = rule(Trace(b, lambda weight, path: b.constant(weight.value, path)), *values, **options)
    arrays = list(evaluate(b.build(list(flatten(found))), feed).values())
    return arrays if isinstance(found, list) else arrays[0]


X = np.random.default_rng(11).normal(size=(3, 4, 6)).astype(np.float32)
Y = X[:, ::-1].copy()
POSITIVE = np.abs(X) + 1
PARTS = np.clip(X, -0.95, 0.95)
ODD = np.where(X > 1, np.float32(np.nan), np.where(X < -1, np.float32(-np.inf), X))
WHOLE = np.floor(np.abs(X) * 3).astype(np.int32)
Case = tuple[str, Sequence[Any], dict[str, Any], Callable[..., Any]]

CASES: list[Case] = [
    *(
        (name, [x], {}, getattr(np, name.lower()))
        for x, names in (
            (X, "Arctan Arcsinh Cbrt Cosh Deg2rad Exp2 Expm1 Fabs Rad2deg Sinc Sinh Tan Signbit Trunc"),
            (POSITIVE, "Log10 Log2 Log1p Arccosh"),
            (PARTS, "Arccos Arcsin Arctanh"),
            (ODD, "Isnan Isinf Isfinite Isneginf Isposinf"),
        )
        for name in names.split()
    ),
    *(
        (name, [X, Y], {}, getattr(np, name.lower()))
        for name in ["Arctan2", "Hypot", "Logaddexp", "Logaddexp2", "Fmod"]
    ),
    *((name, [ODD, Y], {}, getattr(np, name.lower())) for name in ("Fmax", "Fmin")),
    ("Heaviside", [np.round(X), Y], {}, np.heaviside),
    ("NanToNum", [ODD], {"nan": 1.0, "neginf": -7.0}, lambda x: np.nan_to_num(x, nan=1.0, neginf=-7.0)),
    ("Ldexp", [X, WHOLE], {}, np.ldexp),
    ("Logsumexp", [X * 90], {"axis": 1}, lambda x: np.logaddexp.reduce(x, 1)),
    ("Average", [X, POSITIVE], {"axis": 1}, lambda x, w: np.average(x, 1, w)),
    ("Cumprod", [X], {"axis": 1}, lambda x: np.cumprod(x, 1)),
    ("Norm", [X], {"ord": 3, "axis": 1}, lambda x: np.linalg.norm(x, 3, 1)),
    ("Norm", [X], {"ord": np.inf, "axis": [1, 2]}, lambda x: np.linalg.norm(x, np.inf, (1, 2))),
    ("Median", [X], {"axis": [1, 2], "keepdims": True}, lambda x: np.median(x, (1, 2), keepdims=True)),
    ("Quantile", [X, [0.3, 0.8]], {"axis": 2}, lambda x, q: np.quantile(x, q, 2)),
    ("Quantile", [X, 0.3], {"axis": 2, "method": "midpoint"}, lambda x, q: np.quantile(x, q, 2, method="midpoint")),
    *(
        (name, [ODD], {"axis": 2}, lambda x, name=name: getattr(np, name.lower())(x, 2))
        for name in ["Nansum", "Nanprod", "Nanmax", "Nanmin"]
    ),
    *(
        (
            name,
            [np.where(X > 1, np.float32(np.nan), X)],
            {"axis": 1},
            lambda x, name=name: getattr(np, name.lower())(x, 1),
        )
        for name in ["Nanmean", "Nanvar", "Nanstd", "Nanargmax", "Nanargmin", "Nancumsum"]
    ),
    ("Corrcoef", [X[0]], {}, np.corrcoef),
    ("Trapezoid", [X], {"axis": 1, "dx": 0.5}, lambda x: np.trapezoid(x, axis=1, dx=0.5)),
    ("Moveaxis", [X], {"source": [0, 2], "destination": [2, 0]}, lambda x: np.moveaxis(x, [0, 2], [2, 0])),
    *(("Rot90", [X], {"k": k, "axes": (1, 2)}, lambda x, k=k: np.rot90(x, k, (1, 2))) for k in (-1, 1, 2, 4)),
    ("Repeat", [X], {"repeats": [1, 0, 3, 2], "axis": 1}, lambda x: np.repeat(x, [1, 0, 3, 2], 1)),
    ("Roll", [X], {"shift": 5}, lambda x: np.roll(x, 5)),
    ("Roll", [X], {"shift": (-1, 7), "axis": (1, 2)}, lambda x: np.roll(x, (-1, 7), (1, 2))),
    ("Diag", [X[0, 0]], {"k": 2}, lambda x: np.diag(x, 2)),
    ("Diag", [X[0, 0]], {"k": -1}, lambda x: np.diag(x, -1)),
    ("Diagonal", [X], {"offset": -1, "axis1": 1, "axis2": 0}, lambda x: np.diagonal(x, -1, 1, 0)),
    ("Tril", [X], {"k": -1}, lambda x: np.tril(x, -1)),
    ("Argsort", [WHOLE], {"axis": 1}, lambda x: np.argsort(x, 1, kind="stable")),
    ("SearchSorted", [np.sort(X[0, 0]), X], {}, np.searchsorted),
    ("IsIn", [WHOLE, np.array([1, 4])], {"invert": True}, lambda x, y: np.isin(x, y, invert=True)),
    ("TakeAlongAxis", [X, WHOLE % 4], {"axis": 1}, lambda x, i: np.take_along_axis(x, i, 1)),
    ("Bincount", [WHOLE[0, 0]], {"minlength": 9}, lambda x: np.bincount(x, minlength=9)[:9]),
    ("Einsum", [X, Y], {"subscripts": "ijk,ilk->jil"}, lambda x, y: np.einsum("ijk,ilk->jil", x, y)),
    ("Einsum", [X, Y], {"subscripts": "...k,...k"}, lambda x, y: np.einsum("...k,...k", x, y)),
    ("Einsum", [X[:1], Y], {"subscripts": "ijk,ijk->jk"}, lambda x, y: (x * y).sum(0)),
    ("Kron", [X[0, :2, :2], Y[0]], {}, np.kron),
    ("Cross", [X[..., :3], Y[..., 3:]], {"axisc": 0}, lambda x, y: np.cross(x, y, axisc=0)),
    ("Correlate", [X[0, 0], Y[0, 0, :3]], {"mode": "full"}, lambda x, y: np.correlate(x, y, "full")),
    ("Trace", [X], {"offset": 1, "axis1": 1, "axis2": 2}, lambda x: np.trace(x, 1, 1, 2)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[2]}")
def test_an_operation_does_as_numpy(case: Case) -> None:
    name, args, options, meaning = case
    with np.errstate(all="ignore"):
        expected = meaning(*args)
    got = computed(name, *args, **options)
    assert got.shape == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


BITS = np.array([0, 1, -1, 5, -77, 2**31 - 1, -(2**31), 123456789], np.int32)
PLACES = np.array([0, 1, 2, 3, 15, 30, 31], np.int32)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "uint32"])
def test_bits_are_those_of_numpy(dtype: str) -> None:
    x, y = (a.ravel() for a in np.meshgrid(BITS.astype(dtype), BITS.astype(dtype)))
    for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        np.testing.assert_array_equal(computed(name, x, y), getattr(np, f"bitwise_{name[7:].lower()}")(x, y))
    np.testing.assert_array_equal(computed("BitwiseNot", x), ~x)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "uint32"])
def test_bits_move_and_leave(dtype: str) -> None:
    width = np.dtype(dtype).itemsize * 8
    x, places = (a.ravel() for a in np.meshgrid(BITS.astype(dtype), PLACES[width > PLACES].astype(dtype)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(computed("LeftShift", x, places), np.left_shift(x, places))
    np.testing.assert_array_equal(computed("RightShift", x, places), np.right_shift(x, places))
    np.testing.assert_array_equal(computed("RightShift", x, 3), x >> 3)
    np.testing.assert_array_equal(computed("LeftShift", x, width + 1), np.zeros_like(x))
    np.testing.assert_array_equal(computed("RightShift", x, width + 1), np.where(x < 0, ~np.zeros_like(x), 0))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_segments_are_reduced_alone(dtype: str, rng: np.random.Generator) -> None:
    data = (rng.normal(size=(7, 2, 3)) * 3).astype(dtype)
    numbers = np.array([2, 0, 0, -1, 3, 2, 9], np.int32)
    rows = [data[numbers == i] for i in range(5)]
    for name in ("Sum", "Prod"):
        expected = np.stack([getattr(part, name.lower())(0) for part in rows])
        np.testing.assert_allclose(computed(f"Segment{name}", data, numbers, num_segments=5), expected, rtol=1e-5)
    for name in ("Max", "Min"):
        received = computed(f"Segment{name}", data, numbers, num_segments=5)
        for i in (0, 2, 3):
            np.testing.assert_array_equal(received[i], getattr(rows[i], name.lower())(0))


def test_small_numbers_keep_their_digits() -> None:
    x = np.array([1e-6, -3e-7, 2e-5], np.float32)
    for name in ("Log1p", "Expm1", "Sinh", "Arcsinh", "Arctanh"):
        np.testing.assert_allclose(computed(name, x), getattr(np, name.lower())(x.astype(float)), rtol=1e-6)


def test_large_numbers_stay_finite() -> None:
    x = np.array([3e30, -2e38], np.float32)
    np.testing.assert_allclose(computed("Hypot", x, x), np.hypot(x.astype(float), x).astype(np.float32), rtol=1e-6)
    np.testing.assert_allclose(computed("Arcsinh", x), np.arcsinh(x.astype(float)), rtol=1e-6)


def test_the_largest_come_with_the_first_of_their_places() -> None:
    x = np.array([[2, 5, 5, -np.inf], [-np.inf, -np.inf, 1, -np.inf]], np.float32)
    values, places = computed("TopK", x, k=3)
    assert places.tolist() == [[1, 2, 0], [2, 0, 1]]
    np.testing.assert_array_equal(values, np.take_along_axis(x, places, 1))


def test_rearranged_axes_are_named() -> None:
    x = np.arange(48).reshape(2, 4, 6)
    got = computed("Rearrange", x, pattern="b (h p) w -> (b p) w h", p=2)
    np.testing.assert_array_equal(got, x.reshape(2, 2, 2, 6).transpose(0, 2, 3, 1).reshape(4, 6, 2))
    np.testing.assert_array_equal(computed("Rearrange", x, pattern="... a -> a ..."), np.moveaxis(x, -1, 0))


@pytest.mark.parametrize(
    ("name", "args", "options", "text"),
    [
        ("Norm", [X], {"ord": 2, "axis": [1, 2]}, "takes ord None, 'fro', 1 or inf of matrices"),
        ("Bincount", [WHOLE], {}, "`minlength` of an operation Bincount must be given"),
        ("Einsum", [X], {"subscripts": "ij->i"}, r"must fit ranks \[3\]. Received: 'ij->i'"),
        ("OneHot", [WHOLE], {"num_classes": 3, "sparse": True}, "kcompile has dense tensors only"),
        ("Rearrange", [X], {"pattern": "a (b c) d -> a b"}, "`pattern` of an operation Rearrange must fit"),
        ("BitwiseAnd", [X, Y], {}, "bits are those of integers or bools"),
        ("SegmentSum", [X, WHOLE[:, 0, 0]], {}, "segments need `num_segments`"),
        ("Cross", [X, Y], {}, "takes vectors of 3 elements"),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, args: list[Any], options: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        computed(name, *args, **options)
