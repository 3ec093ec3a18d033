"""64-bit hashes of bytes, as TensorFlow and with it Keras's layers compute them.

`fingerprint` is FarmHash's Fingerprint64 (G. Pike, https://github.com/google/farmhash, namespace farmhashna), which
never changes; `siphash` is SipHash-2-4 (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF");
`concatenated` is TensorFlow's FingerprintCat64 (tensorflow/core/platform/fingerprint.h).
"""

_MASK = (1 << 64) - 1

# Primes between 2^63 and 2^64.
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_CAT = 0xC6A4A7935BD1E995


def fingerprint(data: bytes) -> int:
    """FarmHash's Fingerprint64."""
    if len(data) <= 16:
        return _up_to_16(data)
    if len(data) <= 32:
        return _up_to_32(data)
    return _up_to_64(data) if len(data) <= 64 else _longer(data)


def concatenated(first: int, second: int) -> int:
    """One fingerprint of two, in that order."""
    result = first ^ _CAT ^ (_shift_mix(second * _CAT & _MASK) * _CAT & _MASK)
    return _shift_mix(_shift_mix(result * _CAT & _MASK) * _CAT & _MASK)


def siphash(key: tuple[int, int], data: bytes) -> int:
    """SipHash-2-4 under a key of two 64-bit numbers."""
    k0, k1 = (part & _MASK for part in key)
    state = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for start in range(0, len(padded), 8):
        word = _word(padded, start)
        v0, v1, v2, v3 = _rounds((*state[:3], state[3] ^ word), 2)
        state = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = _rounds((state[0], state[1], state[2] ^ 0xFF, state[3]), 4)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(state: tuple[int, int, int, int], count: int) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = state
    for _ in range(count):
        v0, v2 = (v0 + v1) & _MASK, (v2 + v3) & _MASK
        v1, v3 = _left(v1, 13) ^ v0, _left(v3, 16) ^ v2
        v0, v2 = _left(v0, 32), (v2 + v1) & _MASK
        v0, v1 = (v0 + v3) & _MASK, _left(v1, 17) ^ v2
        v3, v2 = _left(v3, 21) ^ v0, _left(v2, 32)
    return v0, v1, v2, v3


def _left(x: int, count: int) -> int:
    return (x << count | x >> (64 - count)) & _MASK


def _right(x: int, count: int) -> int:
    return _left(x, 64 - count)


def _word(data: bytes, start: int, size: int = 8) -> int:
    """`size` bytes from `start` on, low ones first; a negative start counts from the end."""
    start = start if start >= 0 else len(data) + start
    return int.from_bytes(data[start : start + size], "little")


def _shift_mix(x: int) -> int:
    return x ^ x >> 47


def _hash_16(u: int, v: int, multiplier: int) -> int:
    a = (u ^ v) * multiplier & _MASK
    b = (v ^ _shift_mix(a)) * multiplier & _MASK
    return _shift_mix(b) * multiplier & _MASK


def _up_to_16(data: bytes) -> int:
    size = len(data)
    if size >= 8:
        multiplier = _K2 + size * 2
        a, b = (_word(data, 0) + _K2) & _MASK, _word(data, -8)
        c = (_right(b, 37) * multiplier + a) & _MASK
        d = (_right(a, 25) + b) * multiplier & _MASK
        return _hash_16(c, d, multiplier)
    if size >= 4:
        return _hash_16(size + (_word(data, 0, 4) << 3), _word(data, -4, 4), _K2 + size * 2)
    if not size:
        return _K2
    y, z = data[0] + (data[size >> 1] << 8), size + (data[-1] << 2)
    return _shift_mix(y * _K2 & _MASK ^ z * _K0 & _MASK) * _K2 & _MASK


def _up_to_32(data: bytes) -> int:
    multiplier = _K2 + len(data) * 2
    a, b = _word(data, 0) * _K1 & _MASK, _word(data, 8)
    c, d = _word(data, -8) * multiplier & _MASK, _word(data, -16) * _K2 & _MASK
    first = _right(a + b & _MASK, 43) + _right(c, 30) + d
    second = a + _right(b + _K2 & _MASK, 18) + c
    return _hash_16(first & _MASK, second & _MASK, multiplier)


def _up_to_64(data: bytes) -> int:
    multiplier = _K2 + len(data) * 2
    a, b = _word(data, 0) * _K2 & _MASK, _word(data, 8)
    c, d = _word(data, -8) * multiplier & _MASK, _word(data, -16) * _K2 & _MASK
    y = (_right(a + b & _MASK, 43) + _right(c, 30) + d) & _MASK
    z = _hash_16(y, (a + _right(b + _K2 & _MASK, 18) + c) & _MASK, multiplier)
    e, f = _word(data, 16) * multiplier & _MASK, _word(data, 24)
    g, h = (y + _word(data, -32)) * multiplier & _MASK, (z + _word(data, -24)) * multiplier & _MASK
    first = _right(e + f & _MASK, 43) + _right(g, 30) + h
    second = e + _right(f + a & _MASK, 18) + g
    return _hash_16(first & _MASK, second & _MASK, multiplier)


def _weak_32(data: bytes, start: int, a: int, b: int) -> tuple[int, int]:
    """A pair of hashes of 32 bytes and two seeds."""
    w, x, y, z = (_word(data, start + offset) for offset in (0, 8, 16, 24))
    a = (a + w) & _MASK
    b = _right(b + a + z & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    return (a + z) & _MASK, (b + _right(a, 44) + c) & _MASK


def _longer(data: bytes) -> int:
    x, y = 81, (81 * _K1 + 113) & _MASK
    z = _shift_mix((y * _K2 + 113) & _MASK) * _K2 & _MASK
    v, w = (0, 0), (0, 0)
    x = (x * _K2 + _word(data, 0)) & _MASK
    last = (len(data) - 1) // 64 * 64
    for start in range(0, last, 64):
        x = _right((x + y + v[0] + _word(data, start + 8)) & _MASK, 37) * _K1 & _MASK
        y = _right((y + v[1] + _word(data, start + 48)) & _MASK, 42) * _K1 & _MASK
        x ^= w[1]
        y = (y + v[0] + _word(data, start + 40)) & _MASK
        z = _right(z + w[0] & _MASK, 33) * _K1 & _MASK
        v = _weak_32(data, start, v[1] * _K1 & _MASK, x + w[0] & _MASK)
        w = _weak_32(data, start + 32, z + w[1] & _MASK, y + _word(data, start + 16) & _MASK)
        z, x = x, z
    return _last_64(data, x, y, z, v, w)


def _last_64(data: bytes, x: int, y: int, z: int, v: tuple[int, int], w: tuple[int, int]) -> int:
    """The end of a long text: its last 64 bytes, whether or not some were read before."""
    multiplier = (_K1 + ((z & 0xFF) << 1)) & _MASK
    start = len(data) - 64
    w = ((w[0] + ((len(data) - 1) & 63)) & _MASK, w[1])
    v = ((v[0] + w[0]) & _MASK, v[1])
    w = ((w[0] + v[0]) & _MASK, w[1])
    x = _right((x + y + v[0] + _word(data, start + 8)) & _MASK, 37) * multiplier & _MASK
    y = _right((y + v[1] + _word(data, start + 48)) & _MASK, 42) * multiplier & _MASK
    x ^= w[1] * 9 & _MASK
    y = (y + v[0] * 9 + _word(data, start + 40)) & _MASK
    z = _right(z + w[0] & _MASK, 33) * multiplier & _MASK
    v = _weak_32(data, start, v[1] * multiplier & _MASK, x + w[0] & _MASK)
    w = _weak_32(data, start + 32, z + w[1] & _MASK, y + _word(data, start + 16) & _MASK)
    z, x = x, z
    first = _hash_16(v[0], w[0], multiplier) + _shift_mix(y) * _K0 + z
    second = _hash_16(v[1], w[1], multiplier) + x
    return _hash_16(first & _MASK, second & _MASK, multiplier)
