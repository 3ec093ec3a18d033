"""TensorIR functions, written for a machine with one lane, as C99: one function of C for each.

Only what `tir` and `expr` make is known here; anything else is an error that names it. Integers are written as they
are: a sum that leaves its type is as undefined as in any C program.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from kcompile.errors import TargetError

TYPES = {
    "bool": "int",
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

# Functions that the text of the functions calls, by name; each is written only where it is called.
HELPERS = {
    "floor_div": "static int64_t floor_div(int64_t x, int64_t y)\n{\n    int64_t q = x / y;\n"
    "    return q - ((x % y != 0) && ((x < 0) != (y < 0)));\n}\n",
    "floor_mod": "static int64_t floor_mod(int64_t x, int64_t y)\n{\n    int64_t r = x % y;\n"
    "    return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}\n",
    **{
        f"{to}_of_{of}": f"static {TYPES[to]} {to}_of_{of}({TYPES[of]} x)\n{{\n    {TYPES[to]} y;\n"
        "    memcpy(&y, &x, sizeof y);\n    return y;\n}\n"
        for a, b in (("float32", "int32"), ("float32", "uint32"), ("float64", "int64"), ("float64", "uint64"))
        for to, of in ((a, b), (b, a))
    },
}  # fmt: skip

_BINARY = {
    "Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "LT": "<", "LE": "<=", "GT": ">", "GE": ">=", "EQ": "==",
    "NE": "!=", "And": "&&", "Or": "||", "BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^", "RShift": ">>",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z_]\w*")
_DECLARED = re.compile(r" *(?:const )?\w+ (\w+)(?: = |\[\d+\];)")
_STORED = re.compile(r" *(\w+)\[.*?\] = ")
_ROUNDING = ("sqrt", "floor", "ceil", "trunc", "nearbyint", "fabs", "pow")


class Printer:
    """Writes functions; `used` are the helpers that they call."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self._lines: list[str] = []
        self._depth = 0
        self._dtypes: dict[str, str] = {}
        self._written: set[str] = set()

    def function(self, name: str, function: Any) -> str:
        """The text of `function`; pointers that nothing writes are const."""
        self._lines, self._depth, self._dtypes, self._written = [], 1, {}, set()
        self._statement(function.body)
        parameters = [
            f"{'' if str(p.name) in self._written else 'const '}{TYPES[self._dtypes[str(p.name)]]} *restrict {p.name}"
            for p in function.params
        ]
        signature = f"static void {name}({', '.join(parameters)})"
        return "\n".join([signature, "{", *_without_unused(self._lines), "}", ""])

    # ---- statements

    def _emit(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def _statement(self, node: Any) -> None:
        kind = type(node).__name__
        writer: Callable[[Any], None] | None = getattr(self, f"_write_{kind.lower()}", None)
        if writer is None:
            raise TargetError(f'target "c" cannot write a statement of kind {kind}.')
        writer(node)

    def _write_seqstmt(self, node: Any) -> None:
        for part in node.seq:
            self._statement(part)

    def _write_declbuffer(self, node: Any) -> None:
        self._dtypes[str(node.data.name)] = _element(node.buffer)

    def _write_allocbuffer(self, node: Any) -> None:
        self._emit(f"{TYPES[_element(node.buffer)]} {node.buffer.name}[{int(node.buffer.shape[0])}];")

    def _write_bufferstore(self, node: Any) -> None:
        self._written.add(str(node.buffer.name))
        self._emit(f"{self._place(node.buffer, node)} = {self._bare(node.value)};")

    def _write_bind(self, node: Any) -> None:
        self._emit(f"const {TYPES[_element(node.var)]} {node.var.name} = {self._bare(node.value)};")

    def _write_for(self, node: Any) -> None:
        i = node.loop_var.name
        self._emit(f"for (int32_t {i} = 0; {i} < {self._text(node.extent)}; {i}++) {{")
        self._nested(node.body)

    def _write_ifthenelse(self, node: Any) -> None:
        self._emit(f"if ({self._bare(node.condition)}) {{")
        self._nested(node.then_case)

    def _nested(self, body: Any) -> None:
        self._depth += 1
        self._statement(body)
        self._depth -= 1
        self._emit("}")

    def _write_evaluate(self, node: Any) -> None:
        """Nothing that a kernel evaluates has an effect: prefetches, and the body of an empty loop."""

    def _write_return(self, node: Any) -> None:
        """Kernels return nothing that is read."""

    # ---- expressions

    def _bare(self, node: Any) -> str:
        """An expression where no parentheses are needed around it."""
        text = self._text(node)
        return text[1:-1] if text.startswith("(") and _encloses(text) else text

    def _text(self, node: Any) -> str:
        kind = type(node).__name__
        if kind in _BINARY:
            return f"({self._text(node.a)} {_BINARY[kind]} {self._text(node.b)})"
        writer: Callable[[Any], str] | None = getattr(self, f"_text_{kind.lower()}", None)
        if writer is None:
            raise TargetError(f'target "c" cannot write an expression of kind {kind}.')
        return writer(node)

    def _text_var(self, node: Any) -> str:
        return str(node.name)

    def _text_intimm(self, node: Any) -> str:
        value = int(node.value)
        if value == -(2**63):
            return "INT64_MIN"
        text = f"{value}LL" if abs(value) >= 2**31 else str(value)
        return f"({text})" if value < 0 else text

    def _text_floatimm(self, node: Any) -> str:
        value = float(node.value)
        if not math.isfinite(value):
            return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "(-INFINITY)"
        text = f"{value:.9g}" if _element(node) == "float32" else repr(value)
        text += ("" if "." in text or "e" in text else ".0") + ("f" if _element(node) == "float32" else "")
        return f"({text})" if text.startswith("-") else text

    def _text_tensorload(self, node: Any) -> str:
        return self._place(node.source, node)

    def _text_select(self, node: Any) -> str:
        choices = (self._text(part) for part in (node.condition, node.true_value, node.false_value))
        return "({} ? {} : {})".format(*choices)

    def _text_cast(self, node: Any) -> str:
        return f"({TYPES[_element(node)]}){self._text(node.value)}"

    def _text_bitwisenot(self, node: Any) -> str:
        return f"(~{self._text(node.a)})"

    def _text_lshift(self, node: Any) -> str:
        # To shift a negative number to the left is undefined; to shift its bits is not.
        type = TYPES[_element(node)]
        return f"({type})((u{type.removeprefix('u')}){self._text(node.a)} << {self._text(node.b)})"

    def _text_not(self, node: Any) -> str:
        return f"!{self._text(node.a)}"

    def _text_min(self, node: Any) -> str:
        return "({0} < {1} ? {0} : {1})".format(self._text(node.a), self._text(node.b))

    def _text_max(self, node: Any) -> str:
        return "({0} > {1} ? {0} : {1})".format(self._text(node.a), self._text(node.b))

    def _text_floordiv(self, node: Any) -> str:
        return self._helper("floor_div", node)

    def _text_floormod(self, node: Any) -> str:
        return self._helper("floor_mod", node)

    def _helper(self, name: str, node: Any) -> str:
        self.used.add(name)
        return f"({TYPES[_element(node)]}){name}({self._bare(node.a)}, {self._bare(node.b)})"

    def _text_call(self, node: Any) -> str:
        name = str(node.op.name).rpartition(".")[2]
        arguments = [self._text(argument) for argument in node.args]
        if name in _ROUNDING:
            suffix = "f" if _element(node) == "float32" else ""
            return f"{name}{suffix}({', '.join(arguments)})"
        writer: Callable[[Any, list[str]], str] | None = getattr(self, f"_call_{name}", None)
        if writer is None:
            raise TargetError(f'target "c" cannot write a call of {name}.')
        return writer(node, arguments)

    def _call_reinterpret(self, node: Any, arguments: list[str]) -> str:
        name = f"{_element(node)}_of_{_element(node.args[0])}"
        if name not in HELPERS:
            raise TargetError(f'target "c" cannot read {_element(node.args[0])} as {_element(node)}.')
        self.used.add(name)
        return f"{name}({arguments[0]})"

    def _call_call_llvm_pure_intrin(self, node: Any, arguments: list[str]) -> str:
        # `expr.is_nan` is the one user: an intrinsic's number, a value, and the class.
        return f"isnan({arguments[1]})"

    def _place(self, buffer: Any, node: Any) -> str:
        return f"{buffer.name}[{self._bare(node.indices[0])}]"


def dtypes(function: Any) -> list[str]:
    """The dtypes of the arrays that the pointers of a function lead to."""
    declared = {str(s.data.name): _element(s.buffer) for s in function.body.seq if type(s).__name__ == "DeclBuffer"}
    return [declared[str(parameter.name)] for parameter in function.params]


def _encloses(text: str) -> bool:
    """Whether the first parenthesis is closed by the last."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


def _without_unused(lines: list[str]) -> list[str]:
    """The lines without constants and local arrays that nothing reads, of which a compiler would warn."""
    local = {found[1] for line in lines if (found := _DECLARED.match(line))}
    while True:
        counts = Counter(word for line in lines for word in _WORD.findall(line))
        counts.subtract(name for line in lines if (name := _defined(line, local)))
        kept = [line for line in lines if not (name := _defined(line, local)) or counts[name] > 0]
        if len(kept) == len(lines):
            return kept
        lines = kept


def _defined(line: str, local: set[str]) -> str:
    """The constant or local array that a line declares or stores to, if it does."""
    found = _DECLARED.match(line) or _STORED.match(line)
    return found[1] if found and found[1] in local else ""


def _element(node: Any) -> str:
    """The dtype of a scalar expression or of a buffer's elements."""
    dtype = str(node.ty.dtype)
    if dtype not in TYPES:
        raise TargetError(f'target "c" cannot write {dtype}.')
    return dtype
