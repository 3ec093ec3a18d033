"""Files that are damaged or made to harm: each loads or gives one ModelError, soon, and nothing is run or written."""

import copy
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kcompile
from kcompile import Input, Model, Sequential, layers, load_model
from kcompile.errors import ModelError
from tests.frontend.errors import error_of

# Seconds that no file of a few kilobytes may take, on a machine with other work to do.
PATIENCE = 10.0
LINK: dict[str, Callable[[], Any]] = {
    "soft": lambda: h5py.SoftLink("/etc"),
    "external": lambda: h5py.ExternalLink("/etc/passwd", "/"),
}


def branched() -> Model:
    x = Input((6, 6, 2), name="image")
    y = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.BatchNormalization(name="norm")(layers.Add(name="add")([y, layers.Conv2D(3, 1, name="skip")(x)]))
    dense = layers.Dense(2, name="dense")
    y = layers.Flatten(name="flatten")(y)
    return Model(x, [dense(y), layers.Softmax(name="softmax")(dense(y))], name="branched")


def nested() -> Model:
    tokens = Input((5,), dtype="int32", name="tokens")
    y = layers.Embedding(7, 4, mask_zero=True, name="embedding")(tokens)
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")(y)
    inner = Sequential([Input((5, 4)), layers.Conv1D(3, 2, name="conv"), layers.LayerNormalization()], name="inner")
    y = layers.MultiHeadAttention(2, 3, name="attention")(inner(y), inner(y))
    return Model({"ids": tokens}, {"y": layers.TimeDistributed(layers.Dense(2), name="each")(y)}, name="nested")


def saved(model: Model, suffix: str) -> bytes:
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"kcompile-hostile-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"m{suffix}"
    model.save(path)
    content = path.read_bytes()
    path.unlink()
    folder.rmdir()
    return content


FILES = {(model.name, suffix): saved(model, suffix) for model in (branched(), nested()) for suffix in (".keras", ".h5")}
ARCHIVE = FILES["branched", ".keras"]
HDF5 = FILES["branched", ".h5"]


def config_of(content: bytes) -> Any:
    if content[:2] == b"PK":
        return json.loads(members(content)["config.json"])
    with h5py.File(io.BytesIO(content), "r") as root:
        return json.loads(root.attrs["model_config"])  # pyright: ignore[reportArgumentType]


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    return out.getvalue()


def with_member(name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    return zipped([*({**members(ARCHIVE), name: data}).items()], compression)


def with_config(content: bytes, config: Any) -> bytes:
    text = json.dumps(config)
    if content[:2] == b"PK":
        return zipped([*({**members(content), "config.json": text.encode()}).items()])
    return changed_hdf5(content, lambda root: root.attrs.modify("model_config", text))


def changed_hdf5(content: bytes, change: Callable[[Any], Any]) -> bytes:
    memory = io.BytesIO(content)
    with h5py.File(memory, "r+") as root:
        change(root)
    return memory.getvalue()


def attempt(folder: Path, content: bytes, suffix: str) -> Model | ModelError:
    """The model in a file of this content, or the refusal; anything else fails the test."""
    path = folder / f"hostile{suffix}"
    path.write_bytes(content)
    before = time.process_time()
    try:
        result: Model | ModelError = load_model(path)
    except ModelError as error:
        result = error
    assert time.process_time() - before < PATIENCE
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    return result


def refusal(folder: Path, content: bytes, suffix: str) -> str:
    result = attempt(folder, content, suffix)
    assert isinstance(result, ModelError)
    return str(result)


# ---- drawn damage

HOSTILE = st.sampled_from(
    [
        *(None, True, -1, 0, 2, 10**6, 10**9, 2**63, 10**30, 1e308, -1.5, float("nan"), float("inf")),
        *("", "x", "..", "/etc/passwd", "\0", "a" * 5000, [], [[]], [None], [-1], [10**9] * 2, {}, {"a": 1}),
        {"class_name": "Lambda", "config": {"function": ["4wEA", None, None]}},
        {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None},
        {"class_name": "__keras_tensor__", "config": {"keras_history": ["conv", 7, 9]}},
        [["conv", 0, 0, {}]],
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_changed_configs_load_or_are_refused(name: str, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = FILES[name, suffix]
    original = config_of(content)
    folder = tmp_path_factory.mktemp("hostile")

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        config = copy.deepcopy(original)
        for _ in range(data.draw(st.integers(1, 3))):
            paths = [*places(config)]
            *parents, key = data.draw(st.sampled_from(paths))
            action = data.draw(st.sampled_from(["replace", "delete", "repeat", "exchange", "wrap"]))
            holder = at(config, tuple(parents))
            if action == "replace":
                holder[key] = copy.deepcopy(data.draw(HOSTILE))
            elif action == "delete":
                del holder[key]
            elif action == "repeat" and isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            elif action == "exchange":
                holder[key] = copy.deepcopy(at(config, data.draw(st.sampled_from(paths))))
            else:
                holder[key] = [[[holder[key]]]]
        attempt(folder, with_config(content, config), suffix)

    check()


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_changed_bytes_load_or_are_refused(name: str, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = FILES[name, suffix]
    folder = tmp_path_factory.mktemp("hostile")
    # Headers and directories stand at both ends.
    ends = st.one_of(st.integers(0, 2047), st.integers(-2048, -1), st.integers(-len(content), len(content) - 1))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(ends, st.integers(0, 255)), min_size=1, max_size=8))
    def check(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(content)
        for where, byte in changes:
            damaged[where] = byte
        attempt(folder, bytes(damaged), suffix)

    check()


# ---- archives


@pytest.mark.parametrize("name", ["../../outside", "/outside", "C:\\outside", "config.json/..", "a\\..\\b", "x" * 5000])
def test_members_are_never_unpacked(tmp_path: Path, name: str) -> None:
    assert isinstance(attempt(tmp_path, with_member(name, b"x"), ".keras"), Model)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    content = zipped([*members(ARCHIVE).items(), (name, b"{}")])
    law = "the members of hostile.keras must have names of their own"
    assert refusal(tmp_path, content, ".keras") == f"{law}. Received two {name!r}."


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
@pytest.mark.parametrize("text", [b"[" * (8 << 20), b"[" + b"{}," * (4 << 20) + b"0]"])
def test_texts_that_fill_the_memory_are_refused(tmp_path: Path, name: str, text: bytes) -> None:
    content = with_member(name, text, zipfile.ZIP_DEFLATED)
    assert refusal(tmp_path, content, ".keras").startswith(f"`{name}` in hostile.keras must not unpack to more than ")


def test_a_large_text_that_is_no_bomb_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    words = rng.integers(0, 10**15, 400_000)
    metadata = {"keras_version": "3.9.0", "note": [str(word) for word in words]}
    content = with_member("metadata.json", json.dumps(metadata).encode(), zipfile.ZIP_DEFLATED)
    model = attempt(tmp_path, content, ".keras")
    assert isinstance(model, Model)
    assert model.provenance.keras_version == "3.9.0"


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(ARCHIVE)
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[start] |= 1
    assert refusal(tmp_path, bytes(content), ".keras").startswith("hostile.keras is no .keras file, or is damaged")


# ---- HDF5


@pytest.mark.parametrize("where", ["model_weights", "model_weights/dense", "model_weights/dense/dense/kernel"])
@pytest.mark.parametrize("kind", LINK)
def test_links_are_not_followed(tmp_path: Path, kind: str, where: str) -> None:
    def change(root: Any) -> None:
        path = where if where in root else next(p for p in found if p.endswith("kernel") and "dense" in p)
        del root[path]
        root[path] = LINK[kind]()

    found: list[str] = []
    with h5py.File(io.BytesIO(HDF5), "r") as root:
        root.visit(found.append)
    text = refusal(tmp_path, changed_hdf5(HDF5, change), ".h5")
    assert "must hold its weights itself. Received: a link" in text


def test_a_group_that_holds_itself_is_refused(tmp_path: Path) -> None:
    def change(root: Any) -> None:
        del root["model_weights/dense"]
        root["model_weights/dense"] = root["model_weights"]

    assert "the weights in hostile.h5 must be those of the model" in refusal(
        tmp_path, changed_hdf5(HDF5, change), ".h5"
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("everything", [True, False])
def test_arrays_of_absurd_extents_are_refused(tmp_path: Path, suffix: str, everything: bool) -> None:
    def change(root: Any) -> None:
        container = "layers" if suffix == ".keras" else "model_weights"
        found: list[str] = []
        root[container].visit(found.append)
        path = container if everything else f"{container}/{next(p for p in found if p.endswith(('kernel', 'vars/0')))}"
        del root[path]
        root.create_dataset(path, (1 << 20, 1 << 20), "f4", chunks=(256, 256), compression="gzip")

    if suffix == ".h5":
        content = changed_hdf5(HDF5, change)
    else:
        content = with_member("model.weights.h5", changed_hdf5(members(ARCHIVE)["model.weights.h5"], change))
    assert "(1048576, 1048576)" in refusal(tmp_path, content, suffix) or everything


@pytest.mark.parametrize("dtype", ["S4", [("a", "f4"), ("b", "i4")], h5py.vlen_dtype("f4"), h5py.ref_dtype])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    def change(root: Any) -> None:
        found: list[str] = []
        root.visit(found.append)
        path = next(p for p in found if p.endswith("kernel"))
        shape = root[path].shape
        del root[path]
        root.create_dataset(path, shape, dtype)

    assert "must hold numbers. Received: dtype" in refusal(tmp_path, changed_hdf5(HDF5, change), ".h5")


def test_a_heap_of_texts_without_an_end_is_refused(tmp_path: Path) -> None:
    content = bytearray(HDF5)
    first = content.index(b"GCOL") + 16
    content[first + 8] += 8  # the size of the first text, so that the next one is looked for inside another
    text = refusal(tmp_path, bytes(content), ".h5")
    assert text.startswith("hostile.h5 is damaged: its texts at byte ")


def test_a_text_that_says_to_be_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(HDF5)
    address = content.index(b"GCOL").to_bytes(8, "little")
    place = content.index(address)
    while content[place + 8 : place + 12] != b"\x01\0\0\0":  # the first object of the heap
        place = content.index(address, place + 1)
    content[place - 4 : place] = (1_500_000_000).to_bytes(4, "little")
    text = refusal(tmp_path, bytes(content), ".h5")
    assert text == f"hostile.h5 is damaged: byte {place - 4:,} says that a text is longer than the file."


def test_attributes_are_texts_or_numbers(tmp_path: Path) -> None:
    def change(root: Any) -> None:
        del root.attrs["keras_version"]
        root.attrs.create("keras_version", np.zeros(2), dtype=[("major", "f4"), ("minor", "f4")], shape=(2,))

    text = "attribute `keras_version` of `/` must hold texts or numbers."
    assert refusal(tmp_path, changed_hdf5(HDF5, change), ".h5") == text


# ---- configs


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    config = config_of(ARCHIVE)
    flag = tmp_path.parent / "run"
    config["config"]["layers"][1] = {
        **config["config"]["layers"][1],
        "module": "os",
        "class_name": "system",
        "config": {"command": f"touch {flag}"},
        "registered_name": "system",
    }
    assert "cannot compile" in refusal(tmp_path, with_config(ARCHIVE, config), ".keras")
    assert not flag.exists()


def test_layers_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    config = config_of(ARCHIVE)
    by_name = {layer["name"]: layer for layer in config["config"]["layers"]}
    by_name["conv"]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["norm", 0, 0]
    assert "wait for results that never come" in refusal(tmp_path, with_config(ARCHIVE, config), ".keras")


def test_errors_show_the_beginning_of_long_values(tmp_path: Path) -> None:
    for value in ("a" * 100_000, [[1, 2, 3]] * 50_000):
        config = config_of(ARCHIVE)
        config["config"]["layers"][1]["config"]["padding"] = value
        assert len(refusal(tmp_path, with_config(ARCHIVE, config), ".keras")) < 500


def test_of_very_many_unknown_layers_some_are_named(tmp_path: Path) -> None:
    entries = [{"class_name": f"Custom{i}", "config": {"name": f"c{i}"}} for i in range(3000)]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}
    text = refusal(tmp_path, with_config(ARCHIVE, config), ".keras")
    assert "uses 3000 layers kcompile cannot compile" in text
    assert "\n  ... and 2900 more\n" in text
    assert len(text) < 20_000


def test_an_input_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    config = config_of(ARCHIVE)
    config["config"]["input_layers"] = [["image", 0, 0], ["image", 0, 0]]
    text = refusal(tmp_path, with_config(ARCHIVE, config), ".keras")
    assert text == "the inputs of model `branched` must be different tensors. Received: image, image."


def test_names_are_text(tmp_path: Path) -> None:
    config = config_of(ARCHIVE)
    config["config"]["layers"][1]["config"]["name"] = [["conv"]]
    text = refusal(tmp_path, with_config(ARCHIVE, config), ".keras")
    assert text == "the name of a 'Conv2D' in `branched` must be text. Received: [['conv']]."
    config["config"]["layers"][1]["config"]["name"] = "a" * 100_000
    config["config"]["layers"][1]["class_name"] = "B" * 100_000
    assert len(refusal(tmp_path, with_config(ARCHIVE, config), ".keras")) < 1000


def test_weights_that_are_no_numbers_load_and_are_named_when_compiled(tmp_path: Path) -> None:
    model = branched()
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([kernel * np.nan, bias])
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert np.isnan(loaded.get_layer("dense").get_weights()[0]).all()
    text = error_of(ModelError, lambda: kcompile.compile(loaded, "onnx", tmp_path / "m.onnx"))
    assert text.startswith("the weights of branched must be finite numbers, or no output is one. Received: NaN or ")
    assert "`dense/kernel`" in text
    assert not (tmp_path / "m.onnx").exists()


# ---- memory

LIMITED = """
import resource, sys
from pathlib import Path
import kcompile
from kcompile.errors import ModelError
import kcompile.frontend.keras_file
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
try:
    kcompile.load_model(sys.argv[1])
except ModelError as error:
    print("refused:", str(error)[:200])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured as Linux does it")
@pytest.mark.parametrize("case", ["text", "weights", "units", "array"])
def test_hostile_files_are_refused_within_half_a_gigabyte(tmp_path: Path, case: str) -> None:
    config = config_of(ARCHIVE)
    if case == "text":
        content = with_member("config.json", b"[" + b"{}," * (16 << 20) + b"0]", zipfile.ZIP_DEFLATED)
    elif case == "weights":
        content = with_member("model.weights.h5", bytes(1 << 30), zipfile.ZIP_DEFLATED)
    elif case == "units":
        config["config"]["layers"][1]["config"]["filters"] = 10**8
        content = with_config(ARCHIVE, config)
    else:
        content = with_member("model.weights.h5", changed_hdf5(members(ARCHIVE)["model.weights.h5"], _inflate))
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("refused: ")


def _inflate(root: Any) -> None:
    found: list[str] = []
    root.visit(found.append)
    path = next(p for p in found if p.endswith("vars/0"))
    del root[path]
    root.create_dataset(path, (1 << 14, 1 << 14, 4), "f4", chunks=(256, 256, 4), compression="gzip")
