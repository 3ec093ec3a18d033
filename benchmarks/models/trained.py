"""Two models that people trained, out of the packages that carry them (`tests.real.corpus`); both are under MIT."""

import kcompile
from tests.real.corpus import RealModel, corpus

# A CNN with separable convolutions and residuals, for faces of 64 x 64, and three LSTMs over 30 steps of 126 numbers.
NAMES = {"emotion_cnn": "fer_emotion", "sign_lstm": "signlang_lstm3"}


def trained(name: str) -> RealModel:
    """The model that a benchmark calls `name`."""
    return corpus()[NAMES[name]]


def read(name: str) -> kcompile.Model:
    """The model itself.

    Raises:
        FileNotFoundError: it has not been fetched.
    """
    return kcompile.load_model(trained(name).path, compile=False)
