"""What passes run, in which order, for what purpose."""

from kcompile.ir.graph import Graph
from kcompile.ir.passes import batch_norm, linear, simplify, steps
from kcompile.ir.passes.constants import fold_constants
from kcompile.ir.passes.cse import share_common
from kcompile.ir.passes.fusion import fusion_skips
from kcompile.ir.passes.manager import Pass, run
from kcompile.ir.passes.rewrite import Skip, skips
from kcompile.ir.passes.windowed import pool_by_window

INFERENCE = (
    Pass("simplify", simplify.simplify),
    Pass("fold_batch_norm", batch_norm.fold_batch_norm),
    Pass("fold_into_linear", linear.fold_into_linear),
    Pass("fold_constants", fold_constants),
    Pass("share_common", share_common),
)

# Weights are inputs while a model trains, so that nothing can be folded into them.
TRAINING = (
    Pass("simplify", simplify.simplify),
    Pass("simplify_step", steps.simplify_step),
    Pass("fold_constants", fold_constants),
    Pass("share_common", share_common),
    Pass("pool_by_window", pool_by_window),
)


def inference(graph: Graph) -> Graph:
    """`graph` as every back end wants it: simplified, batch normalizations and constants folded, nothing twice."""
    return run(graph, INFERENCE)


def training(graph: Graph) -> Graph:
    """`graph`, a step of training, simplified and with nothing twice."""
    return run(graph, TRAINING)


def explain(graph: Graph) -> list[Skip]:
    """What would have been folded or fused in `graph` but for the reasons given."""
    final = inference(graph)
    return skips(final, (*simplify.RULES, *batch_norm.RULES, *linear.RULES)) + fusion_skips(final)
