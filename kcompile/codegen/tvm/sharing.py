"""Stages that need less memory or fewer copies: results in the place of what they replace, and parts in their whole.

Both only add to the plan's aliases; what is not the plan's own (the caller's arrays, weights) stays as it is.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from kcompile.codegen.tvm.kernels.copy import Copy
from kcompile.codegen.tvm.plan import Argument, Plan, Stage, Upcoming
from kcompile.ir.graph import Value


@dataclass(frozen=True)
class Sharing:
    """What to do: results over operands, and parts in their whole.

    The latter may take more memory, since a part then lies there as long as its whole is in use.
    """

    in_place: bool
    parts: bool

    def apply(self, plan: Plan, fixed: Callable[[Value], bool], last: Callable[[Value], bool]) -> None:
        """Change the plan.

        Args:
            fixed: whether a value's memory is the caller's, or holds weights.
            last: whether nothing may be written to a value's memory before all else has been read.
        """
        if self.parts:
            without_copies(plan, fixed, last)
        if self.in_place:
            in_place(plan, fixed)


ALL = Sharing(in_place=True, parts=True)
CHOICES = tuple(Sharing(in_place, parts) for parts in (False, True) for in_place in (False, True))


def without_copies(plan: Plan, fixed: Callable[[Value], bool], last: Callable[[Value], bool]) -> None:
    """Leave out copies: what is copied is written to, or read from, the other place right away."""
    kept: list[Stage] = []
    for stage in plan.stages:
        if not isinstance(stage.kernel, Copy) or not _united(plan, stage.arguments, fixed, last):
            kept.append(stage)
    plan.stages = kept


def _united(
    plan: Plan, arguments: tuple[Argument, ...], fixed: Callable[[Value], bool], last: Callable[[Value], bool]
) -> bool:
    """Whether source and target have become one array."""
    source, target = arguments
    assert isinstance(source, Value)
    assert isinstance(target, Value)
    (origin, start), (whole, _) = plan.root(source), plan.root(target)
    if origin is whole or last(whole):
        return False
    if start == 0 and _bytes(origin) == _bytes(source) and not fixed(origin):
        plan.alias(origin, target)
        return True
    if whole is target and not fixed(target):
        plan.alias(target, source)
        return True
    return False


def in_place(plan: Plan, fixed: Callable[[Value], bool]) -> None:
    """Let results take the place of an operand that nothing reads afterwards, where the kernel can do so."""
    touched = [Counter(plan.root(a)[0] for a in stage.arguments if isinstance(a, Value)) for stage in plan.stages]
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for number, values in enumerate(touched):
        for value in values:
            first.setdefault(value, number)
            last[value] = number
    for number, stage in enumerate(plan.stages):
        at = max((i for i, a in enumerate(stage.arguments) if not isinstance(a, Upcoming)), default=0)
        result = stage.arguments[at]
        if not isinstance(result, Value) or result in plan.aliases or fixed(result) or first[result] < number:
            continue
        for i in stage.kernel.overwritable:
            operand = stage.arguments[i]
            root = plan.root(operand)[0] if isinstance(operand, Value) else None
            if root is None or fixed(root) or last[root] > number or touched[number][root] > 1:
                continue
            assert isinstance(operand, Value)
            plan.alias(result, operand)
            last[root] = last[result]
            for values in touched[number + 1 :]:
                values[root] += values.pop(result, 0)
            plan.stages[number] = replace(stage, in_place=(i, at))
            break


def _bytes(value: Value) -> object:
    return value.type.dtype, value.type.size
