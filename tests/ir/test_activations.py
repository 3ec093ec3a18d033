"""Activations and arithmetic against Python's own mathematics, number by number."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from kcompile.ir import ops
from kcompile.ir.op import Op

NUMBERS = [-30.0, -6.5, -4.2, -3.0, -1.0, -0.47, -0.1, -1e-9, 0.0, 1e-9, 0.3, 0.5, 0.9, 1.5, 3.0, 4.1, 6.5, 30.0]


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def elu(x: float, alpha: float) -> float:
    return x if x > 0 else alpha * math.expm1(x)


FORMULAS: list[tuple[Op, Callable[[float], float]]] = [
    (ops.Relu(), lambda x: max(x, 0.0)),
    (ops.LeakyRelu(0.2), lambda x: x if x >= 0 else 0.2 * x),
    (ops.Elu(0.7), lambda x: elu(x, 0.7)),
    (ops.Selu(), lambda x: 1.05070098735548049342 * elu(x, 1.67326324235437728482)),
    (ops.Celu(0.7), lambda x: max(x, 0.0) + min(0.0, 0.7 * math.expm1(x / 0.7))),
    (ops.Sigmoid(), sigmoid),
    (ops.HardSigmoid(), lambda x: min(max(x / 6.0 + 0.5, 0.0), 1.0)),
    (ops.HardSigmoid(0.2), lambda x: min(max(0.2 * x + 0.5, 0.0), 1.0)),
    (ops.Silu(), lambda x: x * sigmoid(x)),
    (ops.HardSilu(), lambda x: x * min(max(x + 3.0, 0.0), 6.0) / 6.0),
    (ops.Tanh(), math.tanh),
    (ops.Softplus(), softplus),
    (ops.Softsign(), lambda x: x / (1.0 + abs(x))),
    (ops.Mish(), lambda x: x * math.tanh(softplus(x))),
    (ops.Erf(), math.erf),
    (ops.Gelu(), lambda x: x * phi(x)),
    (
        ops.Gelu(approximate=True),
        lambda x: 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    ),
    (ops.Exp(), math.exp),
    (ops.Sin(), math.sin),
    (ops.Cos(), math.cos),
    (ops.Neg(), lambda x: -x),
    (ops.Abs(), abs),
    (ops.Floor(), math.floor),
    (ops.Ceil(), math.ceil),
    (ops.Round(), round),
    (ops.Sign(), lambda x: (x > 0) - (x < 0)),
    (ops.Clip(-1.0, 0.5), lambda x: min(max(x, -1.0), 0.5)),
    (ops.Cast("float64"), lambda x: x),
]


@pytest.mark.parametrize(("op", "formula"), FORMULAS, ids=lambda value: getattr(value, "op_name", ""))
def test_activation_follows_its_formula(op: Op, formula: Callable[[float], float]) -> None:
    found = op.kernel((np.array(NUMBERS),))[0]
    # 1 - erf loses the digits of a tiny result, in ours as in the formula of gelu.
    np.testing.assert_allclose(found, [float(formula(x)) for x in NUMBERS], rtol=1e-13, atol=1e-15)


def test_erf_is_accurate_to_an_ulp_everywhere() -> None:
    x = np.concatenate([np.linspace(-7.0, 7.0, 20_001), 10.0 ** np.arange(-300, 3, 7), [0.46875, 4.0, 6.0]])
    np.testing.assert_allclose(ops.Erf().kernel((x,))[0], [math.erf(value) for value in x], rtol=5e-16, atol=0)


def test_erf_has_its_limits_and_keeps_signs_and_nans() -> None:
    x = np.array([np.inf, -np.inf, np.nan, -0.0], "float32")
    y = ops.Erf().kernel((x,))[0]
    np.testing.assert_array_equal(y, np.array([1.0, -1.0, np.nan, -0.0], "float32"))
    assert np.signbit(y[3])


@pytest.mark.parametrize("op", [ops.Sigmoid(), ops.Softplus(), ops.Silu(), ops.Mish(), ops.Softmax(), ops.LogSoftmax()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_do_not_overflow(op: Op, dtype: str) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = op.kernel((np.array([[-1e4, 1e4, 0.0]], dtype),))[0]
    assert np.isfinite(y).all()


def test_halves_round_to_even_and_remainders_have_the_sign_of_the_divisor() -> None:
    assert ops.Round().kernel((np.array([0.5, 1.5, 2.5, -0.5]),))[0].tolist() == [0.0, 2.0, 2.0, -0.0]
    x, y = np.array([7.0, -7.0, 7.0, -7.0]), np.array([3.0, 3.0, -3.0, -3.0])
    assert ops.Mod().kernel((x, y))[0].tolist() == [1.0, 2.0, -2.0, -1.0]
    assert ops.FloorDiv().kernel((x, y))[0].tolist() == [2.0, -3.0, -3.0, 2.0]


def test_integers_divide_rounding_down() -> None:
    assert ops.Div().kernel((np.array([7, -7]), np.array([2, 2])))[0].tolist() == [3, -4]
