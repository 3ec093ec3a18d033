"""``inspect --memory --picture``."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from kcompile.cli.memory import draw
from kcompile.errors import ArtifactError

SVG = "{http://www.w3.org/2000/svg}"
MEMORY: dict[str, Any] = {
    "workspace_bytes": 96,
    "stages": [
        {"layer": "a<b", "function": "f0", "arrays": [[0, 32]]},
        {"layer": "peak", "function": "f1", "arrays": [[0, 32], [32, 64]]},
    ],
}


def test_the_picture_has_every_array_at_its_place_and_marks_the_peak(tmp_path: Path):
    draw(MEMORY, tmp_path / "m.svg")
    boxes = [box for box in ElementTree.parse(tmp_path / "m.svg").iter(f"{SVG}rect") if list(box)]
    heights = [float(box.attrib["height"]) for box in boxes]
    assert heights[1] == pytest.approx(heights[0], abs=0.1)
    assert heights[2] == pytest.approx(2 * heights[0], abs=0.1)
    tops = [float(box.attrib["y"]) for box in boxes]
    assert tops[1] == tops[0]
    assert tops[2] + heights[2] == pytest.approx(tops[1], abs=0.1)
    assert boxes[0].attrib["fill"] != boxes[1].attrib["fill"] == boxes[2].attrib["fill"]
    assert next(iter(boxes[0])).text == "a<b: 32 bytes at 0"


def test_a_picture_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"^a picture is an SVG file\. Received: .*m\.png\.$"):
        draw(MEMORY, tmp_path / "m.png")
