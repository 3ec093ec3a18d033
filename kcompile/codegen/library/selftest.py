"""``main.c``: a program that runs the model on the recorded inputs and compares with the recorded outputs."""

import re
from collections.abc import Iterator, Mapping
from textwrap import fill

import numpy as np

from kcompile.codegen.library.interface import C_TYPES, Interface, Port, StepInterface, c_string
from kcompile.codegen.parity import Report
from kcompile.ir.types import Array

_TEMPLATE = r"""/* The self-test of @NAME@: runs the model twice on recorded inputs, and compares with recorded outputs.
   Exits with 0 if every output is within its limit and nothing was written outside the workspace. */
#include "@NAME@.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GUARD @ALIGNMENT@

@ARRAYS@
@RESULTS@
static unsigned char memory[@MEMORY@ + 3 * GUARD];
@WEIGHTS@
static int fail(const char *what)
{
    printf("@NAME@: %s\n", what);
    return 1;
}

/* The first address in `bytes` that is a multiple of `alignment`. */
static unsigned char *aligned(unsigned char *bytes, uintptr_t alignment)
{
    return bytes + (alignment - (uintptr_t)bytes % alignment) % alignment;
}

static int is_whole(const unsigned char *guard)
{
    int i;
    for (i = 0; i < GUARD; i++) {
        if (guard[i] != 0xA5) {
            return 0;
        }
    }
    return 1;
}

static double difference(double y, double expected)
{
    if (y == expected || (isnan(y) && isnan(expected))) {
        return 0.0;
    }
    return fabs(y - expected);
}
@HALF@@STEPS@
int main(void)
{
    int run, failures = 0;
    unsigned char *guard = aligned(memory, GUARD);
    unsigned char *workspace = guard + GUARD;
    @NAME@_inputs inputs;
    @NAME@_outputs outputs;
@LOAD@
@ASSIGN@
    for (run = 0; run < 2; run++) {
        memset(guard, 0xA5, GUARD);
        memset(workspace, run == 0 ? 0xFF : 0x7F, @MACRO@_WORKSPACE_BYTES);
        memset(workspace + @MACRO@_WORKSPACE_BYTES, 0xA5, GUARD);
        if (@NAME@_run(&inputs, &outputs, @WEIGHTS_ARGUMENT@workspace) != 0) {
            return fail("the run returned an error");
        }
        if (!is_whole(guard) || !is_whole(workspace + @MACRO@_WORKSPACE_BYTES)) {
            return fail("the run wrote outside its workspace");
        }
@COMPARE@
    }
@TAKE_STEPS@
    if (failures == 0) {
        printf("@NAME@: ok\n");
    }
    return failures == 0 ? 0 : 1;
}
"""

_COMPARE = r"""        {
            double worst = 0.0;
            long i;
            for (i = 0; i < @SIZE@; i++) {
                double off = difference(@VALUE@, @EXPECTED@);
                if (!(off <= worst)) {
                    worst = off;
                }
            }
            printf("output %s is off by %.3g, where %.3g is allowed\n", @TITLE@, worst, @ALLOWED@);
            failures += !(worst <= @ALLOWED@);
        }"""

_STEPS = r"""
@STEP_ARRAYS@

/* Take the steps of the recorded sequence one by one; the number of outputs that are off. */
static int take_steps(@WEIGHTS_PARAMETER@unsigned char *guard)
{
    static @NAME@_state state;
    unsigned char *workspace = guard + GUARD;
    int failures = 0;
    long step, i;
    @NAME@_inputs inputs;
    @NAME@_outputs outputs;
    double worst[@OUTPUTS@] = {0.0};
@STEP_ASSIGN@
    memset(guard, 0xA5, GUARD);
    memset(workspace + @MACRO@_STEP_WORKSPACE_BYTES, 0xA5, GUARD);
    for (step = 0; step < @MACRO@_STEPS; step++) {
        memset(workspace, 0xFF, @MACRO@_STEP_WORKSPACE_BYTES);
@STEP_INPUTS@
        if (@NAME@_step(&inputs, &outputs, &state, @WEIGHTS_ARGUMENT@workspace) != 0) {
            return fail("a step returned an error");
        }
@STEP_COMPARE@
    }
    if (!is_whole(guard) || !is_whole(workspace + @MACRO@_STEP_WORKSPACE_BYTES)) {
        return fail("a step wrote outside its workspace");
    }
@STEP_JUDGE@
    return failures;
}
"""

_STEP_COMPARE = r"""        for (i = 0; @WHEN@i < @SIZE@; i++) {
            double off = difference(@VALUE@, @EXPECTED@);
            if (!(off <= worst[@NUMBER@])) {
                worst[@NUMBER@] = off;
            }
        }"""

_STEP_JUDGE = r"""    printf("output %s of the steps is off by %.3g, where %.3g is allowed\n",
           @TITLE@, worst[@NUMBER@], @ALLOWED@);
    failures += !(worst[@NUMBER@] <= @ALLOWED@);"""

_HALF = r"""
/* The value of IEEE 754 binary16. */
static double half(uint16_t bits)
{
    int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    double value = ldexp(exponent ? mantissa + 1024 : mantissa, (exponent ? exponent : 1) - 25);
    if (exponent == 31) {
        value = mantissa ? NAN : INFINITY;
    }
    return bits >> 15 ? -value : value;
}
"""

_LOAD = r"""    FILE *file = fopen("weights.bin", "rb");
    unsigned char *weights = aligned(weights_memory, 64);
    if (file == NULL || fread(weights, 1, @MACRO@_WEIGHTS_BYTES, file) != @MACRO@_WEIGHTS_BYTES) {
        return fail("weights.bin cannot be read");
    }
    (void)fclose(file);"""


def selftest(face: Interface, report: Report) -> str:
    """The program's text."""
    samples = report.samples
    allowed = {difference.output: difference.allowed for difference in report.differences}
    half = any(port.type.dtype == "float16" for port in face.outputs)
    parts = {
        "ARRAYS": "\n".join(
            [*_arrays("in", face.inputs, samples.inputs), *_arrays("out", face.outputs, samples.outputs)]
        ),
        "RESULTS": "\n".join(f"static {C_TYPES[p.type.dtype]} y_{p.field}[{max(p.size, 1)}];" for p in face.outputs),
        "WEIGHTS": f"static unsigned char weights_memory[{face.macro}_WEIGHTS_BYTES + 64];\n" if face.external else "",
        "HALF": _HALF if half else "",
        "LOAD": _filled(_LOAD, {"MACRO": face.macro}) if face.external else "",
        "ASSIGN": "\n".join(
            [
                *(f"    inputs.{p.field} = in_{p.field};" for p in face.inputs),
                *(f"    outputs.{p.field} = y_{p.field};" for p in face.outputs),
            ]
        ),
        "WEIGHTS_ARGUMENT": "weights, " if face.external else "",
        "MEMORY": str(max(face.workspace, face.step.workspace if face.step else 0)),
        "STEPS": "",
        "TAKE_STEPS": "",
        "COMPARE": "\n".join(_compare(port, allowed[port.name]) for port in face.outputs),
        "ALIGNMENT": str(max(face.alignment, 64)),
        "MACRO": face.macro,
        "NAME": face.name,
    }
    if face.step:
        parts["STEPS"] = _filled(_STEPS, _step_parts(face, face.step, allowed))
        parts["TAKE_STEPS"] = f"    failures += take_steps({parts['WEIGHTS_ARGUMENT']}guard);"
    return _filled(_TEMPLATE, parts)


def _step_parts(face: Interface, step: StepInterface, allowed: Mapping[str, float]) -> dict[str, str]:
    """What fills the part of the program that takes steps."""
    moving = [port for port in step.inputs if port.name in step.moving]
    arrays = [("x", port) for port in moving] + [("y", port) for port in step.outputs]
    fields = [(p, "in" if p.name not in step.moving else "step_x") for p in step.inputs]
    numbered = list(enumerate(step.outputs))
    judged = [
        {"TITLE": c_string(p.name), "NUMBER": str(n), "ALLOWED": repr(float(allowed[p.name]))} for n, p in numbered
    ]
    return {
        "NAME": face.name,
        "MACRO": face.macro,
        "OUTPUTS": str(len(step.outputs)),
        "WEIGHTS_PARAMETER": "const void *weights, " if face.external else "",
        "WEIGHTS_ARGUMENT": "weights, " if face.external else "",
        "STEP_ARRAYS": "\n".join(
            f"static {C_TYPES[p.type.dtype]} step_{kind}_{p.field}[{max(p.size, 1)}];" for kind, p in arrays
        ),
        "STEP_ASSIGN": "\n".join(
            [*(f"    inputs.{p.field} = {place}_{p.field};" for p, place in fields),
             *(f"    outputs.{p.field} = step_y_{p.field};" for p in step.outputs)]
        ),
        "STEP_INPUTS": "\n".join(
            f"        for (i = 0; i < {p.size}; i++) {{\n"
            f"            step_x_{p.field}[i] = in_{p.field}[{_place(p, step)}];\n        }}"
            for p in moving
        ),
        "STEP_COMPARE": "\n".join(_compare_step(n, p, step) for n, p in numbered),
        "STEP_JUDGE": "\n".join(_filled(_STEP_JUDGE, parts) for parts in judged),
    }  # fmt: skip


def _place(port: Port, step: StepInterface) -> str:
    """Where element `i` of a step lies in the whole sequence."""
    element = port.size // max(port.type.static_shape()[0], 1)
    return f"(i / {element} * {step.length} + step) * {element} + i % {element}"


def _compare_step(number: int, port: Port, step: StepInterface) -> str:
    moves = port.name in step.moving
    parts = {"NUMBER": str(number), "SIZE": str(port.size), "WHEN": "" if moves else f"step == {step.length - 1} && "}
    for key, text in (
        ("VALUE", f"step_y_{port.field}[i]"),
        ("EXPECTED", f"out_{port.field}[{_place(port, step) if moves else 'i'}]"),
    ):
        parts[key] = f"half({text})" if port.type.dtype == "float16" else f"(double){text}"
    return _filled(_STEP_COMPARE, parts)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with its marks replaced, and no two empty lines together."""
    text = re.sub(r"@([A-Z_]+)@", lambda mark: parts[mark[1]], template)
    return re.sub(r"\n{3,}", "\n\n", text)


def _compare(port: Port, allowed: float) -> str:
    parts = {"SIZE": str(port.size), "TITLE": c_string(port.name), "ALLOWED": repr(float(allowed))}
    for key, array in (("VALUE", "y"), ("EXPECTED", "out")):
        element = f"{array}_{port.field}[i]"
        parts[key] = f"half({element})" if port.type.dtype == "float16" else f"(double){element}"
    return _filled(_COMPARE, parts)


def _arrays(kind: str, members: tuple[Port, ...], values: Mapping[str, Array]) -> Iterator[str]:
    for port in members:
        yield words(f"static const {C_TYPES[port.type.dtype]} {kind}_{port.field}", values[port.name])


def words(declaration: str, array: Array) -> str:
    """The definition of a C array with the elements of `array`."""
    text = ", ".join(_words(array)) or "0"
    lines = fill(text, 116, initial_indent="    ", subsequent_indent="    ", break_long_words=False)
    return f"{declaration}[{max(array.size, 1)}] = {{\n{lines}\n}};"


def _words(array: Array) -> Iterator[str]:
    """The elements as C constants that are read back bit by bit (NaN apart)."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == np.float16:
        flat = flat.view(np.uint16)
    if array.dtype.kind == "f":
        suffix, digits = ("f", 9) if array.dtype == np.float32 else ("", 17)
        return (_float(float(x), suffix, digits) for x in flat)
    return (_integer(int(x)) for x in flat)


def _float(x: float, suffix: str, digits: int) -> str:
    if not np.isfinite(x):
        return "NAN" if np.isnan(x) else "INFINITY" if x > 0 else "-INFINITY"
    text = f"{x:.{digits}g}"
    return f"{text}{'' if '.' in text or 'e' in text else '.0'}{suffix}"


def _integer(x: int) -> str:
    """A constant; C has none for the smallest numbers of its types."""
    if x < -(2**31) + 1:
        return f"(-{-(x + 1)}LL - 1)"
    return f"{x}ULL" if x >= 2**63 else f"{x}LL" if x >= 2**31 else str(x)
