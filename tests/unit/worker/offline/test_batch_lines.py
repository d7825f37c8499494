"""What is a request of a batch, and what is told of a line that is none."""

import json
import os
from pathlib import Path

import pytest

from glm_worker.errors import ConfigError
from glm_worker.offline.batch import lines
from glm_worker.offline.batch.lines import checked, read_lines


def a_line(custom_id: str = "a", **changes: object) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body} | changes)


def a_file(folder: Path, *said: str) -> Path:
    path = folder / "in.jsonl"
    path.write_text("\n".join(said) + "\n", encoding="utf-8")
    return path


def test_each_line_is_a_request_and_empty_ones_are_none(tmp_path: Path) -> None:
    path = a_file(tmp_path, a_line("a"), "", a_line("b", url="/v1/completions"), a_line("c", url="/v1/responses"))
    assert checked(path).num_requests == 3
    assert [(line.custom_id, line.url) for line in read_lines(path)] == [
        ("a", "/v1/chat/completions"),
        ("b", "/v1/completions"),
        ("c", "/v1/responses"),
    ]


def test_a_body_is_passed_on_as_it_stands(tmp_path: Path) -> None:
    (line,) = read_lines(a_file(tmp_path, a_line(body={"model": "m", "prompt": "é", "temperature": 0.10})))
    assert json.loads(bytes(line.body)) == {"model": "m", "prompt": "é", "temperature": 0.1}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"custom_id": "b"', "line 2: it is no request"),
        ("[]", "line 2: it is no request: Expected `object`, got `array`"),
        (a_line("b", method="GET"), "line 2: it is no request: Invalid enum value 'GET'"),
        (a_line("b", url="/v1/embeddings"), "line 2: it is no request: Invalid enum value '/v1/embeddings'"),
        (a_line("b", body=[]), "line 2: it is no request: Expected `object`, got `array`"),
        (a_line("b", more=1), "line 2: it is no request: Object contains unknown field `more`"),
        (json.dumps({"custom_id": "b"}), "line 2: it is no request: Object missing required field `method`"),
        (a_line(""), "line 2: custom_id is empty"),
        (a_line("a"), "line 2: custom_id 'a' is that of line 1 as well; each must be its own"),
        (a_line("b", body={"stream": True}), "line 2: stream is true; a batch has whole answers"),
        (a_line("b", body={"background": True}), "line 2: background is true"),
    ],
)
def test_a_line_that_is_no_request_is_named_with_its_number(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(a_file(tmp_path, a_line("a"), line))
    assert sentence in str(refused.value)


def test_all_mistakes_are_named_up_to_twenty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(a_file(tmp_path, *["{}"] * 25))
    told = str(refused.value).splitlines()
    assert len(told) == 21
    assert told[-1] == "and 5 more lines"


def test_a_line_that_is_too_long_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 200)
    path = a_file(tmp_path, a_line("a"), a_line("b", body={"prompt": "x" * 1000}), a_line("c"))
    with pytest.raises(ConfigError) as refused:
        checked(path)
    assert str(refused.value).splitlines() == [f"{path}, line 2: it is longer than 200 bytes, the most of a request"]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(a_line("a").encode() + b'\n{"custom_id": "\xff"}\n')
    with pytest.raises(ConfigError, match="line 2: it is no request"):
        checked(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_called_by_its_name(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "in.jsonl"
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    path.write_bytes((mark + a_line()).encode(encoding))
    with pytest.raises(ConfigError, match="line 1: it begins with a byte order mark; the file must be UTF-8"):
        checked(path)


def test_what_can_be_read_only_once_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.jsonl")  # to open it would be to wait for who writes
    with pytest.raises(ConfigError, match=r"in\.jsonl is no regular file; requests are read twice"):
        checked(tmp_path / "in.jsonl")


@pytest.mark.parametrize("becomes", ["{}\n", None])
def test_a_file_that_becomes_another_after_it_was_checked_is_named(tmp_path: Path, becomes: str | None) -> None:
    path = a_file(tmp_path, a_line())
    checked(path)
    path.unlink()
    if becomes is not None:
        path.write_text(becomes)
    with pytest.raises(ConfigError, match=r"in\.jsonl has changed since it was checked"):
        list(read_lines(path))


def test_a_file_without_requests_and_one_that_is_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no requests"):
        checked(a_file(tmp_path, ""))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        checked(tmp_path / "none")
