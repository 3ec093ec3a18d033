"""What models say of themselves and leave in files: `summary`, `to_json`, `save` and their kin, in Keras's words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from kcompile.frontend.model import Model


class Storable:
    """What a model inherits; readers and writers are imported where they are needed."""

    @property
    def _self(self) -> "Model":
        return cast("Model", self)

    def summary(
        self,
        line_length: int | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
    ) -> None:
        """Print a table of the layers: names, output shapes, numbers of parameters and, for a graph, connections.

        Args:
            expand_nested: list the layers of models inside too.
            show_trainable: say of each layer with weights whether training changes them.
        """
        from kcompile.frontend.summary import summary_text

        (print_fn or print)(summary_text(self._self, line_length, expand_nested, show_trainable))

    def to_json(self, **options: Any) -> str:
        """The config as JSON text; `options` are those of `json.dumps`."""
        from kcompile.frontend.serialization import serialize_model

        return json.dumps(serialize_model(self._self), **options)

    def to_yaml(self, **options: Any) -> str:
        """The config as YAML text; `options` are those of `yaml.safe_dump`.

        Raises:
            MissingExtra: PyYAML is not installed.
        """
        from kcompile.frontend.keras_file.yaml_config import yaml_text

        return yaml_text(json.loads(self.to_json()), **options)

    def save(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the model to a file that Keras reads: ``.keras``, or ``.h5`` (Keras's older format).

        Raises:
            ModelError: the suffix is another, or the file exists and `overwrite` is False.
        """
        from kcompile.frontend.keras_file.save import save_model

        save_model(self._self, Path(filepath), overwrite)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the weights alone to a ``.weights.h5`` file that Keras reads."""
        from kcompile.frontend.keras_file.save import save_weights

        save_weights(self._self, Path(filepath), overwrite)

    def load_weights(self, filepath: str | Path, skip_mismatch: bool = False, by_name: bool = False) -> None:
        """Take the weights from a file that Keras or kcompile wrote: ``.weights.h5``, ``.h5`` or ``.keras``.

        Args:
            skip_mismatch: leave alone what has other shapes: as Keras does, single weights of ``.h5`` files, whole
                layers of others, and layers with another number of weights.
            by_name: match layers by their names, and leave those alone that only one side has; for ``.h5`` files.

        Raises:
            ModelError: weights are missing, left over or of other shapes; all are named.
        """
        from kcompile.frontend.keras_file.reader import load_weights

        load_weights(self._self, Path(filepath), by_name, skip_mismatch)
