"""The time loop of recurrent layers, for projected inputs.

Hidden units are cut into vectors, and the elements of all gates of one vector of units stand side by side ("cells"), in
the projected inputs and in the packed weights. One step multiplies the last output with a panel of a few cells at a
time, so that all gates of a unit are complete in registers when the activations are applied. Rows of the batch are
independent; a tile of rows shares each weight that is loaded. States of the running tile stay in a scratch array that
each thread has for itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_min, select
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Accumulators, Function, Kernel, Pointer, split
from kcompile.codegen.tvm.vector import apply
from kcompile.ir.dims import Dim
from kcompile.ir.op import Op

Cell: TypeAlias = Literal["simple", "lstm", "gru", "gru_reset_before"]

# Gates whose products with the last output are summed together, by phase of a step. The candidate of a GRU that resets
# before the product has to wait for the reset gate.
PHASES: dict[Cell, tuple[tuple[int, ...], ...]] = {
    "simple": ((0,),),
    "lstm": ((0, 1, 2, 3),),
    "gru": ((0, 1, 2),),
    "gru_reset_before": ((0, 1), (2,)),
}
_MOST_CELLS = 16
_MOST_ROWS = 8


@dataclass(frozen=True)
class Tiling:
    """How units and rows are cut.

    Attributes:
        lanes: units per vector; the last vector may reach beyond the units.
        panels: for each phase, the most cells that one row handles per pass.
        rows: rows of the batch that share the weights that are loaded.
    """

    hidden: int
    lanes: int
    panels: tuple[int, ...]
    rows: int

    @property
    def vectors(self) -> int:
        """Vectors of units."""
        return -(-self.hidden // self.lanes)

    @property
    def padded(self) -> int:
        """Units with those that fill the last vector."""
        return self.vectors * self.lanes

    def passes(self, phase: int) -> list[tuple[int, int]]:
        """``(first, cells)`` of each panel."""
        size = self.panels[phase]
        return [(first, min(size, self.vectors - first)) for first in range(0, self.vectors, size)]


def tiling(machine: Machine, cell: Cell, hidden: int, batch: Dim) -> Tiling:
    """Panels and row tiles whose sums fit the registers."""
    lanes = min(machine.lanes, 1 << (hidden - 1).bit_length())
    vectors = -(-hidden // lanes)
    most = [min((machine.registers - 4) // len(gates), _MOST_CELLS) for gates in PHASES[cell]]
    panels = tuple(-(-vectors // -(-vectors // cells)) for cells in most)
    loaded = max(len(gates) * _tile_cells(len(gates)) for gates in PHASES[cell])
    rows = min((machine.registers - 2 - loaded) // loaded, _MOST_ROWS)
    if isinstance(batch, int):
        rows = -(-batch // -(-batch // rows)) if batch else 1
    return Tiling(hidden, lanes, panels, rows)


def _tile_cells(gates: int) -> int:
    """Cells that a tile of several rows handles at once."""
    return max(1, 4 // gates)


@dataclass(frozen=True)
class Recurrence(Kernel, family="recurrence"):
    """All steps of a recurrent layer.

    Arguments: the projected inputs ``[batch, steps, vectors, gates, lanes]`` with biases, the packed recurrent weights
    of each phase, the candidate's recurrent bias ``[padded]`` of a "gru", the initial states ``[batch, hidden]``, the
    mask ``bool[batch, steps]``; then the outputs ``[batch, steps, hidden]`` if `sequence`, the last states
    ``[batch, hidden]`` that `last` asks for, and the scratch array of `scratch_size` elements per thread.
    """

    cell: Cell
    activation: Op | None
    recurrent_activation: Op | None
    tiling: Tiling
    batch: Dim
    steps: Dim
    reverse: bool
    has_initial_state: bool
    has_mask: bool
    zero_masked_output: bool
    sequence: bool
    last: tuple[bool, ...]

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return sum(map(len, PHASES[self.cell]))

    @property
    def scratch_size(self) -> int:
        """Per row: the output before and after a step, and what else a step has to keep."""
        kept = {"simple": 0, "lstm": 1, "gru": 0, "gru_reset_before": 2}[self.cell]
        return self.tiling.rows * (2 + kept) * self.tiling.padded

    def build(self, f: Function) -> None:
        loop = _TimeLoop(f, self)
        rows, batch = self.tiling.rows, f.extent(self.batch)
        with f.parallel((batch + (rows - 1)) // rows) as tile:
            first = f.name_index(tile * rows)
            if isinstance(batch, int) and batch % rows == 0:
                loop.write([f.name_index(first + row) for row in range(rows)])
                return
            # A tile that is nearly full runs as a full one, the last row several times; few rows run one by one.
            left = f.name_index(batch - first)
            with f.when(index(left) > rows // 2):
                loop.write([f.name_index(index_min(first + row, batch - 1)) for row in range(rows)])
            with f.when(index(left) <= rows // 2), f.loop(left) as row:
                loop.write([f.name_index(first + row)])


class _TimeLoop:
    """The function under construction; `write` makes the loop for some rows of the batch."""

    def __init__(self, f: Function, kernel: Recurrence) -> None:
        self.f = f
        self.k = kernel
        self.tiling = kernel.tiling
        self.steps = f.extent(kernel.steps)
        self.x = f.pointer("x")
        self.weights = [f.pointer(f"w{phase}") for phase in range(len(PHASES[kernel.cell]))]
        self.bias = f.pointer("bias") if kernel.cell == "gru" else None
        states = ("h", "c") if kernel.cell == "lstm" else ("h",)
        self.given = [f.pointer(f"{name}0") for name in states] if kernel.has_initial_state else []
        self.mask = f.pointer("mask", "bool") if kernel.has_mask else None
        self.y = f.pointer("y") if kernel.sequence else None
        self.last = [f.pointer(name) if wanted else None for name, wanted in zip(states, kernel.last, strict=True)]
        self.scratch = f.pointer("scratch")

    # ---- one tile of rows

    def write(self, rows: Sequence[Index]) -> None:
        """All steps for `rows` of the batch."""
        f, padded = self.f, self.tiling.padded
        for row, number in enumerate(rows):
            self._start(row, number)
        seen_before = f.accumulators(len(rows), 1, "int32")
        for row in range(len(rows)):
            seen_before[row] = constant(0, "int32")
        with f.loop(self.steps) as step:
            now = f.name_index(step % 2 * padded)
            t = f.name_index(self.steps - 1 - step) if self.k.reverse else step
            places = [f.name_index(number * self.steps + t) for number in rows]
            _Step(self, places, now, f.name_index(padded - now), seen_before).write()
        end = f.name_index(self.steps % 2 * padded)
        for row, number in enumerate(rows):
            for state, pointer in enumerate(self.last):
                if pointer:
                    at = self.at(row, 2, 0) if state else self.at(row, 0, 0, end)
                    self._copy(self.scratch, at, pointer, number * self.tiling.hidden)

    def _start(self, row: int, number: Index) -> None:
        """The states before the first step."""
        for state in range(len(self.last)):
            at = self.at(row, 2 * state, 0)
            for vector in range(self.tiling.vectors):
                zero = constant(0, "float32", self.tiling.lanes)
                self.scratch.store(at + vector * self.tiling.lanes, zero)
            if self.given:
                self._copy(self.given[state], number * self.tiling.hidden, self.scratch, at)

    def _copy(self, source: Pointer, begin: Index, target: Pointer, at: Index) -> None:
        begin = self.f.name_index(begin)
        for i, lanes in self.f.vectors(self.tiling.hidden):
            target.store(at + i, source.load(begin + i, lanes))

    def at(self, row: int, part: int, vector: Index, buffer: Index = 0) -> Index:
        """Where a vector of units lies in the scratch array; parts 0 and 1 hold outputs, 2 and 3 what else is kept."""
        parts = self.k.scratch_size // (self.tiling.rows * self.tiling.padded)
        return vector * self.tiling.lanes + (row * parts + part) * self.tiling.padded + buffer


class _Step:
    """One step of some rows.

    Args:
        places: the number of the step of each row among all steps of the batch.
        now, after: where the outputs before and after the step lie in a row's scratch.
        seen_before: for each row, whether a step was not masked yet.
    """

    def __init__(
        self, loop: _TimeLoop, places: Sequence[Index], now: Index, after: Index, seen_before: Accumulators
    ) -> None:
        self.loop = loop
        self.f = loop.f
        self.k = loop.k
        self.lanes = loop.tiling.lanes
        self.places = places
        self.now = now
        self.after = after
        self.seen_before = seen_before
        self.seen: list[Expr] = []

    def write(self) -> None:
        """The phases, one after another."""
        if self.loop.mask:
            for row, place in enumerate(self.places):
                self.seen.append(self.f.let(self.loop.mask.load(place)))
                self.seen_before[row] = self.seen_before[row] | self.seen[row].cast("int32")
        if self.k.cell == "gru_reset_before":
            self._phase(0, self._reset)
            self._phase(1, self._candidate)
        else:
            cells = {"simple": self._simple, "lstm": self._lstm, "gru": self._gru}
            self._phase(0, cells[self.k.cell])

    def _phase(self, phase: int, finish: Callable[[int, Index, list[Expr]], None]) -> None:
        """Sums of the phase's gates for every cell and row; `finish` takes a row, a vector of units and its gates."""
        gates = PHASES[self.k.cell][phase]
        source = (lambda row: self.loop.at(row, 3, 0)) if phase else (lambda row: self.loop.at(row, 0, 0, self.now))
        sources = [self.f.name_index(source(row)) for row in range(len(self.places))]
        for first, cells, weights, line in self._blocks(phase):
            sums = self.f.accumulators(len(self.places) * cells * len(gates), self.lanes)
            for row, cell, i, slot in self._slots(cells, len(gates)):
                sums[slot] = self._start(row, first + cell, gates[i])
            with self.f.loop(self.k.tiling.hidden) as unit:
                self._multiply(sums, cells * len(gates), sources, unit, self.loop.weights[phase], weights + unit * line)
            for row in range(len(self.places)):
                for cell in range(cells):
                    slot = (row * cells + cell) * len(gates)
                    finish(row, first + cell, [sums[slot + i] for i in range(len(gates))])

    def _blocks(self, phase: int) -> Iterator[tuple[Index, int, Index, int]]:
        """``(first cell, cells, offset of the weights, distance between their lines)`` of each pass."""
        gates = len(PHASES[self.k.cell][phase])
        size, vectors = self.k.tiling.panels[phase], self.k.tiling.vectors
        width = gates * self.lanes
        for start, cells in self.f.tiles(vectors, size):
            panel = self.f.name_index(start * (self.k.tiling.hidden * width))
            step = cells if len(self.places) == 1 else _tile_cells(gates)
            for inner, part in self.f.tiles(cells, step):
                yield start + inner, part, self.f.name_index(panel + inner * width), cells * width

    def _slots(self, cells: int, gates: int) -> Iterator[tuple[int, int, int, int]]:
        for row in range(len(self.places)):
            for cell in range(cells):
                for i in range(gates):
                    yield row, cell, i, (row * cells + cell) * gates + i

    def _start(self, row: int, vector: Index, gate: int) -> Expr:
        if self.k.cell == "gru" and gate == 2:
            assert self.loop.bias
            return self.loop.bias.load(vector * self.lanes, self.lanes)
        return self._projected(row, vector, gate)

    def _projected(self, row: int, vector: Index, gate: int) -> Expr:
        line = self.f.name_index(self.places[row] * (self.k.gates * self.k.tiling.padded))
        return self.loop.x.load(line + (vector * self.k.gates + gate) * self.lanes, self.lanes)

    def _multiply(
        self, sums: Accumulators, count: int, sources: Sequence[Index], unit: Index, weights: Pointer, at: Index
    ) -> None:
        at = self.f.name_index(at)
        loaded = [weights.load(at + i * self.lanes, self.lanes) for i in range(count)]
        for row, source in enumerate(sources):
            h = self.loop.scratch.load(source + unit)
            for i, weight in enumerate(loaded):
                sums.add(row * count + i, weight * h)

    # ---- cells: what the gates become

    def _simple(self, row: int, vector: Index, gates: list[Expr]) -> None:
        self._finish(row, vector, self._activated(self.k.activation, gates[0]))

    def _lstm(self, row: int, vector: Index, gates: list[Expr]) -> None:
        at = self.f.name_index(self.loop.at(row, 2, vector))
        before = self.loop.scratch.load(at, self.lanes)
        i, forget, o = (self._activated(self.k.recurrent_activation, gates[g]) for g in (0, 1, 3))
        c = self.f.let(forget * before + i * self._activated(self.k.activation, gates[2]))
        self.loop.scratch.store(at, select(self.seen[row], c, before) if self.seen else c)
        self._finish(row, vector, o * self._activated(self.k.activation, c))

    def _gru(self, row: int, vector: Index, gates: list[Expr]) -> None:
        z, r = (self._activated(self.k.recurrent_activation, gate) for gate in gates[:2])
        candidate = self._activated(self.k.activation, self._projected(row, vector, 2) + r * gates[2])
        self._mix(row, vector, z, candidate)

    def _reset(self, row: int, vector: Index, gates: list[Expr]) -> None:
        z, r = (self._activated(self.k.recurrent_activation, gate) for gate in gates)
        h = self.loop.scratch.load(self.loop.at(row, 0, vector, self.now), self.lanes)
        self.loop.scratch.store(self.loop.at(row, 2, vector), z)
        self.loop.scratch.store(self.loop.at(row, 3, vector), r * h)

    def _candidate(self, row: int, vector: Index, gates: list[Expr]) -> None:
        z = self.loop.scratch.load(self.loop.at(row, 2, vector), self.lanes)
        self._mix(row, vector, z, self._activated(self.k.activation, gates[0]))

    def _mix(self, row: int, vector: Index, z: Expr, candidate: Expr) -> None:
        h = self.loop.scratch.load(self.loop.at(row, 0, vector, self.now), self.lanes)
        self._finish(row, vector, z * h + (1.0 - z) * candidate)

    def _activated(self, activation: Op | None, x: Expr) -> Expr:
        return apply(self.f, activation, [x]) if activation else self.f.let(x)

    def _finish(self, row: int, vector: Index, value: Expr) -> None:
        """Keep the new output, and store what the layer gives for this step."""
        value = self.f.let(value)
        if self.seen:
            before = self.loop.scratch.load(self.loop.at(row, 0, vector, self.now), self.lanes)
            state = self.f.let(select(self.seen[row], value, before))
        else:
            state = value
        self.loop.scratch.store(self.loop.at(row, 0, vector, self.after), state)
        if self.loop.y:
            self._store(self.loop.y, row, vector, self._output(row, value, state))

    def _output(self, row: int, value: Expr, state: Expr) -> Expr:
        if not self.seen:
            return value
        if self.k.zero_masked_output:
            return self.f.let(select(self.seen[row], value, 0.0))
        # Before the first step that is not masked there is no output to repeat, though there may be a state.
        return self.f.let(select(self.seen_before[row] > 0, state, 0.0))

    def _store(self, y: Pointer, row: int, vector: Index, value: Expr) -> None:
        """The units of the vector that there are."""
        hidden, f = self.k.tiling.hidden, self.f
        at = f.name_index(self.places[row] * hidden + vector * self.lanes)
        rest = hidden % self.lanes
        if rest == 0:
            y.store(at, value)
            return
        with f.when(index(vector) < self.k.tiling.vectors - 1):
            y.store(at, value)
        with f.when(index(vector).equals(self.k.tiling.vectors - 1)):
            start = 0
            for width in split(rest, self.lanes):
                y.store(at + start, value.slice(start, width))
                start += width
