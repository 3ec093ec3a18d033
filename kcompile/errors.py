"""The exception tree: every error that kcompile raises on purpose.

    KCompileError
    ├── ModelError           a Keras file, config or Python-built model is wrong or incomplete
    │   └── UnsupportedLayer     ... or uses layers that kcompile cannot compile (all are named)
    ├── GraphError           an IR graph breaks a rule; printed with the faulty line marked
    │   └── TypeRuleError        ... because an op does not accept its operands
    ├── UnsupportedOp        a back end cannot express an op (all are named, with their Keras layers)
    ├── TargetError          an unknown target, or an option that the target does not take
    ├── InputError           arrays given to a model do not fit its inputs
    ├── ArtifactError        a compiled artifact is damaged, of another machine or of another schema
    ├── VerificationError    an artifact's numbers disagree with the reference
    └── MissingExtra         an optional dependency is not installed

Texts follow one order: the law, what was received, where, what to do.
"""

_SHOWN = 200


class KCompileError(Exception):
    """Base of all errors that kcompile raises on purpose."""


class ModelError(KCompileError):
    """A Keras file, config or Python-built model is wrong or incomplete."""


class UnsupportedLayer(ModelError):
    """A model uses layers that kcompile cannot compile; the text names all of them."""


class GraphError(KCompileError):
    """An IR graph breaks a rule."""


class TypeRuleError(GraphError):
    """An op does not accept the types of its operands."""


class UnsupportedOp(KCompileError):
    """A back end cannot express an op; the text names all of them with their Keras layers."""


class TargetError(KCompileError):
    """An unknown target, or an option that the target does not take."""


class InputError(KCompileError):
    """Arrays given to a model do not fit its inputs."""


class ArtifactError(KCompileError):
    """A compiled artifact is damaged, of another machine or of another schema."""


class VerificationError(KCompileError):
    """An artifact's numbers disagree with the reference."""


class MissingExtra(KCompileError):
    """An optional dependency is not installed."""


def shown(value: object) -> str:
    """What an error shows of a value that it received: its `repr`, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
