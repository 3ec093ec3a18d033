"""Muon; formulas of ``keras/src/optimizers/muon.py``."""

import math
import re
from collections.abc import Sequence
from typing import Any

from kcompile.frontend.training.optimizers.adam import corrected, running_means
from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.ops import MatMul

# What keeps a gradient of zeros from being divided by its norm.
_LEAST_NORM = 1e-7


class Muon(Optimizer):
    """Momentum made orthogonal, for matrices; `AdamW` for all else. Jordan 2024; Liu et al. 2025, arXiv:2502.16982.

    Args:
        exclude_layers: patterns; weights whose path one of them is found in are left to AdamW.
        exclude_embeddings: whether embeddings are left to AdamW.
    """

    slot_groups = (("momentum", "velocity"),)
    fills_slots = False
    elementwise = False
    arguments = (
        "adam_beta_1",
        "adam_beta_2",
        "epsilon",
        "exclude_layers",
        "muon_a",
        "muon_b",
        "muon_c",
        "adam_lr_ratio",
        "momentum",
        "ns_steps",
        "nesterov",
        "exclude_embeddings",
        "adam_weight_decay",
        "rms_rate",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.7750,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **options: Any,
    ) -> None:
        self.adam_beta_1, self.adam_beta_2, self.epsilon = adam_beta_1, adam_beta_2, epsilon
        self.adam_weight_decay, self.adam_lr_ratio = adam_weight_decay, adam_lr_ratio
        self.exclude_layers, self.exclude_embeddings = list(exclude_layers or []), exclude_embeddings
        self.muon_a, self.muon_b, self.muon_c = muon_a, muon_b, muon_c
        self.momentum, self.ns_steps, self.nesterov, self.rms_rate = momentum, ns_steps, nesterov, rms_rate
        super().__init__(learning_rate, weight_decay=weight_decay, **options)

    def has_slot(self, slot: str, weight: Weight) -> bool:
        return slot == "momentum" or self._is_left_to_adam(weight)

    def _is_left_to_adam(self, weight: Weight) -> bool:
        path = self.paths.get(weight, weight.name)
        embedding = self.exclude_embeddings and "embedding" in path.lower()
        return weight.ndim != 2 or embedding or any(re.search(pattern, path) for pattern in self.exclude_layers)

    def decay_of(self, weight: Weight) -> float | None:
        return self.adam_weight_decay if self._is_left_to_adam(weight) else self.weight_decay

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        if "velocity" in slots:
            return self._adam(w, g, slots, moment)
        m = slots["momentum"] + (g + slots["momentum"] * (self.momentum - 1))
        step = self._orthogonal(g + self.momentum * m if self.nesterov else m) * moment.learning_rate
        if self.rms_rate is not None:
            step = step * (math.sqrt(max(w.type.static_shape())) * self.rms_rate)
        return w - step, {"momentum": m}

    def _adam(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        betas = self.adam_beta_1, self.adam_beta_2
        alpha = corrected(moment.learning_rate * self.adam_lr_ratio, moment, *betas)
        m, v = running_means(g, slots, *betas)
        return w - m * alpha / (v.sqrt() + self.epsilon), {"momentum": m, "velocity": v}

    def _orthogonal(self, x: Expression) -> Expression:
        """Near the orthogonal factor of a matrix, by iterations of Newton and Schulz with a quintic."""
        rows, columns = x.type.static_shape()
        x = x.swap_last() if rows > columns else x
        x = x / (x.square().sum().sqrt() + _LEAST_NORM)
        for _ in range(self.ns_steps):
            square = x.apply(MatMul(), x.swap_last())
            inner = self.muon_b * square + (self.muon_c * square).apply(MatMul(), square)
            x = self.muon_a * x + inner.apply(MatMul(), x)
        return x.swap_last() if rows > columns else x
