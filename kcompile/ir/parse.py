"""Reads the text form of graphs that `kcompile.ir.text` prints."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from kcompile.errors import GraphError
from kcompile.ir import dims
from kcompile.ir.graph import Graph, Node, Value
from kcompile.ir.op import OPS, Op, Tensor
from kcompile.ir.ops.constant import Constant
from kcompile.ir.text import PLAIN_NAME
from kcompile.ir.types import LONG_DTYPES, Array, TensorType, array_dtype, dtype_of

T = TypeVar("T")

_SPACE = re.compile(r"(?:\s*\n[ \t]*//(?! note:)[^\n]*)*\s*")
_INDENT = re.compile(r"[ \t]*")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|inf\b|nan\b)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INDEX = re.compile(r"\d+")
_DIGEST = re.compile(r"#([0-9a-f]+)")
_EXTENT = re.compile(r"[^,\[\]\n]+")
_COMMENT = re.compile(r"[ \t]*// ?([^\n]*)")
_NOTE = re.compile(r"// note: ?([^\n]*)")

# No graph that a pass makes nests deeper.
_MAX_DEPTH = 20


def parse(text: str, constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph that `text` spells.

    Args:
        constants: the arrays that the text names by digest.

    Raises:
        GraphError: the text is malformed, or a declared type is not the inferred one; names line and column.
    """
    # A line of comments is told from a trailing comment by the line break before it.
    parser = _Parser("\n" + text, constants or {})
    graph = parser.graph()
    parser.space()
    if parser.at < len(parser.text):
        parser.fail("nothing may follow the graph")
    return graph


@dataclass(frozen=True)
class _Digest:
    """What stands for a constant's elements."""

    digits: str


class _Parser:
    """A recursive-descent parser; `at` is the position of the next character."""

    def __init__(self, text: str, constants: Mapping[str, Array]) -> None:
        self.text, self.constants = text, constants
        self.at = self.depth = 0

    def fail(self, law: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        start = self.text.rfind("\n", 0, at) + 1
        end = self.text.find("\n", at)
        line = self.text[start : end if end >= 0 else len(self.text)]
        # The text begins with a line break of ours, so that its first line is number 1.
        number = self.text.count("\n", 0, at)
        raise GraphError(
            f"{law}. Received at line {number}, column {at - start + 1}:\n  {line}\n  {' ' * (at - start)}^"
        )

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def accept(self, token: str) -> bool:
        self.space()
        found = self.text.startswith(token, self.at)
        self.at += len(token) * found
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"`{token}` must stand here")

    def match(self, pattern: re.Pattern[str], law: str = "") -> str:
        """The text of `pattern` here, and past it; "" where there is none, or an error where `law` is given."""
        self.space()
        found = pattern.match(self.text, self.at)
        if not found:
            return self.fail(law) if law else ""
        self.at = found.end()
        return found.group(found.lastindex or 0)

    def listed(self, item: Callable[[], T], close: str) -> list[T]:
        """Items separated by commas up to `close`, which is passed."""
        items: list[T] = []
        while not self.accept(close):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def graph(self) -> Graph:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"graphs and lists must not nest deeper than {_MAX_DEPTH}")
        self.expect("graph")
        self.expect("@")
        name = self.name()
        self.expect("(")
        values: dict[str, Value] = {}
        inputs = tuple(self.listed(lambda: self.input(values), ")"))
        self.expect("->")
        self.expect("(")
        outputs = self.listed(self.output, ")")
        self.expect("{")
        notes: list[str] = []
        while self.text.startswith("// note:", self.skipped()):
            notes.append(self.comment(self.match(_NOTE)))
        while not self.accept("return "):
            self.node(values)
        start = self.at
        results = [self.operand(values)] if outputs else []
        while self.accept(","):
            results.append(self.operand(values))
        declared, returned = [t for _, t in outputs], [v.type for v in results]
        if declared != returned:
            self.fail(f"the values returned must have the types declared, {', '.join(map(str, declared))}", start)
        self.expect("}")
        self.depth -= 1
        return self.checked(lambda: Graph(name, inputs, tuple(results), tuple(n for n, _ in outputs), tuple(notes)))

    def skipped(self) -> int:
        self.space()
        return self.at

    def checked(self, make: Callable[[], T], at: int | None = None) -> T:
        """What `make` returns; its GraphError gets this place."""
        try:
            return make()
        except GraphError as error:
            self.fail(str(error).rstrip("."), at)

    def name(self) -> str:
        return self.string() or self.match(PLAIN_NAME, "a name must stand here")

    def string(self) -> str | None:
        spelled = self.match(_STRING)
        if not spelled:
            return None
        try:
            return str(json.loads(spelled))
        except ValueError:
            self.fail("a string must have JSON's escapes", self.at - len(spelled))

    def comment(self, spelled: str) -> str:
        if not spelled.startswith('"'):
            return spelled
        try:
            return str(json.loads(spelled))
        except ValueError:
            self.fail("a comment in quotes must have JSON's escapes", self.at - len(spelled))

    def reference(self) -> tuple[str, bool]:
        """A value's key, and whether that is its name rather than a number."""
        self.expect("%")
        number = self.match(_INDEX)
        if number:
            return f"%{number}", False
        spelled = self.string()
        return (spelled if spelled is not None else self.match(PLAIN_NAME, "a value's name must stand here")), True

    def define(self, values: dict[str, Value], key: str, named: bool, value: Value, at: int) -> None:
        if _key(key, named) in values:
            self.fail(f"`{key}` must be defined once", at)
        values[_key(key, named)] = value

    def input(self, values: dict[str, Value]) -> Value:
        at = self.skipped()
        key, named = self.reference()
        self.expect(":")
        value = Value(self.tensor_type(), name=key)
        self.define(values, key, named, value, at)
        return value

    def output(self) -> tuple[str, TensorType]:
        name = self.name()
        self.expect(":")
        return name, self.tensor_type()

    def tensor_type(self) -> TensorType:
        at = self.skipped()
        dtype = self.match(_WORD, "a type must stand here")
        if dtype not in LONG_DTYPES:
            self.fail(f"a dtype must be one of {', '.join(LONG_DTYPES)}", at)
        self.expect("[")
        return TensorType(LONG_DTYPES[dtype], tuple(self.listed(self.extent, "]")))

    def extent(self) -> dims.Dim:
        at = self.skipped()
        spelled = self.match(_EXTENT, "an extent must stand here")
        return self.checked(lambda: dims.canonical(spelled.strip()), at)

    def operand(self, values: dict[str, Value]) -> Value:
        at = self.skipped()
        key = _key(*self.reference())
        if key not in values:
            self.fail("a value must be defined before it is read", at)
        return values[key]

    def node(self, values: dict[str, Value]) -> None:
        results = [(self.skipped(), *self.reference())]
        while self.accept(","):
            results.append((self.skipped(), *self.reference()))
        self.expect("=")
        at = self.skipped()
        cls = self.op_class()
        operands = self.listed(lambda: self.operand(values), ")") if self.accept("(") else []
        attributes = dict(self.listed(self.attribute, "}")) if self.accept("{") else {}
        self.expect(":")
        types = [self.tensor_type()]
        while self.accept(","):
            types.append(self.tensor_type())
        source = self.source()
        if cls is Constant:
            _, key, named = results[0]
            attributes.setdefault("name", key if named else "")
            attributes["value"] = self.tensor(attributes.get("value"), types[0], at)
        op = self.instance(cls, attributes, at)
        node = self.checked(lambda: Node(op, tuple(operands), source), at)
        inferred = [value.type for value in node.outputs]
        if inferred != types or len(results) != len(types):
            self.fail(f"`{cls.op_name}` has the results {', '.join(map(str, inferred))}", at)
        for (where, key, named), value in zip(results, node.outputs, strict=True):
            self.define(values, key, named, value, where)

    def source(self) -> str:
        """The trailing comment of a node's line."""
        found = _COMMENT.match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        return self.comment(found.group(1))

    def op_class(self) -> type[Op]:
        at = self.skipped()
        name = self.match(_WORD, "the name of an op must stand here")
        if name not in OPS:
            self.fail(f"no op is named `{name}`", at)
        return OPS[name]

    def instance(self, cls: type[Op], attributes: dict[str, object], at: int) -> Op:
        """An op from attributes that have been checked against the types of its fields."""
        types = get_type_hints(cls, localns={"Graph": Graph})
        hints = {field.name: types[field.name] for field in fields(cls)}
        for name, value in attributes.items():
            if name not in hints or not _fits(value, hints[name]):
                self.fail(f"`{cls.op_name}` has no attribute `{name}` of such a value", at)
            attributes[name] = float(value) if hints[name] is float and isinstance(value, int) else value
        try:
            return cls(**attributes)
        except TypeError:
            self.fail(f"`{cls.op_name}` needs the attributes {', '.join(hints)}", at)

    def attribute(self) -> tuple[str, object]:
        name = self.match(_WORD, "an attribute's name must stand here")
        self.expect("=")
        return name, self.value()

    def value(self) -> object:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"graphs and lists must not nest deeper than {_MAX_DEPTH}")
        found = self.undepthed_value()
        self.depth -= 1
        return found

    def undepthed_value(self) -> object:
        if self.accept("["):
            return tuple(self.listed(self.value, "]"))
        if digest := self.match(_DIGEST):
            return _Digest(digest)
        if number := self.match(_NUMBER):
            return int(number) if number.lstrip("-").isdigit() else float(number)
        text = self.string()
        return self.word() if text is None else text

    def word(self) -> object:
        at = self.skipped()
        word = self.match(_WORD, "an attribute's value must stand here")
        if word in ("none", "true", "false"):
            return {"none": None, "true": True, "false": False}[word]
        self.at = at
        if word == "graph":
            return self.graph()
        cls = self.op_class()
        self.expect("(")
        return self.instance(cls, dict(self.listed(self.attribute, ")")), at)

    def tensor(self, value: object, type: TensorType, at: int) -> Tensor:
        """The constant of a type from its elements, or from its digest."""
        if not type.is_static:
            self.fail("a constant's extents must be integers", at)
        shape = type.static_shape()
        if isinstance(value, _Digest):
            array = self.constants.get(value.digits)
            if array is None or array.shape != shape or dtype_of(array) != type.dtype:
                self.fail(f"constant #{value.digits} must be among the given ones, of type {type}", at)
            return Tensor(array)
        items = value if isinstance(value, tuple) else (value,)
        kind, kinds = (str, "texts") if type.dtype == "string" else (int | float, "numbers")
        elements = [item for item in items if isinstance(item, kind)]
        if len(elements) != math.prod(shape) or len(elements) != len(items):
            self.fail(f"the value of a constant {type} must be a list of {math.prod(shape)} {kinds}", at)
        try:
            return Tensor(np.array(elements, array_dtype(type.dtype)).reshape(shape))
        except (OverflowError, ValueError):
            self.fail(f"the numbers of a constant must fit {type}", at)


def _key(name: str, named: bool) -> str:
    """Names and numbers do not meet: ``%"3"`` is another value than ``%3``."""
    return f"name {name}" if named else name


def _fits(value: object, hint: Any) -> bool:
    """Whether a parsed value is of an attribute's declared type."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in choices
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in choices)
    if origin is tuple:
        fixed = choices[-1:] != (...,)
        if not isinstance(value, tuple) or (fixed and len(value) != len(choices)):
            return False
        return all(_fits(item, choices[i] if fixed else choices[0]) for i, item in enumerate(value))
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is None:
        return isinstance(value, NoneType)
    return isinstance(value, (int, float) if hint is float else hint)
