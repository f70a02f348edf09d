"""Head maps as files: what is written is read, old ones too, and one line is one head."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.head_map import Evaluation, HeadMap, MappedHead, Score, encode_head_map, load_head_map
from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEADS = (
    MappedHead(0, 1, (), {"local": Score(0.2, 0.1, 0.3)}),
    MappedHead(1, 0, ("retrieval", "induction"), {"documents": Score(0.9, 0.8, 0.95), "induction": Score(0.7, 0.6, 0.8)}),
    MappedHead(1, 2, ("retrieval",), {"documents": Score(0.85, 0.7, 0.9)}),
)
EVALUATION = Evaluation(12, {"retrieval_heads": Score(0.95, 0.9, 1.0), "prompt_tokens": Score(0.5, 0.5, 0.5)})
MAP = HeadMap(2, "served", 2, 3, HEADS, "ab" * 32, EVALUATION, {"seed": 0})
FIRST = {
    "version": 1, "model": "served", "layers": 2, "heads_per_layer": 3, "kind": "retrieval", "model_sha256": "cd" * 32,
    "heads": [{"layer": 1, "head": 2, "score": 0.9}, {"layer": 0, "head": 0, "score": 0.8}], "provenance": {"by": "hand"},
}  # fmt: skip


def load(folder: Path, content: bytes) -> HeadMap:
    path = folder / "map.json"
    path.write_bytes(content)
    return load_head_map(str(path))


def test_what_is_written_is_read(tmp_path: Path):
    assert load(tmp_path, encode_head_map(MAP)) == MAP
    nothing = msgspec.structs.replace(MAP, heads=(), evaluation=None)
    assert load(tmp_path, encode_head_map(nothing)) == nothing


def test_one_line_is_one_head():
    """Two maps can be compared line by line, and a head can be found with grep."""
    text = encode_head_map(MAP).decode()
    lines = [line for line in text.splitlines() if '{"layer":' in line]
    assert [json.loads(line.strip().rstrip(",")) for line in lines] == json.loads(text)["heads"]
    assert json.loads(lines[1].strip().rstrip(",")) == {
        "layer": 1, "head": 0, "classes": ["retrieval", "induction"],
        "scores": {"documents": [0.9, 0.8, 0.95], "induction": [0.7, 0.6, 0.8]},
    }  # fmt: skip
    assert text.endswith("}\n")


def test_a_class_is_a_mask():
    """The ratio over retrieval heads uses them and no others."""
    assert MAP.members("retrieval") == ((1, 0), (1, 2))
    np.testing.assert_array_equal(MAP.mask(), [[False, False, False], [True, False, True]])
    np.testing.assert_array_equal(MAP.mask("induction"), [[False, False, False], [True, False, False]])
    assert not MAP.mask("sink").any()


def test_maps_of_version_1_are_still_read(tmp_path: Path):
    """Their heads are the retrieval heads; the hash of one file is not passed off as the hash of the weights."""
    loaded = load(tmp_path, json.dumps(FIRST).encode())
    assert loaded.version == 2
    assert loaded.members("retrieval") == ((1, 2), (0, 0))
    assert loaded.heads[0].scores == {"documents": Score(0.9)}
    assert (loaded.model, loaded.layers, loaded.heads_per_layer) == ("served", 2, 3)
    assert loaded.provenance == {"by": "hand"}
    assert loaded.model_sha256 == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "no head map"),
        ({"version": "2"}, "no head map"),
        ({"haeds": []}, "unknown field"),
        ({"heads": [{"layer": 0, "head": 0, "classes": ["retreival"], "scores": {}}]}, "no head map"),
        ({"heads": [{"layer": 0, "head": 0, "classes": [], "scores": {"smell": [0.1]}}]}, "no head map"),
        ({"heads": [{"layer": 2, "head": 0, "classes": [], "scores": {}}]}, "layer 2 head 0 is outside 2 layers of 3 heads"),
        ({"heads": [{"layer": 0, "head": 3, "classes": [], "scores": {}}]}, "layer 0 head 3 is outside"),
    ],
)
def test_what_is_no_map_is_said_so(tmp_path: Path, change: dict[str, object], message: str):
    """One line that names the file and what is wrong in it."""
    content = json.loads(encode_head_map(MAP)) | change
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, json.dumps(content).encode())
    assert "map.json" in str(caught.value)


def test_a_file_that_is_no_json_or_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="no head map"):
        load(tmp_path, b"{")
    with pytest.raises(ConfigError, match="cannot read head map"):
        load_head_map(str(tmp_path / "missing.json"))
