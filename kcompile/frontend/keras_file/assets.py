"""Texts that a ``.keras`` file holds of layers beside config and weights: ``assets/<place>/<name>``."""

from zipfile import ZipFile

from kcompile.frontend.keras_file import archive
from kcompile.frontend.keras_file.layout import joined, places
from kcompile.frontend.model import Model


def assign(model: Model, zipped: ZipFile, where: str) -> None:
    """Give the layers their texts; one that has none keeps what its config says.

    Raises:
        ModelError: a text is damaged, or none that the layer can take.
    """
    for place in places(model):
        for name in place.layer.assets:
            text = archive.text(zipped, joined("assets", place.path, name), where)
            if text:
                place.layer.set_asset(name, text)
