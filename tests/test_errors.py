"""The exception tree is the one that the docstring draws, and it is what users can catch."""

import ast
import inspect
from pathlib import Path

import pytest

import kcompile
from kcompile import errors

ROOT = Path(__file__).parents[1]
CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


def drawn_tree() -> dict[str, str]:
    """Class -> base, read from the drawing."""
    tree: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.isidentifier() and hasattr(errors, word)), "")
        if not name:
            continue
        depth = line.index(name)
        parents = [parent for parent in parents if parent[0] < depth]
        tree[name] = parents[-1][1] if parents else "Exception"
        parents.append((depth, name))
    return tree


def test_the_docstring_draws_the_tree() -> None:
    assert drawn_tree() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_kcompile_error_and_says_what_it_means(cls: type[Exception]) -> None:
    assert issubclass(cls, kcompile.KCompileError)
    assert cls.__doc__


def raised_names(path: Path) -> list[tuple[int, str]]:
    """Names of the classes that a module raises by calling them."""
    raised = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    calls = [(node.lineno, node.exc.func) for node in raised if isinstance(node.exc, ast.Call)]
    return [(line, called.id) for line, called in calls if isinstance(called, ast.Name)]


@pytest.mark.parametrize("path", sorted((ROOT / "kcompile").rglob("*.py")), ids=lambda p: p.stem)
def test_no_module_raises_a_bare_exception(path: Path) -> None:
    assert [(line, name) for line, name in raised_names(path) if name in ("Exception", "BaseException")] == []
