"""Spectrogram layers against Keras."""

from typing import Any

import numpy as np
import pytest

from kcompile.frontend.layers.windows import WINDOWS, window
from tests.oracle.layer_oracle import check

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("mode", ["log", "magnitude", "psd", "real", "imag", "angle", "stft"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("expand_dims", [False, True])
def test_stft_spectrogram_agrees(mode: str, data_format: str, expand_dims: bool) -> None:
    x = RNG.normal(size=(2, 300, 2) if data_format == "channels_last" else (2, 2, 300)).astype(np.float32)
    options: dict[str, Any] = {"expand_dims": expand_dims, "data_format": data_format}
    options |= {"padding": "same", "scaling": "spectrum"} if expand_dims else {"fft_length": 64}
    check(lambda L, x: L.STFTSpectrogram(mode, 32, 10, **options)(x), x, rtol=1e-4)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("periodic", [False, True])
def test_windows_are_scipys(name: str, periodic: bool) -> None:
    signal = pytest.importorskip("scipy.signal")
    for length in (1, 2, 7, 8, 64):
        np.testing.assert_allclose(window(name, length, periodic), signal.get_window(name, length, periodic), atol=1e-9)


@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize("periodic", [False, True])
def test_a_new_spectrogram_has_the_kernels_of_keras(scaling: str | None, periodic: bool) -> None:
    import keras

    from kcompile.frontend import layers

    arguments: dict[str, Any] = {"frame_length": 400, "window": "blackman", "scaling": scaling, "periodic": periodic}
    theirs, ours = keras.layers.STFTSpectrogram(**arguments), layers.STFTSpectrogram(**arguments)
    theirs.build((None, 1000, 1))
    ours.build((None, 1000, 1))
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"sequence_length": 50},
    {"mag_exp": 1.0},
    {"mag_exp": 1.5, "power_to_db": False},
    {"window": "hamming", "min_freq": 0.0, "max_freq": 3000},
    {"window": None, "ref_power": 3.0, "top_db": 20.0},
    {"num_mel_bins": 60},
    {"window": None, "sequence_length": 40},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_mel_spectrogram_agrees(options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"fft_length": 64, "sequence_stride": 20, "num_mel_bins": 12, **options}
    x = RNG.normal(size=(2, 900)).astype(np.float32)
    check(lambda L, x: L.MelSpectrogram(**arguments)(x), x, rtol=1e-4, atol=1e-5)
