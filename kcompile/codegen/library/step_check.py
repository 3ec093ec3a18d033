"""The proof that a step, taken along the recorded sequence, gives what the reference gives for the whole of it."""

from collections.abc import Mapping

import numpy as np

from kcompile.codegen.library.interface import Port, StepInterface
from kcompile.codegen.parity import Report
from kcompile.errors import VerificationError
from kcompile.ir.types import Array, array_dtype
from kcompile.runtime.library import StepProgram


def verify_steps(step: StepInterface, program: StepProgram, report: Report, name: str) -> None:
    """Take every step of the recorded inputs.

    Raises:
        VerificationError: an output is off by more than a run may be.
    """
    allowed = {difference.output: difference.allowed for difference in report.differences}
    outputs = {port.name: np.empty(port.type.static_shape(), array_dtype(port.type.dtype)) for port in step.outputs}
    seen: dict[str, list[Array]] = {name: [] for name in outputs}
    for number in range(step.length):
        inputs = [_element(port, report.samples.inputs, step, number) for port in step.inputs]
        program(inputs, list(outputs.values()))
        for output, array in outputs.items():
            seen[output].append(array.copy())
    for output, arrays in seen.items():
        expected = report.samples.outputs[output]
        found = np.concatenate(arrays, 1) if output in step.moving else arrays[-1]
        off = float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
        if not off <= allowed[output]:
            law = f"the steps of {name} must give what a run gives"
            raise VerificationError(
                f"{law}. Received: output `{output}` off by {off:.3g}, allowed {allowed[output]:.3g}."
            )


def _element(port: Port, inputs: Mapping[str, Array], step: StepInterface, number: int) -> Array:
    array = inputs[port.name]
    return np.ascontiguousarray(array[:, number : number + 1] if port.name in step.moving else array)
