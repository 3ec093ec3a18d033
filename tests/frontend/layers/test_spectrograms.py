"""Spectra against numpy's Fourier transform, and windows against their definitions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.errors import InputError, ModelError
from kcompile.frontend import layers
from kcompile.frontend.layers.windows import WINDOWS, window
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run


def spectra(x: np.ndarray, frame: int, step: int, points: int, weights: np.ndarray) -> np.ndarray:
    """The spectrum of each frame of ``x[N, time]``, ``[N, time', F]``."""
    starts = range(0, x.shape[1] - frame + 1, step)
    return np.stack([np.fft.rfft(x[:, s : s + frame] * weights, points) for s in starts], axis=1)


@pytest.mark.parametrize("mode", ["log", "magnitude", "psd", "real", "imag", "angle", "stft"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_stft_spectrogram_is_the_fourier_transform_of_frames(
    mode: str, data_format: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((2, 50, 3)).astype(np.float32)
    weights = np.hanning(13)[:12] / np.sqrt((np.hanning(13)[:12] ** 2).sum())
    y = np.stack([spectra(x[:, :, c], 12, 5, 16, weights) for c in range(3)], axis=-1)  # [N, time, F, C]
    power = np.abs(y) ** 2
    psd = power.copy()
    psd[:, :, 1:-1] *= 2
    magnitude = np.sqrt(np.maximum(power, 1e-7))
    expected = {
        "log": np.log(magnitude),
        "magnitude": magnitude,
        "psd": psd,
        "real": np.real(y),
        "imag": np.imag(y),
        "angle": np.angle(y),
        "stft": np.concatenate([np.real(y), np.imag(y)], axis=2),
    }[mode]
    last = data_format == "channels_last"
    given = x if last else x.transpose(0, 2, 1)
    layer = layers.STFTSpectrogram(mode, 12, 5, periodic=False, expand_dims=True, data_format=data_format, name="s")
    layer.window, layer.periodic = "hann", True
    received = run(layer, given)
    received = received if last else received.transpose(0, 2, 3, 1)
    if mode == "angle":  # the same angle on both sides of the cut
        np.testing.assert_allclose(np.exp(1j * received)[:, :, 1:-1], np.exp(1j * expected)[:, :, 1:-1], atol=1e-3)
    else:
        np.testing.assert_allclose(received, expected, rtol=1e-3, atol=2e-5)


def test_stft_spectrogram_joins_channels_and_frequencies(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 40, 2)).astype(np.float32)
    apart = run(layers.STFTSpectrogram("real", 8, 3, expand_dims=True), x)
    joined = run(layers.STFTSpectrogram("real", 8, 3), x)
    np.testing.assert_array_equal(joined, apart.transpose(0, 1, 3, 2).reshape(2, apart.shape[1], -1))


@pytest.mark.parametrize("mag_exp", [1.0, 1.5, 2.0])
def test_mel_spectrogram_sums_triangles_of_power(mag_exp: float, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 100)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (8, 8)), mode="reflect")
    weights = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(12) / 12), 2)
    power = np.abs(spectra(padded, 16, 5, 16, weights)) ** mag_exp

    def mel(f: float) -> float:
        return 2595 * np.log10(1 + f / 700)

    edges = np.linspace(mel(100), mel(4000), 6)
    bands = np.zeros((9, 4))
    for i in range(1, 9):
        for band in range(4):
            low, centre, high = edges[band : band + 3]
            m = mel(i * 1000)
            bands[i, band] = max(0.0, min((m - low) / (centre - low), (high - m) / (high - centre)))
    expected = np.swapaxes(power @ bands, 1, 2)
    arguments: dict[str, Any] = {"sampling_rate": 16000, "num_mel_bins": 4, "min_freq": 100.0, "max_freq": 4000.0}
    layer = layers.MelSpectrogram(16, 5, 12, mag_exp=mag_exp, power_to_db=False, **arguments)
    np.testing.assert_allclose(run(layer, x), expected, rtol=1e-4, atol=1e-4)
    levels = 10 * np.log10(np.maximum(expected, 1e-10)) - 10 * np.log10(4.0)
    levels = np.maximum(levels, levels.max() - 15)
    decibels = layers.MelSpectrogram(16, 5, 12, mag_exp=mag_exp, ref_power=4.0, top_db=15.0, **arguments)
    np.testing.assert_allclose(run(decibels, x), levels, rtol=1e-4, atol=1e-4)


def test_a_mel_spectrogram_without_a_window_takes_all_points(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 100)).astype(np.float32)
    short, whole = (layers.MelSpectrogram(16, 5, length, None, num_mel_bins=4) for length in (12, 16))
    np.testing.assert_array_equal(run(short, x), run(whole, x))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("length", [1, 2, 9, 16])
def test_windows_are_symmetric_and_peak_in_the_middle(name: str, length: int) -> None:
    values = window(name, length, periodic=False)
    assert values.shape == (length,)
    np.testing.assert_allclose(values, values[::-1], atol=1e-12)
    assert values.max() == pytest.approx(values[length // 2], abs=1e-12)
    np.testing.assert_allclose(window(name, length, periodic=True)[1:], window(name, length + 1, periodic=False)[1:-1])


def test_spectrogram_arguments_are_checked() -> None:
    assert error_of(ModelError, lambda: layers.STFTSpectrogram(frame_length=8, frame_step=9, name="s")) == (
        "`frame_step` of layer `s` must be an integer from 1 to frame_length=8. Received: frame_step=9."
    )
    assert error_of(ModelError, lambda: layers.MelSpectrogram(fft_length=8, sequence_length=9, name="m")) == (
        "`sequence_length` of layer `m` must be at most 8. Received: sequence_length=9."
    )
    law = "`window` of layer `m` must be a name or 8 numbers."
    assert error_of(ModelError, lambda: layers.MelSpectrogram(8, window=[1.0], name="m")).startswith(law)


@pytest.mark.parametrize("target", ["onnx", "tvm"])
def test_spectrograms_compile(target: str, tmp_path: Path) -> None:
    stft = [kcompile.Input((None, 2)), layers.STFTSpectrogram("angle", 8, 3)]
    # Bands between two frequencies are silent, so that `top_db` counts.
    mel = [kcompile.Input((None,)), layers.MelSpectrogram(16, 5, num_mel_bins=20)]
    for model in (kcompile.Sequential(stft), kcompile.Sequential(mel)):
        kcompile.compile(model, target, tmp_path / "model.kcb")
    with pytest.raises(InputError, match="must be at least 9"):
        kcompile.load(tmp_path / "model.kcb").predict(np.zeros((1, 8), np.float32))


def test_rows_that_share_the_loudest_place_are_not_split(rng: np.random.Generator, tmp_path: Path) -> None:
    model = kcompile.Sequential([kcompile.Input((40,)), layers.MelSpectrogram(16, 5, num_mel_bins=4, top_db=10.0)])
    x = rng.standard_normal((3, 40)).astype(np.float32)
    x[0] *= 1e3
    kcompile.compile(model, "onnx", tmp_path / "model.onnx")
    together = kcompile.load(tmp_path / "model.onnx").predict(x, batch_size=1)
    assert (together[1:] == together.max() - 10).all()
