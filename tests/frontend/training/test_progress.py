"""What `fit`, `evaluate` and `predict` print, on a terminal and elsewhere."""

import io
import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import numpy as np
import pytest

from kcompile import Input, Sequential, layers
from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks import LambdaCallback, ProgbarLogger
from tests.frontend.errors import error_of

ROOT = Path(__file__).parents[3]
X, Y = np.random.default_rng(1).standard_normal((20, 3)), np.random.default_rng(2).standard_normal((20, 1))
NUMBER = r"\d\.\d{4}"
STYLE = re.compile(r"\x1b\[[\d;]*[mK]")

SLOW = """
import sys, time
import numpy as np
from kcompile import Input, Sequential, layers
from kcompile.callbacks import LambdaCallback
model = Sequential([Input((3,)), layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mae"])
wait = LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.06))
rng = np.random.default_rng(1)
x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
model.fit(x, y, batch_size=2, epochs=2, callbacks=[wait], validation_data=(x, y))
model.evaluate(x, y, verbose=int(sys.argv[1]))
"""


def compiled() -> Sequential:
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def printed(verbose: Any = "auto", **options: Any) -> str:
    out = io.StringIO()
    compiled().fit(X, Y, batch_size=5, verbose=verbose, callbacks=[ProgbarLogger(out)], **options)
    return out.getvalue()


def test_a_line_per_epoch_where_the_output_is_no_terminal() -> None:
    line = rf"4/4 - \ds - \d+[mu]s/step - loss: {NUMBER} - mae: {NUMBER} - val_loss: {NUMBER} - val_mae: {NUMBER}\n"
    for verbose in ("auto", 2):
        text = printed(verbose, epochs=2, validation_data=(X, Y))
        assert re.fullmatch(rf"Epoch 1/2\n{line}Epoch 2/2\n{line}", text)


def test_a_bar_that_cannot_move_is_printed_once() -> None:
    assert re.fullmatch(rf"4/4 ━{{20}} \ds \d+[mu]s/step - loss: {NUMBER} - mae: {NUMBER}\n", printed(1))


def test_steps_that_are_not_known_in_advance_are_known_in_the_second_epoch() -> None:
    def batches() -> Iterator[Any]:
        yield from [(X[:5], Y[:5])] * 3

    class Again:
        def __iter__(self) -> Iterator[Any]:
            return batches()

    out = io.StringIO()
    compiled().fit(Again(), epochs=2, verbose=1, callbacks=[ProgbarLogger(out)])
    assert out.getvalue().count("3/3 ━") == 2


@pytest.mark.parametrize("columns", [200, 50])
def test_a_bar_moves_on_a_terminal(columns: int) -> None:
    text = _on_terminal(columns)
    evaluation = text.splitlines()[-1]
    assert re.fullmatch(rf"1/1 - 0s - \d+[mu]s/step - loss: {NUMBER} - mae: {NUMBER}", evaluation)
    second = text.split("Epoch 2/2\r\n")[1].removesuffix(f"{evaluation}\r\n")
    assert "\x1b[32m━" in second
    *moving, last = [STYLE.sub("", part) for part in second.split("\r\x1b[K")[1:]]
    counts = [int(match[1]) for part in moving if (match := re.match(r" *(\d+)/10 ━", part))]
    assert counts[0] == 1
    assert len(set(counts)) > 5
    assert counts == sorted(counts)
    assert all(len(part) < columns for part in moving)
    numbers = " - ".join(rf"{name}: {NUMBER}" for name in ("loss", "mae", "val_loss", "val_mae"))
    assert re.fullmatch(rf"10/10 ━{{20}} \ds \d+ms/step - {numbers}\r\n", last)


def _on_terminal(columns: int) -> str:
    """What a training prints to a terminal of that many columns."""
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-c", SLOW, "2"], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(leader)
    assert process.wait() == 0, text.decode()
    return text.decode()


def test_an_output_that_has_no_lines_gets_signs() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    compiled().fit(X, Y, batch_size=5, verbose=1, callbacks=[ProgbarLogger(out)])
    assert raw.getvalue().startswith(b"4/4 " + b"=" * 20 + b" 0s ")


def test_no_output_where_none_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    model = compiled()
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X)
    assert capsys.readouterr().out == ""


def test_an_interrupted_bar_ends_its_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()

    def fail(batch: int, logs: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled().fit(X, Y, callbacks=[ProgbarLogger(out), LambdaCallback(on_train_batch_end=fail)])
    assert out.getvalue().endswith("\n")


def test_other_amounts_of_output_are_refused() -> None:
    text = error_of(ModelError, lambda: compiled().fit(X, Y, verbose="full"))  # type: ignore[arg-type]
    assert text == "`verbose` must be \"auto\", 0, 1 or 2. Received: 'full'."
