"""The files around a C library, and the readers of its objects."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kcompile.codegen.library.archive import archive
from kcompile.codegen.library.interface import c_string, header, identifier, interface, ports
from kcompile.codegen.library.objects import contents
from kcompile.ir.types import TensorType
from kcompile.runtime.signature import Signature

F32 = TensorType("float32", (1, 3))


@pytest.mark.parametrize(
    ("text", "name"),
    [("dense/out:0", "dense_out_0"), ("2nd", "m2nd"), ("class", "class_"), ("größe", "gr_e"), ("__", "model")],
)
def test_a_name_of_the_model_becomes_a_name_of_c(text: str, name: str):
    assert identifier(text) == name


def test_names_that_would_be_one_in_c_are_kept_apart():
    made = ports({"a-b": F32, "a/b": F32, "A b": F32})
    assert [port.field for port in made] == ["a_b", "a_b_2", "A_b_3"]


def test_a_c_string_holds_quotes_and_bytes_beyond_ascii():
    assert c_string('a"b\\é?') == '"a\\"b\\\\\\303\\251\\?"'


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_compiles_without_warnings_in_c_and_cpp(language: str, tmp_path: Path):
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    types = {"x": F32, "int": TensorType("int64", ()), "*/": TensorType("bool", (2,))}
    face = interface(Signature("m", types, {"y": TensorType("float16", (1,))}, "y"), "m", 0, 8, 0, True)
    (tmp_path / "m.h").write_text(header(face))
    code = '#include "m.h"\nint main(void) { m_inputs i = {0, 0, 0}; return i.int_ != 0; }\n'
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", *(["-std=c99"] if language == "c" else [])]
    subprocess.run(
        ["gcc", "-x", language, *flags, "-"], input=code, cwd=tmp_path, text=True, check=True, capture_output=True
    )


def test_an_archive_is_read_by_a_linker(tmp_path: Path):
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    members: dict[str, tuple[bytes, list[str]]] = {}
    for name in ("first", "second"):
        source = f"int {name}(void) {{ return {len(name)}; }}\n"
        object_file = tmp_path / f"{name}.o"
        subprocess.run(["gcc", "-x", "c", "-c", "-", "-o", object_file], input=source, text=True, check=True)
        members[object_file.name] = (object_file.read_bytes(), [name])
    (tmp_path / "libboth.a").write_bytes(archive(members))
    main = "int first(void); int second(void);\nint main(void) { return first() * 10 + second(); }\n"
    (tmp_path / "main.c").write_text(main)
    subprocess.run(["gcc", "main.c", "-L.", "-lboth", "-o", "main"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 56


def test_an_objects_sizes_are_those_of_its_sections(tmp_path: Path):
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    source = (
        "const char table[100] = {1}; int counter = 3; int other(void); int one(void) { return other() + counter; }\n"
    )
    subprocess.run(["gcc", "-x", "c", "-c", "-", "-o", tmp_path / "a.o"], input=source, text=True, check=True)
    found = contents((tmp_path / "a.o").read_bytes())
    assert found.needs == ("other",)
    assert found.variables == 4
    assert found.constants >= 100
    assert found.code > 0


def test_a_wasm_objects_imports_are_its_needs():
    name = b"\x03env\x06memset\x00\x02"
    memory = b"\x03env\x08__memory\x02\x00\x01"
    variable = b"\x03env\x0f__stack_pointer\x03\x7f\x01"
    imports = b"\x03" + memory + variable + name
    data = b"\0asm\x01\0\0\0" + bytes([2, len(imports)]) + imports + b"\x0a\x05AAAAA" + b"\x0b\x02BB"
    found = contents(data)
    assert (found.needs, found.code, found.constants) == (("memset",), 5, 2)
