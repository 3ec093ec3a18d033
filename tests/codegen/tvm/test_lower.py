"""Whole graphs through the C interface."""

import ctypes
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import pytest

from kcompile.codegen.tvm.lower import compile_graph
from kcompile.codegen.tvm.targets import MACHINES, host
from kcompile.errors import UnsupportedOp
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model, address, aligned, pointers


def small_cnn(batch: int | str = "N", seed: int = 0) -> Graph:
    """Convolution, residual sum, pooling, depthwise convolution, dense, softmax-free."""
    rng = np.random.default_rng(seed)
    b = Builder("small_cnn")

    def weights(*shape: int):
        return b.constant((rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32))

    x = b.input("image", TensorType("float32", (batch, 17, 14, 3)))
    with b.source("stem"):
        y = b(ops.Relu(), b(ops.Conv((1, 1), "same"), x, weights(3, 3, 3, 24), weights(24)))
    with b.source("block"):
        z = b(ops.Conv((1, 1), "same"), y, weights(3, 3, 24, 24))
        y = b(ops.Silu(), b(ops.Add(), z, y))
    with b.source("pool"):
        y = b(ops.MaxPool((2, 2), (2, 2)), y)
    with b.source("depthwise"):
        y = b(ops.Relu(), b(ops.Conv((1, 1), "same", (), 24), y, weights(3, 3, 1, 24), weights(24)))
    with b.source("head"):
        y = b(ops.Reshape((batch, 8 * 7 * 24)), y)
        y = b(ops.Dense(), y, weights(8 * 7 * 24, 10), weights(10))
    return b.build({"logits": y})


@pytest.fixture(scope="module")
def cnn() -> Model:
    return Model(small_cnn())


@pytest.mark.parametrize(("batch", "threads"), [(0, 2), (1, 1), (1, 2), (5, 3)])
def test_a_network_matches_the_reference(cnn: Model, batch: int, threads: int, rng: np.random.Generator):
    image = rng.normal(size=(batch, 17, 14, 3)).astype(np.float32)
    expected = evaluate(cnn.graph, {"image": image}, precision="float64")["logits"]
    np.testing.assert_allclose(cnn.run({"image": image}, threads)["logits"], expected, rtol=1e-4, atol=1e-5)


def test_results_are_the_same_bits_for_any_number_of_threads(cnn: Model, rng: np.random.Generator):
    image = rng.normal(size=(3, 17, 14, 3)).astype(np.float32)
    one = cnn.run({"image": image})["logits"]
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(cnn.run({"image": image}, threads)["logits"], one)


def test_large_batches_run_in_slices_of_the_same_bits_for_any_number_of_threads(cnn: Model, rng: np.random.Generator):
    rows = cnn.compiled.arena.rows({})
    image = rng.normal(size=(3 * rows + 5, 17, 14, 3)).astype(np.float32)
    one = cnn.run({"image": image})["logits"]
    expected = evaluate(cnn.graph, {"image": image}, precision="float64")["logits"]
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)
    for threads in (2, 3, 5):  # slices of their own and the rest together, alone, and together alone
        np.testing.assert_array_equal(cnn.run({"image": image}, threads)["logits"], one)


def test_the_arena_holds_a_slice_per_thread(cnn: Model):
    arena = cnn.compiled.arena
    few, many = ({"N": rows, "threads": 1} for rows in (arena.rows({}), 10**6))
    assert arena.bytes(few) == arena.bytes(many) <= 5 << 20
    assert arena.bytes({"N": 10**6, "threads": 3}) == 3 * arena.bytes(many)
    for rows in (0, 1, arena.rows({}), arena.rows({}) + 1, 10**6):
        for threads in (1, 2, 3):
            symbols = {"N": rows, "threads": threads}
            assert eval(str(arena.text()), {"min": min}, symbols) == arena.bytes(symbols)


def test_graphs_that_mix_rows_run_whole(rng: np.random.Generator):
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 2000)))
    doubled = b(ops.Mul(), x, x)
    total = b(ops.ReduceMax((0,), keepdims=True), doubled)
    graph = b.build([b(ops.Sub(), b(ops.CumSum(0), doubled), total)])
    x = rng.normal(size=(1500, 2000)).astype(np.float32)
    (result,) = Model(graph).run({"x": x}).values()
    np.testing.assert_allclose(result, evaluate(graph, {"x": x})["output_0"], rtol=1e-4, atol=1e-3)


def test_outputs_that_are_the_same_for_all_rows_or_several_per_row_are_whole_after_slices(rng: np.random.Generator):
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 300, 600)))
    flat = b(ops.Reshape(("300*N", 600)), b(ops.Mul(), x, x))
    short = b(ops.ReduceSum((1,)), b(ops.Add(), flat, flat))
    fixed = b(ops.Exp(), b.constant(np.arange(4, dtype=np.float32)))
    model = Model(b.build({"short": short, "fixed": fixed}))
    x = rng.normal(size=(9, 300, 600)).astype(np.float32)
    assert model.compiled.arena.rows({}) < 9
    expected = evaluate(model.graph, {"x": x})
    for name, y in model.run({"x": x}, 2).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-5)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_lower_instruction_sets_give_the_same_network(level: str, rng: np.random.Generator):
    if host().triple != MACHINES[level].triple:
        pytest.skip("the host is another architecture")
    model = Model(small_cnn(), MACHINES[level])
    image = rng.normal(size=(2, 17, 14, 3)).astype(np.float32)
    expected = evaluate(model.graph, {"image": image}, precision="float64")["logits"]
    np.testing.assert_allclose(model.run({"image": image}, 2)["logits"], expected, rtol=1e-4, atol=1e-5)


def test_the_object_for_another_architecture_links():
    compiled = compile_graph(small_cnn(), MACHINES["aarch64"])
    assert compiled.library[:4] == b"\x7fELF"
    assert int.from_bytes(compiled.library[18:20], "little") == 183  # EM_AARCH64


def test_each_layer_is_one_kernel(cnn: Model):
    table = [(call.family, call.source) for call in cnn.compiled.calls]
    assert table == [("conv", "stem"), ("winograd", "block"), ("depthwise", "depthwise"), ("matrix", "head")]


def test_equal_graphs_give_equal_bytes():
    first, second = (compile_graph(small_cnn(), host()) for _ in range(2))
    assert first.library == second.library
    assert first.weights == second.weights


def test_the_library_names_no_path_and_needs_only_the_c_library(cnn: Model):
    content = cnn.compiled.library
    assert b"/tmp" not in content
    assert b"kc_conv" not in content  # kernels are private
    assert b"libc.so" not in content


def test_equal_layers_share_one_kernel():
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 8)))
    for seed in range(3):
        kernel = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
        x = b(ops.Relu(), b(ops.Dense(), x, b.constant(kernel)))
    compiled = compile_graph(b.build([x]), host())
    assert len(compiled.calls) == 3
    assert len({call.function for call in compiled.calls}) == 1


def test_outputs_that_nothing_computes_are_copied(rng: np.random.Generator):
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 6)))
    doubled = b(ops.Add(), x, x)
    table = b.constant(np.arange(5, dtype=np.int64))
    flat = b(ops.Reshape(("N", 2, 3)), doubled)
    graph = b.build({"same": x, "twice": doubled, "again": doubled, "shaped": flat, "constant": table})
    inputs = {"x": rng.normal(size=(4, 6)).astype(np.float32)}
    expected = evaluate(graph, inputs)
    for name, y in Model(graph).run(inputs).items():
        np.testing.assert_array_equal(y, expected[name])


def test_a_value_inside_a_group_that_is_read_outside_is_stored(rng: np.random.Generator):
    inner = Builder()
    x, k = inner.input("x", TensorType("float32", ("N", 4))), inner.input("k", TensorType("float32", (4, 4)))
    y = inner(ops.Dense(), x, k)
    z = inner(ops.Relu(), y)
    body = inner.build([y, inner(ops.Mul(), z, z), z])
    b = Builder()
    kernel = b.constant(rng.normal(size=(4, 4)).astype(np.float32))
    graph = b.build(b.multi(ops.Fused("dense+relu", body), b.input("x", x.type), kernel))
    inputs = {"x": rng.normal(size=(3, 4)).astype(np.float32)}
    expected = evaluate(graph, inputs)
    for name, y in Model(graph).run(inputs).items():
        np.testing.assert_allclose(y, expected[name], rtol=1e-6)


def test_channels_first_graphs_run_in_channels_last(rng: np.random.Generator):
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 3, 9, 8)))
    kernel = b.constant(rng.normal(size=(3, 3, 3, 5)).astype(np.float32))
    y = b(ops.Conv((1, 1), "same", data_format="channels_first"), x, kernel)
    y = b(ops.MaxPool((2, 2), (2, 2), data_format="channels_first"), b(ops.Relu(), y))
    graph = b.build([y])
    inputs = {"x": rng.normal(size=(2, 3, 9, 8)).astype(np.float32)}
    (result,) = Model(graph).run(inputs).values()
    np.testing.assert_allclose(result, evaluate(graph, inputs)["output_0"], rtol=1e-5, atol=1e-5)


def test_ops_without_a_rule_are_named_with_their_layers():
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 4, 4, 2)))
    with b.source("block/up"):
        kernel = b.constant(np.ones((3, 3, 2, 2), np.float32))
        y = b(ops.ConvTranspose((2, 2), ((0, 0), (0, 0)), (0, 0), (2, 2)), x, kernel)
    with pytest.raises(UnsupportedOp, match="block/up"):
        compile_graph(b.build([y]), host())


def test_symbols_that_make_arrays_too_large_are_refused(cnn: Model):
    def refused(batch: int) -> bool:
        symbols = np.array([batch], np.int64)
        none = pointers([])
        run = cnn.library.kc_run(none, none, None, None, address(symbols), None)
        return cnn.library.kc_arena_bytes(address(symbols), 1) == -1 and run == -1

    assert refused(-1)
    assert refused(2**31)
    assert refused(2**62)
    assert cnn.library.kc_arena_bytes(address(np.array([2**31 - 1], np.int64)), 1) > 0  # a slice at a time


def test_many_callers_share_a_library_each_with_its_own_arena(cnn: Model, rng: np.random.Generator):
    images = [rng.normal(size=(1, 17, 14, 3)).astype(np.float32) for _ in range(4)]
    expected = [cnn.run({"image": image})["logits"] for image in images]
    wrong: list[int] = []

    def call(i: int) -> None:
        runner = Caller(cnn)
        for _ in range(200):
            if not np.array_equal(runner(images[i]), expected[i]):
                wrong.append(i)

    run_together([lambda i=i: call(i) for i in range(4)])
    assert not wrong


def test_callers_of_one_pool_take_turns(cnn: Model, rng: np.random.Generator):
    """More threads than CPUs, and callers that come at once: every result is whole."""
    images = [rng.normal(size=(1, 17, 14, 3)).astype(np.float32) for _ in range(3)]
    expected = [cnn.run({"image": image})["logits"] for image in images]
    wrong: list[int] = []

    def call(i: int, pool: int) -> None:
        runner = Caller(cnn, pool, 3)
        for _ in range(50):
            if not np.array_equal(runner(images[i]), expected[i]):
                wrong.append(i)

    with pool_of(cnn, 3) as pool:
        run_together([lambda i=i: call(i, pool) for i in range(3)])
    assert not wrong


def test_a_pool_is_ready_when_its_threads_wait_awake_and_is_woken_by_calls_that_follow_each_other(cnn: Model):
    with pool_of(cnn, 2) as pool:
        time.sleep(0.2)  # longer than the threads wait awake
        assert not is_ready(cnn, pool)
        time.sleep(0.01)
        assert not is_ready(cnn, pool)  # two calls far apart wake nobody
        end = time.monotonic() + 20
        while not is_ready(cnn, pool):
            assert time.monotonic() < end


def test_brief_calls_of_any_length_wake_the_pool_when_they_follow_each_other(cnn: Model, rng: np.random.Generator):
    """What counts is the time between two calls: a call itself may take longer than threads wait awake."""
    image = rng.normal(size=(1, 17, 14, 3)).astype(np.float32)
    expected = cnn.run({"image": image})["logits"]
    with pool_of(cnn, 2) as pool:
        caller = Caller(cnn, pool, 2, "kc_run_brief")
        time.sleep(0.2)
        np.testing.assert_array_equal(caller(image), expected)
        assert not is_ready(cnn, pool)
        end, ready = time.monotonic() + 20, False
        while not ready:
            np.testing.assert_array_equal(caller(image), expected)
            ready = is_ready(cnn, pool)
            assert time.monotonic() < end
        np.testing.assert_array_equal(caller(image), expected)


@contextmanager
def pool_of(model: Model, threads: int) -> Generator[int]:
    """The address of a pool of a model's library."""
    memory = aligned(model.library.kc_pool_bytes(threads))
    pool = model.library.kc_pool_create(address(memory), threads)
    yield pool
    model.library.kc_pool_destroy(ctypes.c_void_p(pool))


def is_ready(model: Model, pool: int) -> bool:
    return bool(model.library.kc_pool_ready(ctypes.c_void_p(pool)))


class Caller:
    """Calls of a model with one arena."""

    def __init__(self, model: Model, pool: int | None = None, threads: int = 1, entry: str = "kc_run") -> None:
        self.model, self.pool = model, pool
        self.run = getattr(model.library, entry)
        self.symbols = np.array([1], np.int64)
        self.arena = aligned(model.library.kc_arena_bytes(address(self.symbols), threads))

    def __call__(self, image: Array) -> Array:
        result = np.zeros((1, 10), np.float32)
        arguments = (pointers([image]), pointers([result]), address(self.model.weights), address(self.arena))
        assert self.run(*arguments, address(self.symbols), ctypes.c_void_p(self.pool)) == 0
        return result


def run_together(calls: list) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
