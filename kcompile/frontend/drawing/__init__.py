"""Pictures of models and of histories, drawn by Matplotlib."""

from kcompile.frontend.drawing.history import plot_history
from kcompile.frontend.drawing.model import plot_model

__all__ = ["plot_history", "plot_model"]
