"""The text form: what it looks like, that it reads back, and what it says of text that is wrong."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcompile.errors import GraphError
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import Tensor
from kcompile.ir.ops import Clip, Constant, Conv, Full, Fused, HardSigmoid, Lstm, Pad, Relu, Reshape
from kcompile.ir.parse import parse
from kcompile.ir.text import constants_of, to_text
from kcompile.ir.types import TensorType

MODEL = """\
graph @model(%image: f32[N, 4, 4, 1]) -> (probabilities: f32[N, 4, 8], "last state": f32[N, 2]) {
  // note: simplify
  %conv/kernel = constant {value=[1.0, 0.5, -0.25, 2.0]} : f32[2, 2, 1, 1]  // conv
  %0 = conv(%image, %conv/kernel) {strides=[1, 1], padding="same"} : f32[N, 4, 4, 1]  // conv
  %1 = reshape(%0) {shape=["N", 4, 4]} : f32[N, 4, 4]
  %2 = full {shape=[4, 8], value=0.5} : f32[4, 8]
  %3 = full {shape=[2, 8]} : f32[2, 8]
  %"lstm:0/bias" = constant {value=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1]} : f32[8]  // "encoder\\nlstm"
  %4, %5, %6 = lstm(%1, %2, %3, %"lstm:0/bias") {recurrent_activation=hard_sigmoid(alpha=0.2)} : \
f32[N, 4, 2], f32[N, 2], f32[N, 2]  // "encoder\\nlstm"
  %7 = fused(%4, %1) {label="elementwise", body=graph @body(%x0: f32[N, 4, 2], %x1: f32[N, 4, 4]) -> \
(output_0: f32[N, 4, 8]) {
    %0 = pad(%x0) {low=[0, 0, 0], high=[0, 0, 6]} : f32[N, 4, 8]
    %1 = relu(%0) : f32[N, 4, 8]  // act
    return %1
  }} : f32[N, 4, 8]
  return %7, %6
}
"""


def model() -> Graph:
    b = Builder("model")
    image = b.input("image", TensorType("float32", ("N", 4, 4, 1)))
    with b.source("conv"):
        kernel = b.constant(np.array([1.0, 0.5, -0.25, 2.0], "float32").reshape(2, 2, 1, 1), "conv/kernel")
        x = b(Conv((1, 1), "same"), image, kernel)
    x = b(Reshape(("N", 4, 4)), x)
    weights = b(Full((4, 8), 0.5)), b(Full((2, 8)))
    with b.source("encoder\nlstm"):
        bias = b.constant(np.array([0.0] * 7 + [0.1], "float32"), "lstm:0/bias")
        sequence, _, state = b.multi(Lstm(recurrent_activation=HardSigmoid(alpha=0.2)), x, *weights, bias)
    body = Builder("body")
    x0, _ = body.input("x0", sequence.type), body.input("x1", x.type)
    padded = body(Pad((0, 0, 0), (0, 0, 6)), x0)
    with body.source("act"):
        group = Fused("elementwise", body.build([body(Relu(), padded)]))
    fused = b(group, sequence, x)
    return b.build({"probabilities": fused, "last state": state}).with_note("simplify")


def test_a_graph_prints_line_by_line() -> None:
    assert to_text(model()) == MODEL
    assert str(model()) == MODEL


def test_a_graph_reads_back_as_it_was_printed() -> None:
    assert to_text(parse(MODEL)) == MODEL


def test_text_may_be_laid_out_and_commented_freely() -> None:
    loose = """
    // what this shows
    graph @g ( %x : f32[ N , 2 ] )
      -> ( y : f32[N,2] )
    {
      // a remark
      %a = relu( %x ) : f32[N, 2]   // layer
      // another
      %b=clip(%a){min=0,max=6.0}:f32[N,2]
      return %b
    }
    // the end
    """
    graph = parse(loose)
    assert [node.source for node in graph.nodes] == ["layer", ""]
    assert graph.nodes[1].op == Clip(0.0, 6.0)
    assert graph.notes == ()


names = st.text(min_size=1)


@given(names, names, names, names, st.lists(st.text(), max_size=2))
def test_names_of_any_characters_read_back(graph: str, input: str, output: str, source: str, notes: list[str]) -> None:
    b = Builder(graph)
    x = b.input(input, TensorType("float32", ("N",)))
    with b.at(source):
        constants = [b.constant(np.zeros((), "float32"), name) for name in (input, output, output, "3", "")]
        for value in constants:
            x = b(Clip(0.0, 1.0), x) if value is None else b(Fused("", _sum_of(x.type, value.type)), x, value)
    made = b.build({output: x})
    for note in notes:
        made = made.with_note(note)
    again = parse(to_text(made))
    assert to_text(again) == to_text(made)
    assert (again.name, [*again.input_types], again.output_names) == (graph, [input], (output,))
    assert again.notes == tuple(notes)
    assert {node.source for node in again.nodes} == {source}
    assert [n.op.name for n in again.nodes if isinstance(n.op, Constant)] == [input, output, output, "3", ""]


def _sum_of(x: TensorType, y: TensorType) -> Graph:
    b = Builder("body")
    inputs = b.input("x", x), b.input("y", y)
    from kcompile.ir.ops import Add

    return b.build([b(Add(), *inputs)])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "uint64", "bool"])
def test_small_constants_keep_every_bit(dtype: str) -> None:
    @given(st.binary(min_size=64, max_size=64), st.sampled_from([(), (0,), (1,), (2, 3), (8,), (9,), (3, 0)]))
    def check(noise: bytes, shape: tuple[int, ...]) -> None:
        numbers = np.frombuffer(noise * 2, "uint8" if dtype == "bool" else dtype)[: int(np.prod(shape))].reshape(shape)
        array = numbers > 127 if dtype == "bool" else numbers
        b = Builder("g")
        graph = b.build([b.constant(array)])
        again = parse(to_text(graph), constants_of(graph)).nodes[0].op
        assert isinstance(again, Constant)
        assert again.value == Tensor(array)
        assert again.value.array.tobytes() == array.tobytes()

    check()


def test_large_constants_stand_by_digest_and_their_arrays_beside_the_text() -> None:
    b = Builder("g")
    weights = np.arange(9, dtype="float32")
    graph = b.build([b.constant(weights, "w")])
    (digest,) = constants_of(graph)
    assert f"%w = constant {{value=#{digest}}} : f32[9]" in to_text(graph)
    assert constants_of(graph)[digest] is graph.nodes[0].outputs[0].constant
    with pytest.raises(GraphError, match=f"constant #{digest} must be among the given ones, of type f32\\[9\\]"):
        parse(to_text(graph), {digest: weights.astype("float64")})


def test_numbers_at_the_edge_of_floats_read_back() -> None:
    values = [-0.0, np.inf, -np.inf, 1e-45, 3.4028235e38, 0.1, 1 / 3, 16777217.0]
    b = Builder("g")
    x = b.input("x", TensorType("float32", ("N", 8)))
    constant = b.constant(np.array(values, "float32"))
    graph = b.build([b(Clip(-np.inf, 0.1), x), constant])
    again = parse(to_text(graph))
    assert again.outputs[0].op == Clip(-np.inf, 0.1)
    assert again.outputs[1].constant is not None
    assert again.outputs[1].constant.tobytes() == np.array(values, "float32").tobytes()


HEAD = "graph @g(%x: f32[N, 4]) -> (y: f32[N, 4]) {\n"


def error_of(text: str) -> str:
    with pytest.raises(GraphError) as caught:
        parse(text)
    return str(caught.value)


def test_an_error_names_the_law_the_line_and_the_column() -> None:
    assert error_of(HEAD + "  %0 = rleu(%x) : f32[N, 4]\n  return %0\n}\n") == (
        "no op is named `rleu`. Received at line 2, column 8:\n    %0 = rleu(%x) : f32[N, 4]\n         ^"
    )


@pytest.mark.parametrize(
    ("body", "law"),
    [
        ("%0 = relu(%y) : f32[N, 4]\n return %0\n}", "a value must be defined before it is read"),
        ("%0 = relu(%x) : f32[N, 5]\n return %0\n}", "`relu` has the results f32[N, 4]"),
        ("%0, %1 = relu(%x) : f32[N, 4], f32[N, 4]\n return %0\n}", "`relu` has the results f32[N, 4]"),
        ("%0 = relu(%x) {alpha=1} : f32[N, 4]\n return %0\n}", "`relu` has no attribute `alpha` of such a value"),
        (
            '%0 = clip(%x) {min="a", max=1.0} : f32[N, 4]\n return %0\n}',
            "`clip` has no attribute `min` of such a value",
        ),
        ("%0 = clip(%x) {min=true, max=1.0} : f32[N, 4]\n return %0\n}", "`clip` has no attribute `min` of such"),
        ("%0 = clip(%x) {min=1.0} : f32[N, 4]\n return %0\n}", "`clip` needs the attributes min, max"),
        ("%0 = relu(%x, %x) : f32[N, 4]\n return %0\n}", "`relu` takes (x). Received: 2 operands"),
        ("%x = relu(%x) : f32[N, 4]\n return %x\n}", "`x` must be defined once"),
        ("%0 = relu(%x) : f32[N, 4]\n %0 = relu(%x) : f32[N, 4]\n return %0\n}", "`%0` must be defined once"),
        ("%0 = relu(%x) : f31[N, 4]\n return %0\n}", "a dtype must be one of"),
        ("%0 = relu(%x) : f32[N+, 4]\n return %0\n}", "an extent must be an integer or an expression"),
        ("%0 = constant {value=[1.0]} : f32[2]\n return %x\n}", "must be a list of 2 numbers"),
        ("%0 = constant {value=#00} : f32[2]\n return %x\n}", "constant #00 must be among the given ones"),
        ("%0 = constant : f32[2]\n return %x\n}", "the value of a constant f32[2] must be a list"),
        ("%0 = constant {value=[300, 1]} : u8[2]\n return %x\n}", "the numbers of a constant must fit u8[2]"),
        ("%0 = constant {value=1.0} : f32[N]\n return %x\n}", "a constant's extents must be integers"),
        ('%0 = transpose(%x) {perm=["a"]} : f32[4, N]\n return %x\n}', "`transpose` has no attribute `perm` of such"),
        ("%0 = relu(%x) : f32[N, 4]\n return %0, %0\n}", "the values returned must have the types declared"),
        ("%0 = reduce_sum(%x) {axes=[1]} : f32[N]\n return %0\n}", "the values returned must have the types declared"),
        ("%0 = pad(%x) {low=[0], high=[0, 0]} : f32[N, 4]\n return %0\n}", "`low` and `high` must hold one number"),
        ("%0 = pad(%x) {low=[0, -1], high=[0, 0]} : f32[N, 3]\n return %0\n}", "`low` and `high` must hold one number"),
        ("%0 = tile(%x) {repeats=[2]} : f32[N, 4]\n return %0\n}", "`repeats` must hold one number per axis"),
        ("%0 = conv(%x, %x) {strides=[1]} : f32[N, 4]\n return %0\n}", "`conv`: ranks and dtypes must fit"),
        ("return %x\n} graph", "nothing may follow the graph"),
        ("return %x\n", "`}` must stand here"),
        ("%0 = relu(%x : f32[N, 4]\n", "`,` must stand here"),
        ("", "`%` must stand here"),
        ("%0 = softmax(%x) {axis=" + "[" * 50 + "]" * 50 + "} : f32[N, 4]\n", "must not nest deeper"),
        ('%0 = softmax(%x) {axis="\\q"} : f32[N, 4]\n', "a string must have JSON's escapes"),
    ],
)
def test_text_that_is_wrong_is_refused(body: str, law: str) -> None:
    message = error_of(HEAD + body)
    assert message.startswith(law) or law in message
    assert "Received at line" in message


@given(st.data())
def test_damaged_text_is_refused_or_read_but_never_a_crash(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(MODEL) - 1))
    length = data.draw(st.integers(0, 5))
    put = data.draw(st.text(alphabet='%@(){}[]"=:,#/ \n019.-NT', max_size=3))
    with contextlib.suppress(GraphError):
        parse(MODEL[:at] + put + MODEL[at + length :])


IMAGE = "graph @g(%x: f32[N, 4, 4, 1], %k: f32[2, 2, 1, 1]) -> (y: f32[N, 4, 4, 1]) {\n"


@pytest.mark.parametrize(
    "node",
    [
        "conv(%x, %k) {strides=[1, 1], padding=[[0, 0]]}",
        "conv(%x, %k) {strides=[1, 1], dilation=[1]}",
        "conv(%x, %k) {strides=[0, 1]}",
        "conv(%x, %k) {strides=[1, 1], dilation=[0, 1]}",
        "conv(%x, %k) {strides=[1, 1], groups=0}",
        "conv(%x, %k) {strides=[1, 1], padding=[[-1, 0], [0, 0]]}",
        "conv_transpose(%x, %k) {strides=[1, 1], padding=[[0, 0]], output_padding=[0, 0]}",
        "conv_transpose(%x, %k) {strides=[1, 1], padding=[[0, 0], [0, 0]], output_padding=[0]}",
        "conv_transpose(%x, %k) {strides=[1, 1], padding=[[0, 0], [0, 0]], output_padding=[0, 0], groups=0}",
        "max_pool(%x) {pool_size=[2], strides=[1, 1]}",
        "max_pool(%x) {pool_size=[2, 2], strides=[1, 1], padding=[[0, 0]]}",
        "max_pool(%x) {pool_size=[2, 2], strides=[0, 1]}",
        "max_pool(%x) {pool_size=[0, 2], strides=[1, 1]}",
        "avg_pool(%x) {pool_size=[2, 2], strides=[1, 1], padding=[[2, 0], [0, 0]]}",
        "resize(%x) {size=[4]}",
        "resize(%x) {size=[-4, 4]}",
        "reshape(%x) {shape=[-1, 4]}",
        "slice(%x) {axis=1, start=3, stop=1}",
        "slice(%x) {axis=1, start=0, stop=2, step=0}",
        "slice(%x) {axis=9, start=0, stop=2}",
        "batch_norm(%x, %k, %k, %k, %k) {epsilon=0.1}",
        "layer_norm(%x, %k, %k) {epsilon=0.1}",
        "tile(%x) {repeats=[1, 1, 1, -1]}",
        "full {shape=[-2]}",
        "attention(%x, %k, %k) {scale=1.0}",
        "lstm(%x, %k, %k, %k)",
        "gather(%x, %k)",
        'cast(%x) {dtype="float31"}',
        "concat(%x, %k) {axis=0}",
        "matmul(%k, %x)",
        "dense(%x, %k)",
        "arg_reduce(%x) {axis=4}",
        "reduce_sum(%x) {axes=[0, 0]}",
        "reverse(%x) {axes=[7]}",
        "transpose(%x) {perm=[0, 1]}",
        "broadcast_to(%x) {shape=[2]}",
        "and(%x, %x)",
        "where(%x, %x, %x)",
    ],
)
def test_attributes_and_operands_that_no_op_takes_are_refused(node: str) -> None:
    message = error_of(IMAGE + f"  %0 = {node} : f32[N, 4, 4, 1]\n  return %0\n}}\n")
    assert "Received at line 2, column 8" in message
    assert "has the results" not in message
