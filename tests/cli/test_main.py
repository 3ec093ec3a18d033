"""The command line as a whole: help, errors, exit codes, colours, progress."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kcompile
from kcompile.cli import output
from kcompile.cli.main import COMMANDS, run

ROOT = Path(__file__).parents[2]
MODEL = "examples/models/mmsplice_intron3/Intron3.h5"
CLEAN = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "KCOMPILE_DEBUG")}


def kc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kcompile", *arguments]
    return subprocess.run(command, cwd=ROOT, env=CLEAN | environment, capture_output=True, text=True)


def on_terminal(*arguments: str, **environment: str) -> str:
    """What the command prints on a terminal."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", "from kcompile.cli import main; main()", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=CLEAN | environment, stdout=follower, stderr=follower)
    os.close(follower)
    printed = b""
    try:
        while chunk := os.read(leader, 4096):
            printed += chunk
    except OSError:  # the other end is closed
        pass
    process.wait()
    os.close(leader)
    return printed.decode()


def test_help_shows_commands_exit_codes_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "kcompile model.h5 --target onnx -o model.onnx" in text
    for name, sentence in COMMANDS.items():
        assert f"{name:<8} {sentence}" in text
    for line in ("0    done", "2    the command line is wrong", "3    the verification failed", "130  interrupted"):
        assert line in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert COMMANDS[name]
    assert max(map(len, text.splitlines())) <= 100


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"kcompile {kcompile.__version__}\n"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: kcompile" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["inspct", "m.h5"], "No such command or model 'inspct'. Did you mean 'inspect'? See `kcompile --help`."),
        (["absent.h5"], "Invalid value for 'MODEL': Path 'absent.h5' does not exist. See `kcompile compile --help`."),
        (["bench"], "Missing argument 'ARTIFACT'. See `kcompile bench --help`."),
        (["compile", "--xyz"], "No such option: --xyz See `kcompile compile --help`."),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert _letters(capsys.readouterr().err) == _letters(f"error: {text}")


def _letters(text: str) -> list[str]:
    """The words, since versions of click punctuate differently."""
    return re.findall(r"[\w.-]+\b", text)


def test_a_users_mistake_shows_no_traceback_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_text("no model")
    plain = kc(str(path))
    assert plain.returncode == 1
    assert plain.stdout == ""
    assert plain.stderr.startswith("error: m.h5 ")
    assert "Traceback" not in plain.stderr
    for asked in (kc("--debug", str(path)), kc(str(path), KCOMPILE_DEBUG="1")):
        assert asked.returncode == 1
        assert "Traceback" in asked.stderr
        assert plain.stderr in asked.stderr


def test_too_little_memory_is_an_error_of_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 1. TiB")

    monkeypatch.setattr("kcompile.api.compile", fails)
    assert run([str(ROOT / MODEL)]) == 1
    assert capsys.readouterr().err == "error: there is not enough memory: Unable to allocate 1. TiB.\n"


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_text("no model")
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert not colour.search(kc(str(path)).stderr)
    assert "\x1b[31m" in on_terminal(str(path), TERM="xterm")
    assert not colour.search(on_terminal(str(path), TERM="xterm", NO_COLOR="1"))
    assert "\x1b[1m" in on_terminal("inspect", MODEL, TERM="xterm")
    assert not colour.search(on_terminal("inspect", MODEL, TERM="xterm", NO_COLOR="1"))


@pytest.mark.parametrize("arguments", [["inspect", MODEL, "--json"], ["layers", "--json"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    program = f"from kcompile.cli import main; main({arguments})"
    command = f'{sys.executable} -c "{program}" | head -c 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


class _Terminal:
    """A stream that says that it is a terminal."""

    def __init__(self, terminal: bool = True) -> None:
        self.text = ""
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.mark.parametrize(
    ("terminal", "quiet", "seconds", "shown"),
    [(True, False, 0.3, True), (True, False, 0.0, False), (True, True, 0.3, False), (False, False, 0.3, False)],
)
def test_progress_shows_on_a_terminal_once_it_takes_long(
    terminal: bool, quiet: bool, seconds: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _Terminal(terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(output, "_PATIENCE", 0.1)
    with output.Progress(quiet) as progress:
        progress.stage("compiling")
        time.sleep(seconds)
    assert ("compiling … 0 s" in stream.text) == shown
    assert stream.text.endswith("\r\x1b[K") == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 µs"), (1.4e-6, "1.4 µs"), (999e-6, "999 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (3600, "3600 s")],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123456, "123 kB"), (7.25e6, "7.2 MB"), (2e9, "2.00 GB")],
)
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert output.size(count) == text


def test_a_table_aligns_its_columns() -> None:
    assert output.table(["name", "count"], [["a", "1"], ["long name", "1,000"]], "<>") == (
        "\x1b[1mname       count\x1b[0m\na              1\nlong name  1,000"
    )
