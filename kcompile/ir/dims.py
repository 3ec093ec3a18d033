"""Extents of tensors: integers, or canonical polynomials over symbols such as ``"N"`` and ``"T"``.

A `Dim` is an `int` or the canonical text of an expression (``"T-2"``, ``"(T+1)//2"``, ``"64*N"``), so that two equal
extents are equal strings. The functions here are the only ones that look inside that text.
"""

import ast
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from kcompile.errors import GraphError

Dim: TypeAlias = int | str
Shape: TypeAlias = tuple[Dim, ...]

# A polynomial: monomial (sorted atoms) -> coefficient. An atom is a symbol or the text of a floor division.
_Poly: TypeAlias = dict[tuple[str, ...], int]

_MAX_TEXT = 2000
# No axis is longer.
_MOST_EXTENT = 1 << 32


def add(*dims: Dim) -> Dim:
    """The sum of `dims`."""
    integers = [dim for dim in dims if isinstance(dim, int)]
    if len(integers) == len(dims):
        return sum(integers)
    total: _Poly = {}
    for dim in dims:
        for monomial, coefficient in _poly(dim).items():
            total[monomial] = total.get(monomial, 0) + coefficient
    return _text(total)


def sub(left: Dim, right: Dim) -> Dim:
    """``left - right``."""
    return add(left, mul(right, -1))


def mul(*dims: Dim) -> Dim:
    """The product of `dims`; of none, 1."""
    integers = [dim for dim in dims if isinstance(dim, int)]
    if len(integers) == len(dims):
        return math.prod(integers)
    total: _Poly = {(): 1}
    for dim in dims:
        factor = _poly(dim)
        product: _Poly = {}
        for left, a in total.items():
            for right, b in factor.items():
                monomial = tuple(sorted(left + right))
                product[monomial] = product.get(monomial, 0) + a * b
        total = product
    return _text(total)


def floor_div(dim: Dim, divisor: int) -> Dim:
    """``dim // divisor``, with every part that divides evenly taken out of the division."""
    if isinstance(dim, int):
        return dim // divisor
    if divisor == 1:
        return dim
    whole: _Poly = {}
    rest: _Poly = {}
    for monomial, coefficient in _poly(dim).items():
        quotient, remainder = divmod(coefficient, divisor)
        if quotient:
            whole[monomial] = quotient
        if remainder:
            rest[monomial] = remainder
    if set(rest) <= {()}:
        return _text(whole)  # a constant remainder below the divisor adds nothing
    common = math.gcd(divisor, *(coefficient for monomial, coefficient in rest.items() if monomial))
    if common > 1:
        rest = {monomial: coefficient // common for monomial, coefficient in rest.items()}
        return add(_text(whole), floor_div(_text(rest), divisor // common))
    inner = _nested_division(rest)
    if inner is not None:
        return add(_text(whole), floor_div(inner[0], inner[1] * divisor))
    whole[(_division(_text(rest), divisor),)] = 1
    return _text(whole)


def _division(dim: Dim, divisor: int) -> str:
    """The atom for a division that does not come out even."""
    text = str(dim)
    return f"{text}//{divisor}" if text.isidentifier() else f"({text})//{divisor}"


def _nested_division(poly: _Poly) -> tuple[Dim, int] | None:
    """``(x + k * m, m)`` for the polynomial ``x // m + k``: a division of a division is one division."""
    atoms = [monomial for monomial in poly if monomial]
    if len(atoms) != 1 or len(atoms[0]) != 1 or poly[atoms[0]] != 1 or atoms[0][0].isidentifier():
        return None
    match _tree(atoms[0][0]):
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=ast.Constant(value=int() as divisor)):
            return add(_text(_tree_poly(left)), poly.get((), 0) * divisor), divisor
        case _:
            return None


def ceil_div(dim: Dim, divisor: int) -> Dim:
    """``ceil(dim / divisor)``."""
    return floor_div(add(dim, divisor - 1), divisor)


def exact_div(dim: Dim, divisor: Dim) -> Dim | None:
    """``dim / divisor`` where it is a polynomial whatever the symbols' values, else None."""
    if isinstance(dim, int) and isinstance(divisor, int):
        return dim // divisor if divisor and dim % divisor == 0 else None
    parts = list(_poly(divisor).items())
    if len(parts) != 1:
        return 1 if dim == divisor else None
    (atoms, factor), quotient = parts[0], dict[tuple[str, ...], int]()
    for monomial, coefficient in _poly(dim).items():
        left = list(monomial)
        for atom in atoms:
            if atom not in left:
                return None
            left.remove(atom)
        if coefficient % factor:
            return None
        quotient[tuple(left)] = coefficient // factor
    return _text(quotient)


def symbols(*dims: Dim) -> frozenset[str]:
    """The names of the symbols in `dims`."""
    return frozenset(symbol for dim in dims if isinstance(dim, str) for symbol in _symbols(dim))


def substitute(dim: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """`dim` with symbols replaced by integers or other extents; unbound symbols stay."""
    if isinstance(dim, int) or not bindings:
        return dim
    if dim in bindings:
        return bindings[dim]
    return _evaluate(_tree(dim), bindings)


def solve(dim: Dim, symbol: str, value: int) -> int | None:
    """The smallest number from 0 on for which `dim`, which grows with its only symbol, is `value`; None if none is."""

    def at(number: int) -> Dim:
        return substitute(dim, {symbol: number})

    low, high = 0, 1
    while (found := at(high)) and isinstance(found, int) and found < value and high < _MOST_EXTENT:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        found = at(middle)
        low, high = (low, middle) if isinstance(found, int) and found >= value else (middle + 1, high)
    return low if at(low) == value else None


def canonical(text: str) -> Dim:
    """The `Dim` that `text` spells.

    Raises:
        GraphError: `text` is no expression of symbols, integers and ``+ - * //``.
    """
    return _evaluate(_tree(text), {})


@lru_cache(maxsize=4096)
def _symbols(dim: str) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(_tree(dim)) if isinstance(node, ast.Name))


@lru_cache(maxsize=4096)
def _tree(text: str) -> ast.expr:
    try:
        if len(text) > _MAX_TEXT:
            raise ValueError
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _bad(text) from None


def _bad(text: str) -> GraphError:
    return GraphError(f"an extent must be an integer or an expression of symbols. Received: {text[:80]!r}.")


def _evaluate(tree: ast.expr, bindings: Mapping[str, Dim]) -> Dim:
    match tree:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return bindings.get(name, name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return mul(-1, _evaluate(operand, bindings))
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _evaluate(left, bindings), _evaluate(right, bindings), tree)
        case _:
            raise _bad(ast.unparse(tree))


def _binary(operator: ast.operator, left: Dim, right: Dim, tree: ast.expr) -> Dim:
    match operator:
        case ast.Add():
            return add(left, right)
        case ast.Sub():
            return sub(left, right)
        case ast.Mult():
            return mul(left, right)
        case ast.FloorDiv() if isinstance(right, int) and right > 0:
            return floor_div(left, right)
        case _:
            raise _bad(ast.unparse(tree))


def _poly(dim: Dim) -> _Poly:
    if isinstance(dim, int):
        return {(): dim} if dim else {}
    if dim.isidentifier():
        return {(dim,): 1}
    return dict(_parsed_poly(dim))


@lru_cache(maxsize=4096)
def _parsed_poly(dim: str) -> tuple[tuple[tuple[str, ...], int], ...]:
    return tuple(_tree_poly(_tree(dim)).items())


def _tree_poly(tree: ast.expr) -> _Poly:
    """The polynomial of a text that is canonical already: floor divisions are atoms."""
    match tree:
        case ast.Constant(value=int() as value):
            return {(): value}
        case ast.Name(id=name):
            return {(name,): 1}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return {monomial: -coefficient for monomial, coefficient in _tree_poly(operand).items()}
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=ast.Constant(value=int() as divisor)):
            return {(_division(_text(_tree_poly(left)), divisor),): 1}
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            first, second = _tree_poly(left), _tree_poly(right)
            return {tuple(sorted(a + b)): p * q for a, p in first.items() for b, q in second.items()}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as operator, right=right):
            total = _tree_poly(left)
            sign = 1 if isinstance(operator, ast.Add) else -1
            for monomial, coefficient in _tree_poly(right).items():
                total[monomial] = total.get(monomial, 0) + sign * coefficient
            return total
        case _:
            raise _bad(ast.unparse(tree))


def _text(poly: _Poly) -> Dim:
    terms = {monomial: coefficient for monomial, coefficient in poly.items() if coefficient}
    if set(terms) <= {()}:
        return terms.get((), 0)
    ordered = sorted(terms, key=lambda monomial: (-len(monomial), monomial))
    parts: list[str] = []
    for monomial in ordered:
        coefficient = terms[monomial]
        sign = "-" if coefficient < 0 else "+" if parts else ""
        alone = len(monomial) == 1 and coefficient == 1
        atoms = [atom if alone or atom.isidentifier() else f"({atom})" for atom in monomial]
        factors = ([str(abs(coefficient))] if abs(coefficient) != 1 or not monomial else []) + atoms
        parts.append(sign + "*".join(factors))
    return "".join(parts)
