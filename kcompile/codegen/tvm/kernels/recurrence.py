"""The time loop of recurrent layers, as a rule for inputs that are projected already.

Hidden units are cut into vectors, and the elements of all gates of one vector of units stand side by side ("cells"), in
the projected inputs and in the packed weights. One step multiplies the last output with a panel of a few cells at a
time, so that all gates of a unit are complete in registers when the activations are applied. Rows of the batch are
independent; a tile of rows shares each weight that is loaded. States of the running tile stay in a scratch array that
each thread has for itself.

Even steps take the panels forwards and the units backwards, odd steps the other way. A step so begins with the weights
that are still in the cache, and with the outputs that were complete first: the processor goes on with its sums while it
still computes the activations of the panel before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.expr import Expr, Index, constant, index, index_min, select
from kcompile.codegen.tvm.kernels.quotient import Quotient, activated
from kcompile.codegen.tvm.kernels.recurrence_tiling import PHASES, Cell, Tiling, tile_cells
from kcompile.codegen.tvm.tir import Function, Kernel, split
from kcompile.ir.dims import Dim
from kcompile.ir.op import Op

# Cells of one row up to which the code of their activations is repeated for each.
_WRITTEN_OUT = 2
# Gates whose activations take no more code one by one than in a loop.
_FEW_GATES = 2


@dataclass(frozen=True)
class Recurrence(Kernel, family="recurrence"):
    """All steps of a recurrent layer.

    Arguments: the projected inputs ``[batch, steps, vectors, gates, lanes]`` with biases or, where `inputs` is not 0,
    the inputs ``[1, steps, inputs]``, their weights ``[inputs, vectors, gates, lanes]`` and biases; the packed weights
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
    inputs: int = 0

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return sum(map(len, PHASES[self.cell]))

    @property
    def scratch_size(self) -> int:
        """Per row: the output before and after a step, and what else a step has to keep."""
        kept = {"simple": 0, "lstm": 1, "gru": 0, "gru_reset_before": 2}[self.cell]
        return self.tiling.rows * self.tiling.tiles * (2 + kept) * self.tiling.padded

    def build(self, f: Function) -> None:
        loop = _TimeLoop(f, self)
        rows, batch = self.tiling.rows, f.extent(self.batch)
        most = rows * self.tiling.tiles
        with f.parallel((batch + (most - 1)) // most) as unit:
            first = f.name_index(unit * most)
            if isinstance(batch, int) and batch % most == 0:
                loop.write(rows, self.tiling.tiles, lambda row: first + row)
                return
            # The last tile runs as a full one, its last row several times; where all rows are few they run one by one.
            left = f.name_index(index_min(batch - first, most))
            with f.when(index(left) > rows // 2):
                tiles = f.name_index((left + (rows - 1)) // rows)
                loop.write(rows, tiles, lambda row: index_min(first + row, batch - 1))
            with f.when(index(left) <= rows // 2), f.loop(left) as one:
                loop.write(1, 1, lambda _: first + one)


class _TimeLoop:
    """The function under construction; `write` makes the loop for some rows of the batch."""

    def __init__(self, f: Function, kernel: Recurrence) -> None:
        self.f = f
        self.k = kernel
        self.tiling = kernel.tiling
        self.steps = f.extent(kernel.steps)
        self.x = f.pointer("x")
        self.input_weights = [f.pointer(name) for name in ("kernel", "input_bias")] if kernel.inputs else []
        self.weights = [f.pointer(f"w{phase}") for phase in range(len(PHASES[kernel.cell]))]
        self.bias = f.pointer("bias") if kernel.cell == "gru" else None
        states = ("h", "c") if kernel.cell == "lstm" else ("h",)
        self.given = [f.pointer(f"{name}0") for name in states] if kernel.has_initial_state else []
        self.mask = f.pointer("mask", "bool") if kernel.has_mask else None
        self.y = f.pointer("y") if kernel.sequence else None
        self.last = [f.pointer(name) if wanted else None for name, wanted in zip(states, kernel.last, strict=True)]
        self.scratch = f.pointer("scratch")

    # ---- one tile of rows

    def write(self, rows: int, tiles: Index, number: Callable[[Index], Index]) -> None:
        """All steps for `tiles` tiles of `rows` rows of the batch; `number` says which."""
        f, padded, most = self.f, self.tiling.padded, rows * self.tiling.tiles
        numbers, seen_before = f.stack(most, "int32"), f.stack(most, "int32")
        projected = f.stack(self.k.gates * padded) if self.k.inputs else None
        count = f.name_index(tiles * rows)
        with f.loop(count) as row:
            numbers.store(row, index(number(row)))
            seen_before.store(row, constant(0, "int32"))
            self._start(row, f.name_index(numbers.load(row) * self.tiling.hidden))
        with f.loop(self.steps) as step:
            t = f.name_index(self.steps - 1 - step) if self.k.reverse else step
            places = f.stack(most, "int32")
            with f.loop(count) as row:
                places.store(row, numbers.load(row) * self.steps + t)
            if projected:
                self._project(t, projected)
            batch = _Rows(rows, tiles, most, count, places, seen_before, projected)
            odd = index(f.name_index(step % 2))
            if f.machine.compact:
                _Step(self, batch, True, f.name_index(odd * padded)).write()
            else:
                for parity in (False, True):
                    with f.when(odd.equals(int(parity))):
                        _Step(self, batch, parity, padded * parity).write()
        end = f.name_index(self.steps % 2 * padded)
        with f.loop(count) as row:
            target = f.name_index(numbers.load(row) * self.tiling.hidden)
            for state, pointer in enumerate(self.last):
                if pointer:
                    self._copy(self.scratch, self.at(row, 2, 0) if state else self.at(row, 0, 0, end), pointer, target)

    def _project(self, t: Index, projected: Pointer) -> None:
        """The inputs of step `t` of the one row, times their weights."""
        f, gates, lanes, width = self.f, self.k.gates, self.tiling.lanes, self.k.gates * self.tiling.padded
        weights, bias = self.input_weights
        first = f.name_index(t * self.k.inputs)
        with f.loop(self.tiling.vectors) as vector:
            places = [f.name_index((vector * gates + gate) * lanes) for gate in range(gates)]
            sums = f.accumulators(gates, lanes)
            for gate, place in enumerate(places):
                sums[gate] = bias.load(place, lanes)
            with f.loop(self.k.inputs) as i:
                x, line = self.x.load(first + i), f.name_index(i * width)
                for gate, place in enumerate(places):
                    sums.add(gate, weights.load(line + place, lanes) * x)
            for gate, place in enumerate(places):
                projected.store(place, sums[gate])

    def _start(self, row: Index, source: Index) -> None:
        """The states before the first step."""
        for state in range(len(self.last)):
            at = self.at(row, 2 * state, 0)
            with self.f.loop(self.tiling.vectors) as vector:
                self.scratch.store(at + vector * self.tiling.lanes, constant(0, "float32", self.tiling.lanes))
            if self.given:
                self._copy(self.given[state], source, self.scratch, at)

    def _copy(self, source: Pointer, begin: Index, target: Pointer, at: Index) -> None:
        for i, lanes in self.f.vectors(self.tiling.hidden):
            target.store(at + i, source.load(begin + i, lanes))

    def at(self, row: Index, part: int, vector: Index, buffer: Index = 0) -> Index:
        """Where a vector of units lies in the scratch array; parts 0 and 1 hold outputs, 2 and 3 what else is kept."""
        parts = self.k.scratch_size // (self.tiling.rows * self.tiling.tiles * self.tiling.padded)
        place = (row * parts + part) * self.tiling.padded + buffer
        return self.f.name_index(place + vector * self.tiling.lanes)


@dataclass(frozen=True)
class _Rows:
    """The rows that a unit handles.

    Attributes:
        rows, tiles: rows of a tile, and how many tiles there are.
        most, count: rows of all tiles, at most and now.
        places: the number of the step of each row among all steps of the batch.
        seen_before: for each row, 1 once a step was not masked.
        projected: the inputs of the step of the one row, where they are projected step by step.
    """

    rows: int
    tiles: Index
    most: int
    count: Index
    places: Pointer
    seen_before: Pointer
    projected: Pointer | None = None


class _Step:
    """An even or odd step of some rows; `now` and `after` say where a row's scratch holds the outputs around it.

    Odd ones run through the weights in the other direction, as the last ones of a step are still in the cache.
    """

    def __init__(self, loop: _TimeLoop, batch: _Rows, odd: bool, now: Index) -> None:
        self.loop = loop
        self.f = loop.f
        self.k = loop.k
        self.lanes = loop.tiling.lanes
        self.batch = batch
        self.odd = odd
        self.now, self.after = now, loop.f.name_index(loop.tiling.padded - now)
        self.seen = loop.f.stack(batch.most, "int32") if loop.mask else None

    def write(self) -> None:
        """The phases, one after another."""
        if self.loop.mask and self.seen:
            with self.f.loop(self.batch.count) as row:
                seen = self.f.let(self.loop.mask.load(self.batch.places.load(row)).cast("int32"))
                self.seen.store(row, seen)
                self.batch.seen_before.store(row, self.batch.seen_before.load(row) | seen)
        if self.k.cell == "gru_reset_before":
            self._phase(0, self._reset)
            self._phase(1, self._candidate)
        else:
            cells = {"simple": self._simple, "lstm": self._lstm, "gru": self._gru}
            self._phase(0, cells[self.k.cell])

    def _phase(self, phase: int, finish: Callable[[Index, Index, list[Expr]], None]) -> None:
        """Sums of the phase's gates for every cell and row; `finish` takes a row, a vector of units and its gates.

        What the products are added to comes last, as sums of small terms lose less; but first where
        memory is scarce.
        """
        f, gates, rows, early = self.f, PHASES[self.k.cell][phase], self.batch.rows, not self.f.machine.threaded
        chains = self.k.tiling.chains[phase] if rows == 1 else 1
        for first, cells, weights, line in self._blocks(phase):
            with f.loop(self.batch.tiles) as tile:
                width = cells * len(gates)
                starts = [
                    self._start(tile * rows + i // width, first + i % width // len(gates), gates[i % len(gates)])
                    for i in range(rows * width)
                ]
                sums = f.accumulators(rows * width * chains, self.lanes)
                for i in range(rows * width * chains):
                    sums[i] = starts[i] if early and i < rows * width else constant(0, "float32", self.lanes)
                self._multiply(sums, width, tile, phase, weights, line)
                totals = [sums[i] for i in range(rows * width)]
                for chain in range(1, chains):
                    totals = [f.let(total + sums[chain * width + i]) for i, total in enumerate(totals)]
                if not early:
                    totals = [f.let(total + start) for total, start in zip(totals, starts, strict=True)]
                self._finish_all(totals, tile, first, cells, finish)

    def _multiply(self, sums: Accumulators, width: int, tile: Index, phase: int, weights: Index, line: int) -> None:
        """Add the products of all units' last outputs with a panel, `width` vectors of which the sums need."""
        f, rows, hidden = self.f, self.batch.rows, self.k.tiling.hidden
        chains = self.k.tiling.chains[phase] if rows == 1 else 1
        part, buffer = (3, 0) if phase else (0, self.now)
        sources = [self.loop.at(tile * rows + row, part, 0, buffer) for row in range(rows)]

        def add(unit: Index, chain: int) -> None:
            at = f.name_index(weights + unit * line)
            loaded = [self.loop.weights[phase].load(at + i * self.lanes, self.lanes) for i in range(width)]
            for row, source in enumerate(sources):
                h = self.loop.scratch.load(source + unit)
                for i, weight in enumerate(loaded):
                    sums.add((row + chain) * width + i, weight * h)

        for start, count in f.tiles(hidden, chains):
            for chain in range(count):
                unit = start + chain
                add(f.name_index(unit if self.odd else hidden - 1 - unit), chain)

    def _finish_all(
        self,
        sums: list[Expr],
        tile: Index,
        first: Index,
        cells: int,
        finish: Callable[[Index, Index, list[Expr]], None],
    ) -> None:
        """Activations are long; so where they are many, their code stands once, in a loop over sums in memory."""
        rows = self.batch.rows
        slots = rows * cells
        gates = len(sums) // slots
        if rows == 1 and cells <= _WRITTEN_OUT:
            for cell in range(cells):
                finish(tile, first + cell, sums[cell * gates : (cell + 1) * gates])
            return
        parked = self.f.stack(slots * gates * self.lanes)
        for slot in range(slots * gates):
            parked.store(slot * self.lanes, sums[slot])
        with self.f.loop(rows) as row, self.f.loop(cells) as cell:
            at = self.f.name_index((row * cells + cell) * (gates * self.lanes))
            values = [parked.load(at + gate * self.lanes, self.lanes) for gate in range(gates)]
            finish(self.f.name_index(tile * rows + row), first + cell, values)

    def _blocks(self, phase: int) -> Iterator[tuple[Index, int, Index, int]]:
        """``(first cell, cells, offset of the weights, distance between their lines)`` of each pass."""
        gates = len(PHASES[self.k.cell][phase])
        width = gates * self.lanes
        for start, cells in self._panels(phase):
            panel = self.f.name_index(start * (self.k.tiling.hidden * width))
            step = cells if self.batch.rows == 1 else tile_cells(gates)
            for inner, part in self.f.tiles(cells, step):
                yield start + inner, part, self.f.name_index(panel + inner * width), cells * width

    def _panels(self, phase: int) -> Iterator[tuple[Index, int]]:
        """``(first cell, cells)`` of each panel, the last one first in odd steps."""
        size, vectors = self.k.tiling.panels[phase], self.k.tiling.vectors
        full, rest = divmod(vectors, size)
        if rest and self.odd:
            yield full * size, rest
        with self.f.loop(full) as i:
            yield self.f.name_index((full - 1 - i if self.odd else i) * size), size
        if rest and not self.odd:
            yield full * size, rest

    def _start(self, row: Index, vector: Index, gate: int) -> Expr:
        if self.k.cell == "gru" and gate == 2:
            assert self.loop.bias
            return self.loop.bias.load(vector * self.lanes, self.lanes)
        return self._projected(row, vector, gate)

    def _projected(self, row: Index, vector: Index, gate: int) -> Expr:
        if self.batch.projected:
            return self.batch.projected.load((vector * self.k.gates + gate) * self.lanes, self.lanes)
        line = self.f.name_index(self.batch.places.load(row) * (self.k.gates * self.k.tiling.padded))
        return self.loop.x.load(line + (vector * self.k.gates + gate) * self.lanes, self.lanes)

    # ---- cells: what the gates become

    def _simple(self, row: Index, vector: Index, gates: list[Expr]) -> None:
        self._finish(row, vector, self._activation(gates[0]).value)

    def _lstm(self, row: Index, vector: Index, gates: list[Expr]) -> None:
        at = self.loop.at(row, 2, vector)
        before = self.loop.scratch.load(at, self.lanes)
        i, forget, o = self._gates([gates[g] for g in (0, 1, 3)])
        c = self.f.let((forget * before).value + (i * self._activation(gates[2])).value)
        self.loop.scratch.store(at, select(self._is_seen(row), c, before) if self.seen else c)
        self._finish(row, vector, (o * self._activation(c)).value)

    def _gru(self, row: Index, vector: Index, gates: list[Expr]) -> None:
        z, r = self._gates(gates[:2])
        candidate = self._activation(self._projected(row, vector, 2) + (r * gates[2]).value)
        self._mix(row, vector, z, candidate.value)

    def _reset(self, row: Index, vector: Index, gates: list[Expr]) -> None:
        z, r = self._gates(gates)
        self.loop.scratch.store(self.loop.at(row, 2, vector), z.value)
        self.loop.scratch.store(self.loop.at(row, 3, vector), (r * self._before(row, vector)).value)

    def _candidate(self, row: Index, vector: Index, gates: list[Expr]) -> None:
        z = self.loop.scratch.load(self.loop.at(row, 2, vector), self.lanes)
        self._mix(row, vector, Quotient(self.f, z), self._activation(gates[0]).value)

    def _mix(self, row: Index, vector: Index, z: Quotient, candidate: Expr) -> None:
        """``z * before + (1 - z) * candidate``."""
        self._finish(row, vector, (z * (self._before(row, vector) - candidate)).value + candidate)

    def _before(self, row: Index, vector: Index) -> Expr:
        return self.loop.scratch.load(self.loop.at(row, 0, vector, self.now), self.lanes)

    def _gate(self, x: Expr) -> Quotient:
        return activated(self.f, self.k.recurrent_activation, x)

    def _gates(self, values: Sequence[Expr]) -> list[Quotient]:
        """The gates; of many, compact code has the activation once, in a loop over sums in memory."""
        f, lanes = self.f, self.lanes
        if not f.machine.compact or len(values) <= _FEW_GATES:
            return [self._gate(x) for x in values]
        kept = f.stack(len(values) * lanes)
        for number, x in enumerate(values):
            kept.store(number * lanes, x)
        with f.loop(len(values)) as number:
            at = f.name_index(number * lanes)
            kept.store(at, self._gate(kept.load(at, lanes)).value)
        return [Quotient(f, kept.load(number * lanes, lanes)) for number in range(len(values))]

    def _activation(self, x: Expr) -> Quotient:
        return activated(self.f, self.k.activation, x)

    def _is_seen(self, row: Index) -> Expr:
        assert self.seen
        return self.seen.load(row) > 0

    def _finish(self, row: Index, vector: Index, value: Expr) -> None:
        """Keep the new output, and store what the layer gives for this step."""
        value = self.f.let(value)
        state = self.f.let(select(self._is_seen(row), value, self._before(row, vector))) if self.seen else value
        self.loop.scratch.store(self.loop.at(row, 0, vector, self.after), state)
        if self.loop.y:
            self._store(self.loop.y, row, vector, self._output(row, value, state))

    def _output(self, row: Index, value: Expr, state: Expr) -> Expr:
        if not self.seen:
            return value
        if self.k.zero_masked_output:
            return self.f.let(select(self._is_seen(row), value, 0.0))
        # Before the first step that is not masked there is no output to repeat, though there may be a state.
        return self.f.let(select(self.batch.seen_before.load(row) > 0, state, 0.0))

    def _store(self, y: Pointer, row: Index, vector: Index, value: Expr) -> None:
        """The units of the vector that there are."""
        hidden, f = self.k.tiling.hidden, self.f
        at = f.name_index(self.batch.places.load(row) * hidden + vector * self.lanes)
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
