"""Every code block and command in README.md and docs/ runs as it stands there.

Python blocks of one page run in order in one process; ``console`` blocks run line by line in a shell, in the same
folder, and what they print must hold every line that the page shows (``...`` stands for anything).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)[^)]*\)")
# Makes the environment that this very test runs in.
SET_UP = {"make demo", "make test"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text())


def environment() -> dict[str, str]:
    tools = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def run_python(code: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


def run_console(session: str, folder: Path) -> None:
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        if command in SET_UP:
            makefile = (ROOT / "Makefile").read_text()
            assert f"\n{command.removeprefix('make ')}:" in makefile
            continue
        result = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
        )
        printed = re.sub(r" +", " ", result.stdout + result.stderr)
        lines = [re.sub(r" +", " ", line.strip()) for line in shown.splitlines() if line.strip()]
        missing = [line for line in lines if not re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed)]
        assert not missing, f"{command} printed:\n{printed}\nmissing: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_as_printed(page: Path, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    examples.symlink_to(ROOT / "examples")
    code = ""
    for language, text in blocks(page):
        if language == "python":
            code += text
        elif language == "console":
            if code:
                run_python(code, tmp_path)
            run_console(text, tmp_path)
    if code:
        run_python(code, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken
