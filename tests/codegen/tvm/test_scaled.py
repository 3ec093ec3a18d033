"""Gates of squeeze-and-excite blocks in the weights of the 1 x 1 convolution after them."""

from dataclasses import dataclass

import numpy as np
import pytest

from kcompile.codegen.tvm.kernels.scaled import scalings
from kcompile.codegen.tvm.lower import prepared
from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Op
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model
from tests.codegen.tvm.plans import Planned, random_inputs

ABSORBED = ["scaled_panels", "matrix"]


@dataclass(frozen=True)
class Case:
    """A block: extents, channels, filters, what makes the gates, whether they come last, and what follows."""

    spatial: tuple[int, ...]
    channels: int
    filters: int
    batch: int | str = "N"
    gates: Op = ops.Sigmoid()  # noqa: RUF009 -- ops are immutable
    reshaped: bool = False
    gates_first: bool = False
    tail: bool = True
    window: int = 1
    strides: int = 1
    read_twice: bool = False

    @property
    def parameters(self) -> tuple[Array, Array]:
        """The convolution's kernel and bias."""
        random = np.random.default_rng(self.channels + self.filters)
        kernel = random.normal(size=(*[self.window] * len(self.spatial), self.channels, self.filters))
        return kernel.astype(np.float32), random.normal(size=self.filters).astype(np.float32)

    def graph(self) -> Graph:
        """Multiply, convolve, and with `tail` apply relu and add what came before the block."""
        b, axes = Builder(), len(self.spatial)
        ones = () if self.reshaped else (1,) * axes
        x = b.input("x", TensorType("float32", (self.batch, *self.spatial, self.channels)))
        gates = b(self.gates, b.input("g", TensorType("float32", (self.batch, *ones, self.channels))))
        if self.reshaped:
            gates = b(ops.Reshape((self.batch, *[1] * axes, self.channels)), gates)
        scaled = b(ops.Mul(), *((gates, x) if self.gates_first else (x, gates)))
        y = b(ops.Conv((self.strides,) * axes, "same", (1,) * axes), scaled, *map(b.constant, self.parameters))
        if self.tail:
            y = b(ops.Add(), b(ops.Relu(), y), b.input("skip", y.type))
        return prepared(b.build([y, scaled] if self.read_twice else [y]))

    def expected(self, inputs: dict[str, Array]) -> Array:
        """The definition, in float64."""
        kernel, bias = (array.astype(np.float64) for array in self.parameters)
        x, g = inputs["x"].astype(np.float64), inputs["g"].astype(np.float64)
        gates = 1 / (1 + np.exp(-g)) if isinstance(self.gates, ops.Sigmoid) else np.clip(g / 6 + 0.5, 0, 1)
        gates = gates.reshape(len(x), *[1] * len(self.spatial), self.channels)
        y = (x * gates) @ kernel.reshape(self.channels, self.filters) + bias
        return np.maximum(y, 0) + inputs["skip"] if self.tail else y


def drawn(seed: int) -> Case:
    """Extents with tails of every kind, and of 1."""
    random = np.random.default_rng(seed)
    filters = int(random.choice([1, 2, 7, 16, 17, 40, 66]))
    rows = int(random.integers(1, 9))
    columns = -(-4 * filters // rows) + int(random.integers(1, 9))
    return Case((rows, columns), int(random.choice([1, 3, 16, 33, 100, 260])), filters, reshaped=seed % 2 == 0)


CASES = [
    *map(drawn, range(8)),
    Case((9, 20), 24, 40, batch=1, gates=ops.HardSigmoid()),
    Case((260,), 8, 65, batch=3, gates_first=True, tail=False),
    Case((3, 5, 7), 5, 6, tail=False),
]
GRAPHS = {case: case.graph() for case in CASES}


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned(list(GRAPHS.values()))


def batches(case: Case) -> list[dict[str, Array]]:
    sizes = (0, 1, 3) if case.batch == "N" else (0,)
    return [random_inputs(GRAPHS[case], seed=n, N=n) for n in sizes]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gates_in_the_weights_give_the_scaled_convolution(planned: Planned, case: Case):
    assert planned.families(GRAPHS[case])[-2:] == ABSORBED
    for inputs in batches(case):
        planned.check(GRAPHS[case], inputs, rtol=1e-5, atol=3e-5)
        (y,) = planned(GRAPHS[case], inputs).values()
        np.testing.assert_allclose(y, case.expected(inputs), 1e-5, 3e-5)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_nan_and_infinity_meet_gates_of_0_as_in_the_definition(planned: Planned, case: Case):
    for gate in (-np.inf, np.inf, 0.0, np.nan):
        for bad in (np.nan, np.inf, -np.inf):
            inputs = random_inputs(GRAPHS[case], N=2)
            inputs["g"][0].flat[0] = gate
            inputs["x"][0].reshape(-1, case.channels)[0, 0] = bad
            with np.errstate(invalid="ignore"):
                (y,) = planned(GRAPHS[case], inputs).values()
                np.testing.assert_allclose(y, case.expected(inputs), 1e-5, 3e-5)


@pytest.mark.skipif(host().architecture != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_other_levels_agree(level: str):
    cases = CASES[2:4]
    planned = Planned([GRAPHS[case] for case in cases], MACHINES[level])
    for case in cases:
        for inputs in batches(case):
            planned.check(GRAPHS[case], inputs, rtol=1e-5, atol=3e-5)


def test_a_whole_model_has_the_same_bits_for_any_number_of_threads():
    case = CASES[3]
    model = Model(GRAPHS[case])
    inputs = random_inputs(GRAPHS[case], N=5)
    (alone,) = model.run(inputs).values()
    np.testing.assert_allclose(alone, case.expected(inputs), 1e-5, 3e-5)
    for threads in (2, 5):
        np.testing.assert_array_equal(alone, next(iter(model.run(inputs, threads).values())))


@pytest.mark.parametrize(
    "case",
    [
        Case((8, 8), 6, 3, gates=ops.Relu()),
        Case((8, 8), 6, 3, read_twice=True),
        Case((8, 8), 6, 3, window=3),
        Case((8, 8), 6, 3, strides=2),
        Case((4, 4), 6, 30),
        Case((1, 3), 6, 1),
    ],
    ids=str,
)
def test_other_products_are_computed(case: Case):
    graph = case.graph()
    assert "scaled_panels" not in Planned([graph]).families(graph)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 1, 4), (5, 6, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_factors_of_any_other_shape_stay(shape: tuple[int, ...], first: bool) -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 5, 6, 4)))
    factor = b(ops.Sigmoid(), b.input("f", TensorType("float32", shape)))
    kernel = b.constant(np.ones((1, 1, 4, 2), np.float32))
    y = b(ops.Conv((1, 1), "same"), b(ops.Mul(), *((factor, x) if first else (x, factor))), kernel)
    assert not scalings(prepared(b.build([y])))
