"""Algebraic simplification: identities of arithmetic, and moves that cancel."""

from kcompile.ir.graph import Graph
from kcompile.ir.passes import arithmetic, moves
from kcompile.ir.passes.rewrite import rewrite

RULES = (*arithmetic.RULES, *moves.RULES)


def simplify(graph: Graph) -> Graph:
    """`graph` without ops that do nothing, and with ops that undo or repeat each other merged."""
    return rewrite(graph, RULES)
