"""What layers compute, written as loops over single numbers: slow, plain, and sharing no code with the kernels."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Number = Callable[[float], float]


def positions(extents: Sequence[int]) -> Iterable[tuple[int, ...]]:
    return itertools.product(*(range(extent) for extent in extents))


def same_pads(extent: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's rule, from the number of results backwards."""
    results = math.ceil(extent / stride)
    needed = (results - 1) * stride + 1 + (window - 1) * dilation
    missing = max(0, needed - extent)
    return missing // 2, (missing + 1) // 2


def pads_of(
    padding: object, extents: Sequence[int], window: Sequence[int], strides: Sequence[int], rates: Sequence[int]
):
    if padding == "valid":
        return [(0, 0) for _ in window]
    if padding == "same":
        return [same_pads(*axis) for axis in zip(extents, window, strides, rates, strict=True)]
    return list(padding)  # type: ignore[call-overload]


def to_last(x: NDArray, data_format: str) -> NDArray:
    return x if data_format == "channels_last" else np.transpose(x, (0, *range(2, x.ndim), 1))


def to_format(x: NDArray, data_format: str) -> NDArray:
    return x if data_format == "channels_last" else np.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def read(x: NDArray, n: int, place: Sequence[int], c: int) -> float | None:
    """``x[n, *place, c]``; None outside the image."""
    if any(i < 0 or i >= extent for i, extent in zip(place, x.shape[1:-1], strict=True)):
        return None
    return float(x[(n, *place, c)])


def conv(x, kernel, bias, strides, padding, rates, groups, data_format):
    x = to_last(x, data_format)
    window, per_group, filters = kernel.shape[:-2], kernel.shape[-2], kernel.shape[-1]
    pads = pads_of(padding, x.shape[1:-1], window, strides, rates)
    out = [
        (extent + low + high - (size - 1) * rate - 1) // stride + 1
        for extent, (low, high), size, rate, stride in zip(x.shape[1:-1], pads, window, rates, strides, strict=True)
    ]
    y = np.zeros((x.shape[0], *out, filters), x.dtype)
    for n in range(x.shape[0]):
        for o in positions(out):
            for f in range(filters):
                total = 0.0 if bias is None else float(bias[f])
                group = f // (filters // groups)
                for w in positions(window):
                    place = [a * s + b * r - p[0] for a, s, b, r, p in zip(o, strides, w, rates, pads, strict=True)]
                    for c in range(per_group):
                        element = read(x, n, place, group * per_group + c)
                        total += 0.0 if element is None else element * float(kernel[(*w, c, f)])
                y[(n, *o, f)] = total
    return to_format(y, data_format)


def conv_transpose(x, kernel, bias, strides, padding, output_padding, rates, groups, data_format):
    x = to_last(x, data_format)
    window, per_group, channels = kernel.shape[:-2], kernel.shape[-2], kernel.shape[-1]
    full = [
        (extent - 1) * s + (size - 1) * r + 1 + extra
        for extent, s, size, r, extra in zip(x.shape[1:-1], strides, window, rates, output_padding, strict=True)
    ]
    y = np.zeros((x.shape[0], *full, per_group * groups), x.dtype)
    if bias is not None:
        y += bias
    for n in range(x.shape[0]):
        for i in positions(x.shape[1:-1]):
            for c in range(channels):
                group = c // (channels // groups)
                for w in positions(window):
                    place = [a * s + b * r for a, s, b, r in zip(i, strides, w, rates, strict=True)]
                    for f in range(per_group):
                        y[(n, *place, group * per_group + f)] += x[(n, *i, c)] * kernel[(*w, f, c)]
    crop = tuple(slice(low, extent - high) for extent, (low, high) in zip(full, padding, strict=True))
    return to_format(y[(slice(None), *crop)], data_format)


def pool(x, pool_size, strides, padding, data_format, kind):
    x = to_last(x, data_format)
    rates = [1] * len(pool_size)
    pads = pads_of(padding, x.shape[1:-1], pool_size, strides, rates)
    out = [
        (extent + low + high - size) // stride + 1
        for extent, (low, high), size, stride in zip(x.shape[1:-1], pads, pool_size, strides, strict=True)
    ]
    y = np.zeros((x.shape[0], *out, x.shape[-1]), x.dtype)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for o in positions(out):
            elements = []
            for w in positions(pool_size):
                element = read(x, n, [a * s + b - p[0] for a, s, b, p in zip(o, strides, w, pads, strict=True)], c)
                if element is not None:
                    elements.append(element)
            y[(n, *o, c)] = max(elements) if kind == "max" else sum(elements) / len(elements)
    return to_format(y, data_format)


def resize(x, size, interpolation, data_format):
    x = to_last(x, data_format)
    y = np.zeros((x.shape[0], *size, x.shape[-1]), x.dtype)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for o in positions(size):
            total = 0.0
            sides = [axis_weights(i, d, s, interpolation) for i, d, s in zip(o, x.shape[1:-1], size, strict=True)]
            for corner in itertools.product(*sides):
                total += math.prod(weight for _, weight in corner) * float(x[(n, *(i for i, _ in corner), c)])
            y[(n, *o, c)] = total
    return to_format(y, data_format)


def axis_weights(i: int, extent: int, size: int, interpolation: str) -> list[tuple[int, float]]:
    """Which elements along an axis make element `i` of the result, with their weights; in exact fractions."""
    numerator = (2 * i + 1) * extent  # of the position i + 1/2, in units of 1 / (2 * size)
    if interpolation == "nearest":
        return [(numerator // (2 * size), 1.0)]
    position = (numerator - size) / (2 * size)
    position = min(max(position, 0.0), extent - 1.0)
    low = math.floor(position)
    return [(low, 1.0 - (position - low)), (min(low + 1, extent - 1), position - low)]


# ---- sequences


def dot(row: Sequence[float], matrix: NDArray, column: int) -> float:
    return sum(float(a) * float(matrix[k, column]) for k, a in enumerate(row))


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def hard_sigmoid(x: float) -> float:
    return min(max(0.2 * x + 0.5, 0.0), 1.0)


Step = Callable[[Sequence[float], list[list[float]]], list[list[float]]]


def recurrent(x, step: Step, states, units, reverse, mask, zero_masked_output):
    """Runs `step` over the time axis of each sequence: ``step(x[n, t], states) -> states``, the output first."""
    batch, length, _ = x.shape
    outputs = np.zeros((batch, length, units), x.dtype)
    last = [np.zeros((batch, units), x.dtype) for _ in states]
    for n in range(batch):
        current = [[float(v) for v in state[n]] for state in states]
        output = [0.0] * units
        for t in reversed(range(length)) if reverse else range(length):
            if mask is None or mask[n, t]:
                current = step([float(v) for v in x[n, t]], current)
                output = current[0]
            elif zero_masked_output:
                output = [0.0] * units
            outputs[n, t] = output
        for state, numbers in zip(last, current, strict=True):
            state[n] = numbers
    return (outputs, *last)


def simple_rnn_step(kernel, recurrent_kernel, bias, activation: Number, gate: Number) -> Step:
    def step(x, states):
        (h,) = states
        return [[activation(dot(x, kernel, j) + dot(h, recurrent_kernel, j) + float(bias[j])) for j in range(len(h))]]

    return step


def lstm_step(kernel, recurrent_kernel, bias, activation: Number, gate: Number) -> Step:
    def step(x, states):
        h, c = states
        units = len(h)
        total = [dot(x, kernel, j) + dot(h, recurrent_kernel, j) + float(bias[j]) for j in range(4 * units)]
        new_c = [
            gate(total[units + j]) * c[j] + gate(total[j]) * activation(total[2 * units + j]) for j in range(units)
        ]
        return [[gate(total[3 * units + j]) * activation(new_c[j]) for j in range(units)], new_c]

    return step


def gru_step(kernel, recurrent_kernel, bias, recurrent_bias, activation: Number, gate: Number, reset_after) -> Step:
    def step(x, states):
        (h,) = states
        units = len(h)
        given = [dot(x, kernel, j) + float(bias[j]) for j in range(3 * units)]
        own = [dot(h, recurrent_kernel, j) + float(recurrent_bias[j]) for j in range(3 * units)]
        z = [gate(given[j] + own[j]) for j in range(units)]
        r = [gate(given[units + j] + own[units + j]) for j in range(units)]
        new = []
        for j in range(units):
            if reset_after:
                drive = r[j] * own[2 * units + j]
            else:
                drive = dot([r[k] * h[k] for k in range(units)], recurrent_kernel, 2 * units + j)
            new.append(z[j] * h[j] + (1.0 - z[j]) * activation(given[2 * units + j] + drive))
        return [new]

    return step


def attention(query, key, value, mask, scale, causal):
    batch, queries, heads, depth = query.shape
    keys, groups, width = value.shape[1:]
    y = np.zeros((batch, queries, heads, width), query.dtype)
    weights = np.zeros((batch, heads, queries, keys), query.dtype)
    allowed = None if mask is None else np.broadcast_to(mask, weights.shape)
    for n, q, h in itertools.product(range(batch), range(queries), range(heads)):
        g = h // (heads // groups)
        scores = []
        for k in range(keys):
            score = scale * sum(float(query[n, q, h, d]) * float(key[n, k, g, d]) for d in range(depth))
            hidden = (allowed is not None and not allowed[n, h, q, k]) or (causal and k > q)
            scores.append(-1e9 if hidden else score)
        powers = [math.exp(score - max(scores)) for score in scores]
        for k in range(keys):
            weights[n, h, q, k] = powers[k] / sum(powers)
        for d in range(width):
            y[n, q, h, d] = sum(weights[n, h, q, k] * float(value[n, k, g, d]) for k in range(keys))
    return y, weights


# ---- one element at a time


def layer_norm(x, gamma, beta, epsilon):
    inner = gamma.shape
    y = np.zeros_like(x)
    for lead in positions(x.shape[: x.ndim - gamma.ndim]):
        elements = [float(x[(*lead, *i)]) for i in positions(inner)]
        mean = sum(elements) / len(elements)
        variance = sum((element - mean) ** 2 for element in elements) / len(elements)
        for i in positions(inner):
            y[(*lead, *i)] = gamma[i] * (float(x[(*lead, *i)]) - mean) / math.sqrt(variance + epsilon) + beta[i]
    return y


def batch_norm(x, parameters, epsilon, axis):
    gamma, beta, mean, variance = parameters
    y = np.zeros_like(x)
    for i in positions(x.shape):
        c = i[axis]
        y[i] = gamma[c] * (x[i] - mean[c]) / math.sqrt(variance[c] + epsilon) + beta[c]
    return y


def softmax(x, axis):
    y = np.zeros_like(x)
    for i in positions(x.shape):
        line = [list(i) for _ in range(x.shape[axis])]
        for position, index in enumerate(line):
            index[axis] = position
        y[i] = math.exp(x[i]) / sum(math.exp(x[tuple(index)]) for index in line)
    return y


def gather(x, indices, axis):
    axis %= x.ndim
    y = np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    for i in positions(y.shape):
        before, chosen, after = i[:axis], i[axis : axis + indices.ndim], i[axis + indices.ndim :]
        row = min(max(int(indices[chosen]), 0), x.shape[axis] - 1)
        y[i] = x[(*before, row, *after)]
    return y


def slice_of(x, axis, start, stop, step):
    chosen = [i for i in range(x.shape[axis]) if start <= i < stop and (i - start) % step == 0]
    shape = list(x.shape)
    shape[axis] = len(chosen)
    y = np.zeros(shape, x.dtype)
    for i in positions(shape):
        source = list(i)
        source[axis] = chosen[i[axis]]
        y[i] = x[tuple(source)]
    return y
