"""JSON that is written in parts is the JSON of the whole."""

import json
from typing import Any

import msgspec
import pytest

from glm_worker.server.text.long_json import json_of, parts_of


@pytest.mark.parametrize("length", [0, 1, 8191, 8192, 8193, 30_000])
def test_lists_of_any_length_are_written_whole_and_once(length: int) -> None:
    value: dict[str, Any] = {"count": length, "tokens": list(range(length)), "names": [f"é{n}" for n in range(length)]}
    assert json_of(value) == msgspec.json.encode(value)
    assert json.loads(json_of(value)) == value


def test_what_is_no_list_stays_as_it_is() -> None:
    value = {"prompt": 'a "b"\n数字', "nothing": None, "object": {"list": [1, [2]]}, "lists": [[1], [], {"a": [2]}]}
    assert json.loads(json_of(value)) == value


@pytest.mark.parametrize("length", [0, 1, 1024, 1025, 5000])
def test_parts_are_the_same_json_however_deep_the_long_lists_lie(length: int) -> None:
    spelled = msgspec.Raw(msgspec.json.encode({"token": "é", "bytes": [195, 169], "top_logprobs": []}))
    value = {
        "choices": [{"index": 0, "logprobs": {"content": [spelled] * length, "refusal": None}, "text": "a\n"}],
        "usage": {},
        "none": [],
        "tokens": list(range(length)),
        "pairs": [[1, "a"]] * length,
    }
    assert b"".join(parts_of(value)) == msgspec.json.encode(value)


def test_no_part_is_much_longer_than_others() -> None:
    lengths = [len(part) for part in parts_of({"tokens": ["word"] * 500_000})]
    assert len(lengths) > 10
    assert max(lengths) < 2 * 2**18
