"""The table of the README, out of `benchmarks/results/engines.json`: ``python -m benchmarks.readme``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "results" / "engines.json"
ENGINES = ("kcompile tvm", "kcompile onnx", "tf2onnx", "OpenVINO", "LiteRT", "IREE", "tf.function")
_MODELS = {
    "mlp": "MLP 784-64-64-10",
    "cifar_cnn": "CNN for CIFAR",
    "lstm": "2-layer LSTM",
    "gru": "GRU",
    "encoder": "encoder",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_b0": "EfficientNetB0",
    "resnet50": "ResNet50",
    "emotion_cnn": "emotions in faces (trained)",
    "sign_lstm": "sign language (trained)",
}
_HEAD = "| model | kcompile tvm |"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of the table: one row on one thread, in milliseconds, for the engines that took part."""
    chosen = [row for row in rows if (row["batch"], row["threads"]) == (1, 1) and row["model"] in _MODELS]
    engines = [engine for engine in ENGINES if any(engine in row["milliseconds"] for row in chosen)]
    lines = [f"| model | {' | '.join(engines)} |", f"|---|{'--:|' * len(engines)}"]
    for row in chosen:
        cells = [_number(row["milliseconds"].get(engine)) for engine in engines]
        lines.append(f"| {_MODELS[row['model']]} | {' | '.join(cells)} |")
    return lines


def quoted(text: str, lines: Sequence[str]) -> str:
    """`text` with its table replaced by `lines`."""
    own = text.splitlines()
    start = next(i for i, line in enumerate(own) if line.startswith(_HEAD))
    end = next(i for i, line in enumerate(own) if i > start and not line.startswith("|"))
    return "\n".join([*own[:start], *lines, *own[end:]]) + "\n"


def _number(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{float(f'{milliseconds:.2g}'):g}"


def main() -> None:
    """Write the table into the README."""
    rows = json.loads(RESULTS.read_text())["rows"]
    README.write_text(quoted(README.read_text(), table(rows)))


if __name__ == "__main__":
    main()
