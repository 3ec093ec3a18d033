"""The loss of sequences whose labels are not aligned with the steps: connectionist temporal classification.

Graves et al. 2006, https://doi.org/10.1145/1143844.1143891; the recursion, with blanks and labels apart, is that of
Keras 3 (``ctc_loss`` in ``keras/src/backend/jax/nn.py``), and so is what stands for an impossible path.
"""

from dataclasses import dataclass

from kcompile.errors import ModelError
from kcompile.frontend.training.eager import on_arrays
from kcompile.ir.expression import Expression
from kcompile.ir.ops import Concat, Full, LogSoftmax, MatMul, Slice, Softplus

# The logarithm of the probability of what cannot be.
_NEVER = -1e5
BLANK = 0


@on_arrays
def ctc(y_true: Expression, y_pred: Expression) -> Expression:
    """The negative logarithm of the probability that the steps spell the labels, with blanks and repeats between them.

    y_true: i32[N, L], ended by zeros; y_pred: T[N, steps, classes], logits, whose class 0 is the blank -> T[N]
    """
    if y_true.type.rank != 2 or y_pred.type.rank != 3:
        law = "ctc takes labels of shape [N, L] and logits of shape [N, steps, classes]"
        raise ModelError(f"{law}. Received: {y_true.type} and {y_pred.type}.")
    steps, labels = y_pred.shape[1], y_true.shape[1]
    if not isinstance(steps, int) or not isinstance(labels, int) or not labels:
        law = "ctc needs known numbers of steps and of labels"
        raise ModelError(f"{law}. Received: labels {y_true.type} and logits {y_pred.type}.")
    y_true = y_true.cast("int32")
    paths = _Paths.start(y_true, y_pred, labels)
    for step in range(steps):
        paths.go(step)
    blanks = paths.after_labels(paths.blanks, paths.labels)
    length = y_true.differs(BLANK).cast("int32").sum((1,))
    return -(blanks * length.one_hot(labels + 1, y_pred.type.dtype)).sum((1,))


@dataclass
class _Paths:
    """Logarithms of the probabilities of all paths so far.

    Attributes:
        said: of each label at each step ``[N, steps, L]``, and `silent`, of the blank ``[N, steps, 1]``.
        again: 0 where the next label is another, `_NEVER` where it is the same ``[N, L]``; `other`: the reverse.
        blanks: of the paths that end with a blank, or begin, after each number of labels ``[N, L + 1]``.
        labels: of the paths that end with the last label of each number of labels ``[N, L]``.
    """

    said: Expression
    silent: Expression
    again: Expression
    other: Expression
    blanks: Expression
    labels: Expression

    @classmethod
    def start(cls, y_true: Expression, y_pred: Expression, labels: int) -> "_Paths":
        """Before the first step: no label, and no doubt about it."""
        dtype, samples, classes = y_pred.type.dtype, y_pred.shape[0], y_pred.shape[2]
        shares = y_pred.apply(LogSoftmax(-1))
        chosen = y_true.one_hot(int(classes), dtype).swap_last()

        def full(count: int, value: float) -> Expression:
            return Expression(y_pred.b, y_pred.b(Full((samples, count), value, dtype)))

        repeats = full(1, 0.0)
        if labels > 1:
            same = _part(y_true, 0, labels - 1).equals(_part(y_true, 1, labels))
            repeats = same.cast(dtype).apply(Concat(1), repeats)
        blanks = full(1, 0.0).apply(Concat(1), full(labels, _NEVER))
        silent = shares.apply(Slice(2, BLANK, BLANK + 1))
        said = shares.apply(MatMul(), chosen)
        return cls(said, silent, repeats * _NEVER, (1.0 - repeats) * _NEVER, blanks, full(labels, _NEVER))

    def go(self, step: int) -> None:
        """One step on."""
        said, silent = (x.apply(Slice(1, step, step + 1)).squeeze(1) for x in (self.said, self.silent))
        before = self.after_labels(self.blanks, self.labels + self.again)
        ready = _part(before, 0, int(self.labels.shape[1]))
        ended = self.after_labels(before + silent, self.labels + silent + self.other)
        self.labels = _either(ready + said, self.labels + said)
        self.blanks = ended

    @staticmethod
    def after_labels(blanks: Expression, labels: Expression) -> Expression:
        """The paths that end with a blank, together with those that end with a label, which may be silent from now."""
        count = int(labels.shape[1])
        return _part(blanks, 0, 1).apply(Concat(1), _either(_part(blanks, 1, count + 1), labels))


def _part(x: Expression, start: int, stop: int) -> Expression:
    return x.apply(Slice(1, start, stop))


def _either(x: Expression, y: Expression) -> Expression:
    """``log(exp(x) + exp(y))``."""
    larger = x.maximum(y)
    return larger + (x.minimum(y) - larger).apply(Softplus())
