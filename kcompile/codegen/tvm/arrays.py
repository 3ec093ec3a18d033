"""What a kernel reads and writes: arrays in memory, and variables in registers."""

from typing import TYPE_CHECKING, Any

from kcompile.codegen.tvm.compiler import tirx
from kcompile.codegen.tvm.expr import Expr, Index, index

if TYPE_CHECKING:
    from kcompile.codegen.tvm.tir import Function


class Pointer:
    """An array of `dtype` somewhere in memory, whose elements are stored as `stored`: bool ones as bytes."""

    def __init__(self, function: "Function", buffer: Any, dtype: str, stored: str) -> None:
        self._function = function
        self._buffer = buffer
        self.dtype = dtype
        self._stored = stored

    def load(self, offset: Index, lanes: int = 1) -> Expr:
        """`lanes` neighbouring elements from `offset` on, as they are now."""
        value = Expr(tirx.BufferLoad(self._buffer, [_ramp(offset, lanes)]), self._stored, lanes)
        loaded = self._function.bind(value)
        if self.dtype == "bool":
            return loaded.differs(0)
        return _widened(loaded) if self._stored == "uint16" and self.dtype == "float32" else loaded.cast(self.dtype)

    def prefetch(self, offset: Index) -> None:
        """Have the cache line of an element, which need not exist, brought to the second-level cache.

        Machines without vectors have no such cache as a rule, and would spend an instruction per element on it.
        """
        if self._function.machine.lanes == 1:
            return
        place = tirx.address_of(tirx.BufferLoad(self._buffer, [index(offset).node]))
        # A read (0), of data (1) that is used soon, but not at once (2 of 3).
        flags = [tirx.const(flag, "int32") for flag in (0, 2, 1)]
        self._function.emit(tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", place, *flags)))

    def store(self, offset: Index, value: Expr) -> None:
        """Write `value` from `offset` on."""
        if value.dtype != self.dtype:
            raise TypeError(f"the array holds {self.dtype}. Received: {value.dtype}")
        stored = value.cast("uint8") if self.dtype == "bool" else value
        self._function.emit(tirx.BufferStore(self._buffer, stored.node, [_ramp(offset, value.lanes)]))


class Accumulators:
    """Variables of `lanes` elements, held in registers: indices are Python integers."""

    def __init__(self, function: "Function", buffer: Any, dtype: str, lanes: int) -> None:
        self._function = function
        self._buffer = buffer
        self._dtype = dtype
        self._lanes = lanes

    def __getitem__(self, i: int) -> Expr:
        return self._function.bind(self._read(i))

    def __setitem__(self, i: int, value: Expr) -> None:
        stored = value.broadcast(self._lanes)
        if stored.dtype != self._dtype:
            raise TypeError(f"the variable holds {self._dtype}. Received: {stored.dtype}")
        self._function.emit(tirx.BufferStore(self._buffer, stored.node, [tirx.const(i, "int32")]))

    def add(self, i: int, value: Expr) -> None:
        """``self[i] += value``; a product becomes a fused multiply-add where the machine has one."""
        self[i] = self._read(i) + value

    def _read(self, i: int) -> Expr:
        return Expr(tirx.BufferLoad(self._buffer, [tirx.const(i, "int32")]), self._dtype, self._lanes)


def _widened(half: Expr) -> Expr:
    """The float32 of the bits of a finite float16: exponents have another bias, which a multiplication corrects."""
    bits = half.cast("int32")
    size = ((bits & 0x7FFF) << 13).bits("float32") * 2.0**112
    return (size.bits("int32") | ((bits & 0x8000) << 16)).bits("float32")


def _ramp(offset: Index, lanes: int) -> Any:
    start = index(offset).node
    return start if lanes == 1 else tirx.Ramp(start, tirx.const(1, "int32"), lanes)
