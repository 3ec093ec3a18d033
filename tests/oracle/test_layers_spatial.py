"""Convolutions, pooling and reshaping against Keras, over drawn arguments."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(11)
LAST, FIRST = "channels_last", "channels_first"
EXTENTS = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}


def image(rank: int, channels: int, data_format: str = LAST, batch: int = 2) -> np.ndarray:
    shape = (batch, *EXTENTS[rank], channels) if data_format == LAST else (batch, channels, *EXTENTS[rank])
    return RNG.normal(size=shape).astype(np.float32)


@st.composite
def windows(
    draw: st.DrawFn, rank: int, paddings: tuple[str, ...] = ("valid", "same"), formats: bool = True
) -> dict[str, Any]:
    """Arguments that all convolutions share; Keras takes strides or a dilation, never both."""
    dilated = draw(st.booleans())
    number = st.integers(1, 3)
    return {
        "kernel_size": tuple(draw(number) for _ in range(rank)),
        "strides": 1 if dilated else draw(number),
        "dilation_rate": draw(st.integers(1, 2)) if dilated else 1,
        "padding": draw(st.sampled_from(paddings)),
        "data_format": draw(st.sampled_from([LAST, FIRST] if formats else [LAST])),
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "relu", "tanh"])),
    }


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=12)
@given(data=st.data())
def test_convolutions_agree(rank: int, data: st.DataObject) -> None:
    arguments = data.draw(windows(rank, ("valid", "same", "causal") if rank == 1 else ("valid", "same")))
    groups = data.draw(st.sampled_from([1, 2])) if arguments["data_format"] == LAST else 1
    x = image(rank, 4, arguments["data_format"])
    check(lambda L, x: getattr(L, f"Conv{rank}D")(6, groups=groups, **arguments)(x), x)


@pytest.mark.parametrize("rank", [1, 2])
@settings(max_examples=10)
@given(data=st.data())
def test_depthwise_convolutions_agree(rank: int, data: st.DataObject) -> None:
    arguments = data.draw(windows(rank))
    multiplier = data.draw(st.integers(1, 3))
    x = image(rank, 4, arguments["data_format"])
    check(lambda L, x: getattr(L, f"DepthwiseConv{rank}D")(depth_multiplier=multiplier, **arguments)(x), x)


@pytest.mark.parametrize("rank", [1, 2])
@settings(max_examples=10)
@given(data=st.data())
def test_separable_convolutions_agree(rank: int, data: st.DataObject) -> None:
    arguments = data.draw(windows(rank))
    multiplier = data.draw(st.integers(1, 3))
    x = image(rank, 4, arguments["data_format"])
    check(lambda L, x: getattr(L, f"SeparableConv{rank}D")(5, depth_multiplier=multiplier, **arguments)(x), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=15)
@given(data=st.data())
def test_transposed_convolutions_agree(rank: int, data: st.DataObject) -> None:
    arguments = data.draw(windows(rank))
    stride = arguments["strides"]
    arguments["output_padding"] = data.draw(st.sampled_from([None, *range(stride)])) if stride > 1 else None
    x = image(rank, 3, arguments["data_format"])
    check(lambda L, x: getattr(L, f"Conv{rank}DTranspose")(4, **arguments)(x), x)


def test_convolutions_take_open_extents() -> None:
    x = image(2, 3)
    check(lambda L, x: L.Conv2D(4, 3, 2, "same")(x), x, shapes=[(None, None, 3)])
    check(lambda L, x: L.Conv2DTranspose(4, 3, 2, "same")(L.MaxPooling2D()(x)), x, shapes=[(None, None, 3)])
    check(lambda L, x: L.Conv1D(4, 3, padding="causal")(x), image(1, 3), shapes=[(None, 3)])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@settings(max_examples=8)
@given(data=st.data())
def test_pooling_agrees(rank: int, kind: str, data: st.DataObject) -> None:
    arguments = {
        "pool_size": data.draw(st.integers(1, 3)),
        "strides": data.draw(st.sampled_from([None, 1, 2, 3])),
        "padding": data.draw(st.sampled_from(["valid", "same"])),
        "data_format": data.draw(st.sampled_from([LAST, FIRST])),
    }
    x = image(rank, 3, arguments["data_format"])
    check(lambda L, x: getattr(L, f"{kind}Pooling{rank}D")(**arguments)(x), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("data_format", [LAST, FIRST])
@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling_agrees(rank: int, kind: str, data_format: str, keepdims: bool) -> None:
    x = image(rank, 3, data_format)
    check(lambda L, x: getattr(L, f"Global{kind}Pooling{rank}D")(data_format, keepdims)(x), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_adaptive_pooling_agrees(rank: int, kind: str, size: int) -> None:
    for data_format in (LAST, FIRST):
        x = image(rank, 3, data_format)
        check(lambda L, x: getattr(L, f"Adaptive{kind}Pooling{rank}D")(size, data_format)(x), x)  # noqa: B023


def test_global_average_pooling_skips_masked_steps_in_both_formats() -> None:
    x, mask = image(1, 3), RNG.random((2, 11)) > 0.4
    check(lambda L, x, m: L.GlobalAveragePooling1D()(x, mask=m), x, mask)
    check(lambda L, x, m: L.GlobalAveragePooling1D(keepdims=True)(x, mask=m), x, mask)
    x = image(1, 3, FIRST)
    check(lambda L, x, m: L.GlobalAveragePooling1D(data_format=FIRST)(x, mask=m), x, mask)


@pytest.mark.parametrize(
    ("rank", "amounts"), [(1, [1, (0, 2)]), (2, [1, (1, 2), ((0, 1), (2, 0))]), (3, [1, (1, 0, 2)])]
)
def test_cropping_and_zero_padding_agree(rank: int, amounts: list[Any]) -> None:
    for amount in amounts:
        check(lambda L, x: getattr(L, f"Cropping{rank}D")(amount)(x), image(rank, 2))  # noqa: B023
        check(lambda L, x: getattr(L, f"ZeroPadding{rank}D")(amount)(x), image(rank, 2))  # noqa: B023
        x = image(rank, 2, FIRST)
        check(lambda L, x: getattr(L, f"ZeroPadding{rank}D")(amount, data_format=FIRST)(x), x)  # noqa: B023
        if rank > 1:
            check(lambda L, x: getattr(L, f"Cropping{rank}D")(amount, data_format=FIRST)(x), x)  # noqa: B023
    check(lambda L, x: getattr(L, f"ZeroPadding{rank}D")()(x), image(rank, 2))
    check(lambda L, x: getattr(L, f"Cropping{rank}D")()(x), image(rank, 2))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"])
@pytest.mark.parametrize("size", [2, (1, 3)])
@pytest.mark.parametrize("data_format", [LAST, FIRST])
def test_up_sampling_agrees(interpolation: str, size: Any, data_format: str) -> None:
    x = image(2, 3, data_format)
    check(lambda L, x: L.UpSampling2D(size, data_format, interpolation)(x), x)


def test_up_sampling_of_sequences_and_volumes_agrees() -> None:
    check(lambda L, x: L.UpSampling1D(3)(x), image(1, 2))
    check(lambda L, x: L.UpSampling3D((2, 1, 3))(x), image(3, 2))
    check(lambda L, x: L.UpSampling3D(2, data_format=FIRST)(x), image(3, 2, FIRST))
    check(lambda L, x: L.UpSampling2D()(x), image(2, 3), shapes=[(None, None, 3)])


def test_reshaping_agrees() -> None:
    x = image(2, 6)
    check(lambda L, x: L.Flatten()(x), x)
    check(lambda L, x: L.Flatten(FIRST)(x), x)
    check(lambda L, x: L.Flatten()(x), RNG.normal(size=(3,)).astype(np.float32))
    check(lambda L, x: L.Flatten()(x), RNG.normal(size=(3, 4)).astype(np.float32))
    check(lambda L, x: L.Reshape((-1, 6))(x), x)
    check(lambda L, x: L.Reshape((9, 48))(x), x)
    check(lambda L, x: L.Reshape((432,))(x), x)
    check(lambda L, x: L.Reshape((-1,))(x), x)
    check(lambda L, x: L.Reshape((-1, 3))(x), x, shapes=[(None, 8, 6)])
    check(lambda L, x: L.Permute((3, 1, 2))(x), x)
    check(lambda L, x: L.RepeatVector(4)(x), RNG.normal(size=(3, 5)).astype(np.float32))
