"""What every test may use: a seeded generator, and hypothesis settings that hold on a busy machine."""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=25, **_CALM)
settings.register_profile("ci", max_examples=25, derandomize=True, **_CALM)
settings.register_profile("thorough", max_examples=1000, **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Asking for a group that can't run here is an error, never an empty success."""
    if config.option.markexpr.startswith("oracle") and importlib.util.find_spec("keras") is None:
        raise pytest.UsageError("The oracle group needs Keras, which is not installed here. Run it with: make oracle")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run and every worker."""
    return np.random.default_rng(20240229)
