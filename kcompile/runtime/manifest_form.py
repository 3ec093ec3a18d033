"""The form of a bundle's manifest, so that whoever reads one finds what it looks for, of the kind that it expects."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

from kcompile.errors import ArtifactError

# Kinds of values, a list of one form, or an object: keys that end in "?" may be missing, and "*" stands for any key.
Form: TypeAlias = "tuple[type, ...] | list[Form] | dict[str, Form]"

_TEXT, _COUNT, _NUMBER, _EXTENT = (str,), (int,), (int, float), (int, str)
_MOST_PROBLEMS = 8

_STAGE: Form = {"function": _TEXT, "family": _TEXT, "layer": _TEXT, "macs": _EXTENT, "bytes": _EXTENT, "choice?": _TEXT}
_LAYER: Form = {"layer": _TEXT, "op": _TEXT, "result": _TEXT, "macs": _EXTENT}
_BANDS: Form = {"count": _COUNT, "layer": _TEXT, "workspace_without": _COUNT, "extra_macs": _COUNT}

_FORM: Form = {
    "artifact": {"*": _TEXT},
    "builds?": [_TEXT],
    "members": {"*": {"bytes": _COUNT, "sha256": _TEXT}},
    "memory": {
        "weight_bytes": _COUNT,
        "arena_bytes?": _EXTENT,
        "bands?": _BANDS,
        "code_bytes?": _COUNT,
        "needs?": [_TEXT],
        "stack_bytes?": (int, type(None)),
        "workspace_bytes?": _COUNT,
    },
    "notes": {"*": _TEXT},
    "program?": {
        "layers?": [_LAYER],
        "no_step?": _TEXT,
        "stages?": [_STAGE],
        "step?": {"steps": _COUNT, "workspace_bytes": _COUNT},
        "symbols?": [_TEXT],
    },
    "target": {"name": _TEXT, "cpu?": _TEXT, "opset?": _COUNT, "triple?": _TEXT},
    "verification": {"outputs": [{"output": _TEXT, "absolute": _NUMBER, "allowed": _NUMBER, "relative": _NUMBER}]},
    "versions": {"*": _TEXT},
}


def check_form(manifest: Mapping[str, Any]) -> None:
    """Nothing, for a manifest that has all parts, each of its kind.

    Raises:
        ArtifactError: it has not; the problems are named.
    """
    problems = list(_problems(manifest, _FORM, ""))
    if problems:
        more = f" And {len(problems) - _MOST_PROBLEMS} more." if len(problems) > _MOST_PROBLEMS else ""
        raise ArtifactError(f"{' '.join(problems[:_MOST_PROBLEMS])}{more}")


def _problems(value: object, form: Form, path: str) -> Iterator[str]:
    if isinstance(form, tuple):
        fits = isinstance(value, form) and (not isinstance(value, bool) or bool in form)
        if not fits:
            kinds = " or ".join(kind.__name__ for kind in form)
            yield f"`{path}` must be of kind {kinds}. Received: {repr(value)[:80]}."
    elif isinstance(form, list):
        if isinstance(value, list):
            for item in cast(list[object], value):
                yield from _problems(item, form[0], path)
        else:
            yield f"`{path}` must be an array. Received: {repr(value)[:80]}."
    elif isinstance(value, dict):
        yield from _parts_problems(cast(dict[str, object], value), form, path)
    else:
        yield f"`{path}` must be an object. Received: {repr(value)[:80]}."


def _parts_problems(value: Mapping[str, object], form: Mapping[str, Form], path: str) -> Iterator[str]:
    for key, part in form.items():
        name = key.removesuffix("?")
        place = f"{path}.{name}" if path else name
        if key == "*":
            for each in value.values():
                yield from _problems(each, part, f"{path}.*")
        elif name in value:
            yield from _problems(value[name], part, place)
        elif name == key:
            yield f"it lacks `{place}`."
