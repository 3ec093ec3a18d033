"""``--tune``: kernels that take less time on this machine than those which the models of costs choose.

What was measured is remembered by kernel, machine and versions, so that the same model gives the same code again, and
another one knows the kernels that the two have in common.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from kcompile.codegen.notebook import Notebook, key_of
from kcompile.codegen.tuning_search import Choice, Choices, Kind, Search, Subject, Tell, kinds_of, variants_of
from kcompile.codegen.tvm.lower import Compiled
from kcompile.codegen.tvm.variants import ANALYTIC, Variants

NOTE = "kcompile.tune"
# After these no further alternative is compiled.
SECONDS = 120.0
_NOTEBOOK = Notebook("tune", most=20_000)
# Kernels that a note names.
_NAMED = 6


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        compiled: the code.
        variants: how groups of nodes depart from the models of costs, by their numbers.
        why: what was measured.
    """

    compiled: Compiled
    variants: Variants
    why: str


def tuned(subject: Subject, tell: Tell, seconds: float = SECONDS) -> Tuned:
    """The fastest code that is found now, or was found before."""
    kinds = kinds_of(subject)
    keys = {kind: key_of(kind.kernels, subject.machine, subject.rows) for kind in kinds}
    notes = _NOTEBOOK.read()
    choices = {kind: choice for kind in kinds if (choice := _choice_of(kind, notes.get(keys[kind])))}
    new = [kind for kind in kinds if kind not in choices]
    search = Search(subject, new, choices, tell) if new else None
    if search:
        found = search.choices(seconds)
        _NOTEBOOK.add({keys[kind]: [astuple(choice.variant), choice.share] for kind, choice in found.items()})
        choices |= found
    variants = variants_of(choices)
    tell("compiling")
    compiled = (search or subject).compiled(variants)
    return Tuned(compiled, variants, _why(kinds, choices, compiled))


def _choice_of(kind: Kind, entry: object) -> Choice | None:
    """What a notebook's entry says, if it is one."""
    match entry:
        case [list() as fields, int() | float() as share]:
            allowed = (v for v in (ANALYTIC, *kind.alternatives) if list(astuple(v)) == fields)
            variant = next(allowed, None)
            return Choice(variant, share) if variant else None
        case _:
            return None


def _why(kinds: Sequence[Kind], choices: Choices, compiled: Compiled) -> str:
    if not kinds:
        return "no kernel has an alternative"
    departing = sorted((k for k in choices if choices[k].variant != ANALYTIC), key=lambda kind: choices[kind].share)
    if not departing:
        return f"none of {len(kinds)} kernels takes less time than as the models of costs choose it"
    layers = {call.number: call.source for call in compiled.calls}
    named = [f"{layers[k.numbers[0]]} {choices[k].share:.2f} ({choices[k].variant})" for k in departing[:_NAMED]]
    more = f" and {len(departing) - _NAMED} more" if len(departing) > _NAMED else ""
    law = f"{len(departing)} of {len(kinds)} kernels take less time than as the models of costs choose them"
    return f"{law}: {', '.join(named)}{more}"
