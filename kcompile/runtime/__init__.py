"""What a deployed machine imports: sessions that run artifacts. Needs numpy and the artifact's engine."""

from kcompile.runtime.load import load
from kcompile.runtime.session import Session

__all__ = ["Session", "load"]
