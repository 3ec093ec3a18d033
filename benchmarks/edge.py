"""Flash, RAM and instructions of C libraries on a Cortex-M7, beside other ways to get a model there.

Everything is compiled by ``arm-none-eabi-gcc``, linked and run on QEMU's MPS2 board AN500, which counts instructions
(``-icount``): the figures are the same on every machine. Flash is what linking one call adds to an empty program, with
the weights and what it needs of libm. The peers are emx-onnx-cgen (where it is installed), from kcompile's own ONNX
file, whose RAM is that of its variables and stack; and LiteRT for Microcontrollers, whose model file is converted in
the peers' environment and whose interpreter is taken at the size that its documentation states for the core, without
kernels: 16 KB (https://www.tensorflow.org/lite/microcontrollers); it converts no recurrent layers.

Two more cannot be installed from a package. onnx2c has none on PyPI, npm or in Debian. keras2c 2.0 of PyPI lacks the C
files that its output includes, and needs pydantic 1 without saying so. With TensorFlow 2.21 it converts the GRU, knows
neither depthwise convolutions nor attention, and did not come to an end within a minute on the others.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import kcompile
from benchmarks.worker import PEERS
from tests.edge.devices import BOARDS, HERE
from tests.edge.models import build

MODELS = ("mlp", "cnn", "gru", "lstm", "mobilenet_block", "transformer")
RESULTS = Path(__file__).parent / "results"
COMPILER = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"]
LITERT_CORE = 16 * 1024
# QEMU lets each instruction take 2**6 ns; the timer of the board ticks every 40 ns.
SHIFT, TICK = 6, 40

PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#define TIMER ((volatile uint32_t *)0xE000E010)
{declarations}
int main(void)
{{
    uint32_t begin, middle, end;
    TIMER[1] = 0xFFFFFF;
    TIMER[2] = 0;
    TIMER[0] = 5;
    while (TIMER[2] == 0) {{
    }}
    begin = TIMER[2];
    middle = TIMER[2];
    {call}
    end = TIMER[2];
    printf("ticks %lu\\n", (unsigned long)((middle - end) - (begin - middle)));
    return 0;
}}
"""


@dataclass(frozen=True)
class Figure:
    """What one engine takes for one model; None is what it has no figure of."""

    model: str
    engine: str
    flash: int
    ram: int | None
    instructions: int | None


def ours(model: str, folder: Path, **options: str) -> Iterator[Figure]:
    """The library of this project."""
    with zipfile.ZipFile(kcompile.compile(build(model), "tvm:cortex-m7", folder / "m.kcb", **options).path) as archive:
        archive.extractall(folder)
    memory = json.loads((folder / "manifest.json").read_text())["memory"]
    samples = np.load(folder / "samples.npz")
    arrays = [f"static {_c_type(samples['in0'])} x[{samples['in0'].size}]; static float y[{samples['out0'].size}];"]
    declarations = [
        f'#include "{model}.h"',
        *arrays,
        f"static _Alignas(8) unsigned char w[{memory['workspace_bytes']}];",
    ]
    call = f"{model}_inputs in = {{x}}; {model}_outputs out = {{y}}; {model}_run(&in, &out, w);"
    flash, instructions = measured(folder, declarations, call, [f"lib{model}.a"], ["-O2"])
    name = "kcompile, " + ", ".join(f"{key} {value}" for key, value in options.items())
    yield Figure(model, name, flash, memory["workspace_bytes"] + memory["stack_bytes"], instructions)


def emx(model: str, folder: Path) -> Iterator[Figure]:
    """emx-onnx-cgen, by -Os and by -O3."""
    command = shutil.which("emx-onnx-cgen") or os.environ.get("EMX_ONNX_CGEN", "")
    if not command:
        print("emx-onnx-cgen is not installed, and left out")
        return
    kcompile.compile(build(model), "onnx", folder / "m.onnx")
    file = onnx.load(folder / "m.onnx")
    for node in file.graph.node:  # it does not read the direction, which is the default one
        kept = [attribute for attribute in node.attribute if attribute.name != "direction"]
        if node.op_type in ("GRU", "LSTM"):
            del node.attribute[:]
            node.attribute.extend(kept)
    onnx.save(file, folder / "m.onnx")
    fixed = ["--input-dim", "N=1", "--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    done = subprocess.run(
        [command, "compile", "m.onnx", "m.c", *fixed], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"emx-onnx-cgen cannot compile {model}: {(done.stdout + done.stderr).strip().splitlines()[-1][:120]}")
        return
    found = re.search(r"^void model\((.*)\) \{", (folder / "m.c").read_text(), re.MULTILINE)
    assert found
    parameters = [re.sub(r"const |restrict ", "", part.strip()) for part in found[1].split(",")]
    names = [re.match(r"\w+ (\w+)", parameter)[1] for parameter in parameters]  # type: ignore[index]
    declarations = [f"void model({found[1].replace('restrict ', '')});", *(f"static {p};" for p in parameters)]
    for level in ("-Os", "-O3"):
        subprocess.run([*COMPILER, level, "-fstack-usage", "-c", "m.c", "-o", "m.o"], cwd=folder, check=True)
        flash, instructions = measured(folder, declarations, f"model({', '.join(names)});", ["m.o"], ["-O2"])
        yield Figure(model, f"emx-onnx-cgen, gcc {level}", flash, _variables_and_stack(folder), instructions)


def _variables_and_stack(folder: Path) -> int:
    """What m.o takes in variables, and its function's frame with the largest of those that it calls."""
    sizes = subprocess.run(["arm-none-eabi-size", "m.o"], cwd=folder, check=True, capture_output=True, text=True).stdout
    _, data, zero, *_ = sizes.splitlines()[1].split()
    lines = [line.split("\t") for line in (folder / "m.su").read_text().splitlines()]
    frames = {name.rpartition(":")[2]: int(frame) for name, frame, *_ in lines}
    return int(data) + int(zero) + frames.pop("model") + max(frames.values(), default=0)


def litert(model: str, folder: Path) -> Iterator[Figure]:
    """The size of the model file, beside the core of the interpreter."""
    if not PEERS.exists():
        print(f"there is no {PEERS}; LiteRT is left out")
        return
    build(model).save(folder / "m.keras")
    code = (
        "import tensorflow as tf; m = tf.keras.models.load_model('m.keras');"
        "c = tf.lite.TFLiteConverter.from_keras_model(m); open('m.tflite', 'wb').write(c.convert())"
    )
    done = subprocess.run([PEERS, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"LiteRT cannot convert {model}: {done.stderr.strip().splitlines()[-1][:120]}")
        return
    size = (folder / "m.tflite").stat().st_size
    yield Figure(model, "LiteRT for Microcontrollers, as documented", size + LITERT_CORE, None, None)


def measured(folder: Path, declarations: list[str], call: str, files: list[str], flags: list[str]) -> tuple[int, int]:
    """The flash that a call adds to an empty program, and the instructions that it takes."""
    empty, _ = _built(folder, [], "", [], flags)
    text, output = _built(folder, declarations, call, files, flags)
    return text - empty, round(int(output.split()[-1]) * TICK / 2**SHIFT)


def _built(folder: Path, declarations: list[str], call: str, files: list[str], flags: list[str]) -> tuple[int, str]:
    board = BOARDS["cortex-m7"]
    script = (HERE / "board" / "board.ld.in").read_text()
    (folder / "board.ld").write_text(script.replace("@FLASH@", hex(board.flash)).replace("@RAM@", hex(board.ram)))
    (folder / "measure.c").write_text(PROGRAM.format(declarations="\n".join(declarations), call=call))
    linked = ["-T", "board.ld", "--specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections,--no-warn-execstack"]
    startup = str(HERE / "board" / "startup.c")
    subprocess.run([*COMPILER, *flags, "-o", "p", "measure.c", startup, *linked, *files, "-lm"], cwd=folder, check=True)
    size = subprocess.run(["arm-none-eabi-size", "p"], cwd=folder, check=True, capture_output=True, text=True).stdout
    emulator = ["qemu-system-arm", "-M", board.name, "-icount", f"shift={SHIFT}", "-nographic"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", "p"]
    run = subprocess.run([*emulator, *semihosting], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    return int(size.splitlines()[1].split()[0]), run.stdout


def _c_type(array: Any) -> str:
    return "float" if array.dtype == np.float32 else "int32_t"


def figures(model: str) -> Iterator[Figure]:
    """All engines' figures."""
    makers = [
        lambda folder: ours(model, folder, optimize="size"),
        lambda folder: ours(model, folder, optimize="speed"),
        lambda folder: ours(model, folder, optimize="size", weights_dtype="f16"),
        lambda folder: emx(model, folder),
        lambda folder: litert(model, folder),
    ]
    for make in makers:
        with tempfile.TemporaryDirectory() as folder:
            yield from make(Path(folder))


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    models = parser.parse_args().models or list(MODELS)
    unknown = [model for model in models if model not in MODELS]
    if unknown:
        parser.error(f"the models are {', '.join(MODELS)}. Received: {', '.join(unknown)}")
    write([figure for model in models for figure in figures(model)])


def write(found: list[Figure]) -> None:
    """The results as JSON and as a table."""
    (RESULTS / "edge.json").write_text(json.dumps([asdict(figure) for figure in found], indent=2) + "\n")
    rows = [f"| {f.model} | {f.engine} | {f.flash:,} | {_number(f.ram)} | {_number(f.instructions)} |" for f in found]
    head = ["| model | engine | flash, bytes | workspace and stack, bytes | instructions |", "|---|---|---|---|---|"]
    title = ["# One run on a Cortex-M7", "", *__doc__.strip().split("\n\n", 1)[1].splitlines(), ""]
    (RESULTS / "edge.md").write_text("\n".join([*title, *head, *rows, ""]))
    print("\n".join([*head, *rows]))


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


if __name__ == "__main__":
    main()
