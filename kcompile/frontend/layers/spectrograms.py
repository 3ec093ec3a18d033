"""Layers that turn sound into spectra. The Fourier transform of a frame is a product with a constant matrix."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.initializers import Initializer
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.scaling import numbers
from kcompile.frontend.layers.windows import WINDOWS, window
from kcompile.frontend.layers.writing import cast, like, reshape
from kcompile.frontend.tracing import Trace
from kcompile.ir import dims, ops
from kcompile.ir.graph import Value
from kcompile.ir.types import Array

# The least power and magnitude whose root and logarithm are taken: `keras.config.epsilon()`.
_EPSILON = 1e-7
_MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")

# The mel scale of the Hidden Markov Model Toolkit: ``1127 * log(1 + f / 700)``, the logarithm a natural one.
_MEL_FACTOR, _MEL_BREAK = 1127.0, 700.0


@dataclass(frozen=True)
class _Fourier(Initializer):
    """``cos`` or ``sin`` of ``-2 pi t f / F`` times the window: ``[frame, 1, F // 2 + 1]``.

    As Keras's STFT initializer, in f32 throughout: the rounding of its angles shows in long frames.
    """

    side: str
    window: Any
    scaling: str | None
    periodic: bool

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        dtype = np.float32
        frame, _, frequencies = shape
        f = np.arange(frequencies, dtype=dtype) / np.asarray(2 * (frequencies - 1), dtype)
        angles = (np.arange(frame, dtype=dtype) * np.asarray(-2, dtype))[:, None] * f * np.asarray(np.pi, dtype)
        kernel = np.cos(angles) if self.side == "real" else np.sin(angles)
        if self.window is not None:
            given = window(self.window, frame, self.periodic) if isinstance(self.window, str) else self.window
            weights = np.asarray(given, dtype)
            kernel = kernel * weights[:, None] / self._scale(weights)
        return kernel.reshape(shape)

    def _scale(self, weights: Array) -> Array:
        if self.scaling == "density":
            return np.sqrt(np.sum(np.square(weights)))
        return np.sum(np.abs(weights)) if self.scaling == "spectrum" else weights.dtype.type(1)


@register_layer("keras>STFTSpectrogram")
@dataclass(eq=False)
class STFTSpectrogram(Layer):
    """The spectrum of overlapping frames of ``x: T[N, time, C]``, F frequencies each, by learned Fourier kernels.

    ``T[N, time', C * F]``, or ``T[N, time', F, C]`` where `expand_dims`; with channels first ``T[N, C * F, time']`` or
    ``T[N, C, time', F]``. F is ``fft_length // 2 + 1``, and twice that in mode "stft".
    """

    mode: str = "log"
    frame_length: int = 256
    frame_step: int | None = None
    fft_length: int | None = None
    window: Any = "hann"
    periodic: bool = False
    scaling: str | None = "density"
    padding: str = "valid"
    expand_dims: bool = False
    data_format: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice(self, "mode", _MODES)
        arguments.positive(self, "frame_length")
        step, points = self.frame_step, self.fft_length
        fits = step is None or (arguments.is_int(step, 1) and step <= self.frame_length)
        self.require(fits, "frame_step", f"an integer from 1 to frame_length={self.frame_length}")
        fits = points is None or arguments.is_int(points, self.frame_length)
        self.require(fits, "fft_length", f"an integer from frame_length={self.frame_length} on")
        arguments.choice(self, "scaling", ("density", "spectrum", None))
        arguments.choice(self, "padding", ("valid", "same"))
        self.data_format = arguments.data_format(self)
        self.window = _window(self, "window", WINDOWS, self.frame_length)

    @property
    def frequencies(self) -> int:
        """The number of frequencies of one frame."""
        points = self.fft_length or 2 ** math.ceil(math.log2(self.frame_length))
        return points // 2 + 1

    def build(self, *input_shapes: Any) -> None:
        arguments.rank_of(self, input_shapes[0], 3)
        for side in self._sides():
            initializer = _Fourier(side, self.window, self.scaling, self.periodic)
            self.add_weight(f"{side}_kernel", (self.frame_length, 1, self.frequencies), initializer)

    def _sides(self) -> list[str]:
        return [side for side in ("real", "imag") if self.mode not in ("real", "imag") or side == self.mode]

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        if not x.type.is_float:
            raise ModelError(f"layer `{self.name}` takes floats. Received: {x.type}.")
        last = self.data_format == "channels_last"
        x = t(ops.Transpose((0, 2, 1)), x) if last else x
        batch, channels, time = x.type.shape
        kernels = [t.weight(f"{side}_kernel") for side in self._sides()]
        kernel = t(ops.Concat(2), *kernels) if len(kernels) > 1 else kernels[0]
        frames = reshape(t, x, (dims.mul(batch, channels), time, 1))
        stride = self.frame_step or self.frame_length // 2
        y = t(ops.Conv((stride,), "same" if self.padding == "same" else "valid"), frames, kernel)
        y = self._spectrum(t, y)
        return self._arranged(t, reshape(t, y, (batch, channels, *y.type.shape[1:])), last)

    def _spectrum(self, t: Trace, y: Value) -> Value:
        """What the mode asks for, from both sides one after another along the last axis."""
        if self.mode in ("real", "imag", "stft"):
            return y
        real, imag = (_part(t, y, side * self.frequencies, self.frequencies) for side in (0, 1))
        if self.mode == "angle":
            return t(ops.Atan2(), imag, real)
        power = _power(t, real, imag)
        if self.mode == "psd":
            inner = _part(t, power, 1, max(self.frequencies - 2, 0))
            return t(ops.Add(), power, t(ops.Pad((0, 0, 1), (0, 0, 1)), inner))
        magnitude = t(ops.Sqrt(), t(ops.Maximum(), power, like(t, power, _EPSILON)))
        if self.mode == "magnitude":
            return magnitude
        return t(ops.Log(), t(ops.Maximum(), magnitude, like(t, power, _EPSILON)))

    def _arranged(self, t: Trace, y: Value, last: bool) -> Value:
        """``y: T[N, C, time, F]`` with its axes where the layer's are."""
        batch, channels, time, frequencies = y.type.shape
        if self.expand_dims:
            return t(ops.Transpose((0, 2, 3, 1)), y) if last else y
        y = t(ops.Transpose((0, 2, 1, 3) if last else (0, 1, 3, 2)), y)
        joined = dims.mul(channels, frequencies)
        return t(ops.Reshape((batch, time, joined) if last else (batch, joined, time)), y)


@register_layer("keras>MelSpectrogram")
@dataclass(eq=False)
class MelSpectrogram(Layer):
    """The power of sound in bands of the mel scale, in decibels: ``x: T[..., time] -> T[..., num_mel_bins, time']``.

    ``time' = time // sequence_stride + 1``: the sound is mirrored at its ends by half of `fft_length`. As in Keras,
    `top_db` counts from the loudest place of the whole batch.
    """

    autocast = False

    fft_length: int = 2048
    sequence_stride: int = 512
    sequence_length: int | None = None
    window: Any = "hann"
    sampling_rate: int = 16000
    num_mel_bins: int = 128
    min_freq: float = 20.0
    max_freq: float | None = None
    power_to_db: bool = True
    top_db: float = 80.0
    mag_exp: float = 2.0
    min_power: float = 1e-10
    ref_power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sequence_length = self.sequence_length or self.fft_length
        self.max_freq = self.max_freq or int(self.sampling_rate / 2)
        arguments.positive(self, "fft_length", "sequence_stride", "sequence_length", "num_mel_bins")
        self.require(self.sequence_length <= self.fft_length, "sequence_length", f"at most {self.fft_length}")
        self.window = _window(self, "window", ("hann", "hamming"), self.sequence_length)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        dtype = self.compute_dtype if self.compute_dtype == "float64" else "float32"
        x = cast(t, args[0], dtype)
        *leading, time = x.type.shape
        y = self._power(t, reshape(t, x, (dims.mul(*leading), time, 1)))
        y = t(ops.Dense(), y, t.constant(self._bands().astype(dtype)))
        y = self._decibels(t, y) if self.power_to_db else y
        y = t(ops.Transpose((0, 2, 1)), y)
        return cast(t, reshape(t, y, (*leading, *y.type.shape[1:])), self.compute_dtype)

    def _power(self, t: Trace, x: Value) -> Value:
        """The magnitudes of all frames to the power of `mag_exp`: ``x: T[M, time, 1] -> T[M, time', F]``."""
        frame, half = self._frame(), self.fft_length // 2
        before = (self.fft_length - frame) // 2
        padded = _mirrored(t, x, half)
        stop = dims.sub(padded.type.shape[1], self.fft_length - frame - before)
        framed = t(ops.Slice(1, before, stop), padded)
        y = t(ops.Conv((self.sequence_stride,)), framed, t.constant(self._kernel(before).astype(x.type.dtype)))
        frequencies = half + 1
        power = _power(t, _part(t, y, 0, frequencies), _part(t, y, frequencies, frequencies))
        if self.mag_exp == 2:
            return power
        magnitude = t(ops.Sqrt(), power)
        return magnitude if self.mag_exp == 1 else t(ops.Pow(), magnitude, like(t, power, self.mag_exp))

    def _frame(self) -> int:
        """The points that count of each `fft_length`; in all of Keras's backends, without a window all do."""
        return int(self.sequence_length or 0) if self.window is not None else self.fft_length

    def _kernel(self, before: int) -> Array:
        """Cosines and sines for the window in the middle of `fft_length` points: ``f64[window, 1, 2 * F]``."""
        frame = self._frame()
        # Whole turns are dropped, so that the angles of long frames are exact.
        turns = np.outer(np.arange(frame) + before, np.arange(self.fft_length // 2 + 1)) % self.fft_length
        angles = turns * (-2 * np.pi / self.fft_length)
        given: Any = 1.0 if self.window is None else self.window
        weights = np.asarray(window(given, frame, True) if isinstance(given, str) else given, np.float64)
        kernel = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return (kernel * np.broadcast_to(weights, (frame,))[:, None])[:, None, :]

    def _bands(self) -> Array:
        """Triangles on the mel scale, each from the middle of one neighbour to that of the other: ``f64[F, bins]``."""
        frequencies = np.linspace(0.0, self.sampling_rate / 2, self.fft_length // 2 + 1)[1:, None]
        edges = np.linspace(_mel(self.min_freq), _mel(float(self.max_freq or 0)), self.num_mel_bins + 2)
        low, centre, high = edges[:-2], edges[1:-1], edges[2:]
        mels = _mel(frequencies)
        triangles = np.minimum((mels - low) / (centre - low), (high - mels) / (high - centre))
        return np.pad(np.maximum(triangles, 0.0), ((1, 0), (0, 0)))

    def _decibels(self, t: Trace, x: Value) -> Value:
        reference = 10 * math.log10(max(abs(self.ref_power), self.min_power))
        level = t(ops.Log(), t(ops.Maximum(), x, like(t, x, self.min_power)))
        level = t(ops.Mul(), level, like(t, x, 10 / math.log(10)))
        level = t(ops.Sub(), level, like(t, x, reference))
        loudest = t(ops.ReduceMax((0, 1, 2)), level)
        return t(ops.Maximum(), level, t(ops.Sub(), loudest, like(t, x, self.top_db)))


def _mel(frequency: Any) -> Any:
    return _MEL_FACTOR * np.log1p(frequency / _MEL_BREAK)


def _mirrored(t: Trace, x: Value, width: int) -> Value:
    """``x: T[M, time, 1]`` with `width` elements mirrored at either end of the time, which must be longer."""
    time = x.type.shape[1]
    before = t(ops.Slice(1, 1, width + 1), x)
    after = t(ops.Slice(1, dims.sub(time, width + 1), dims.sub(time, 1)), x)
    return t(ops.Concat(1), t(ops.Reverse((1,)), before), x, t(ops.Reverse((1,)), after))


def _part(t: Trace, x: Value, start: int, count: int) -> Value:
    """`count` elements along the last axis from `start` on."""
    return t(ops.Slice(x.type.rank - 1, start, start + count), x)


def _power(t: Trace, real: Value, imag: Value) -> Value:
    return t(ops.Add(), t(ops.Mul(), real, real), t(ops.Mul(), imag, imag))


def _window(layer: Layer, argument: str, names: Sequence[str], length: int) -> Any:
    """A window's name, its `length` values, or None."""
    value = getattr(layer, argument)
    if value is None:
        return None
    if isinstance(value, str):
        arguments.choice(layer, argument, names)
        return value
    values = numbers(layer, argument)
    layer.require(values.shape == (length,), argument, f"a name or {length} numbers")
    return values.tolist()
