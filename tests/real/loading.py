"""Real models as their users load them."""

from kcompile.frontend import Model, load_model
from tests.real.built_in_python import BUILDERS
from tests.real.converters import TAUGHT
from tests.real.corpus import RealModel


def load(real: RealModel, taught: bool = True) -> Model:
    """The model, with converters for its custom classes where `taught`."""
    if real.name in BUILDERS:
        return BUILDERS[real.name](real)
    files = [real.folder / name for name in real.files]
    architecture = [path for path in files if path.suffix == ".json"]
    if not architecture:
        return load_model(files[0], TAUGHT.get(real.name) if taught else None)
    if real.format.startswith("tfjs"):
        return load_model(architecture[0])
    (weights,) = [path for path in files if path.suffix != ".json"]
    return load_model(architecture[0], weights=weights)
