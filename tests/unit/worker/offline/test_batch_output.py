"""The file of answers: whole lines, taken up after any end of the process that wrote it."""

import json
from pathlib import Path

import pytest

from glm_worker.errors import ConfigError
from glm_worker.offline.asgi import Reply
from glm_worker.offline.batch.lines import BatchLine, key_of
from glm_worker.offline.batch.output import Output


def a_request(custom_id: str) -> BatchLine:
    return BatchLine(custom_id, "POST", "/v1/completions", b"{}")  # type: ignore[arg-type]


def an_answer(status: int = 200) -> Reply:
    return Reply(status, {"x-request-id": "r"}, b'{"id": "cmpl-1"}')


def keys(*custom_ids: str) -> set[bytes]:
    return {key_of(each) for each in custom_ids}


def test_answers_are_lines_in_the_form_of_openai(tmp_path: Path) -> None:
    with Output(tmp_path / "out") as output:
        output.write(a_request("é\n"), an_answer())
    (line,) = (tmp_path / "out").read_text().splitlines()
    said = json.loads(line)
    assert said.pop("id").startswith("batch_req_")
    assert said == {
        "custom_id": "é\n",
        "response": {"status_code": 200, "request_id": "r", "body": {"id": "cmpl-1"}},
        "error": None,
    }


def test_a_second_run_knows_what_the_first_has_done(tmp_path: Path) -> None:
    with Output(tmp_path / "out") as output:
        output.write(a_request("a"), an_answer())
        output.write(a_request("b"), an_answer(400))
    with Output(tmp_path / "out") as output:
        assert (output.done, output.refused) == (keys("a", "b"), keys("b"))
        output.write(a_request("c"), an_answer())
    assert len((tmp_path / "out").read_text().splitlines()) == 3


@pytest.mark.parametrize("num_bytes", [1, 10, -1])
def test_a_torn_last_line_is_taken_away(tmp_path: Path, num_bytes: int) -> None:
    with Output(tmp_path / "out") as output:
        output.write(a_request("a"), an_answer())
        whole = (tmp_path / "out").read_bytes()
        output.write(a_request("b"), an_answer())
    (tmp_path / "out").write_bytes(whole + (tmp_path / "out").read_bytes()[len(whole) :][:num_bytes])
    with Output(tmp_path / "out") as output:
        assert output.done == keys("a")
        assert (tmp_path / "out").read_bytes() == whole
        output.write(a_request("b"), an_answer())
    assert [json.loads(line)["custom_id"] for line in (tmp_path / "out").read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "hello\n",
        '{"custom_id": "a", "method": "POST"}\n',
        "[]\n",
        "\n",
        "hello",
        '{"custom_id": "a", "method": "POST"}',
        '{"important": true}',
        '{"id":"batch_res_1"}',
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "out").write_text(content)
    with pytest.raises(ConfigError, match="out, line 1, is no answer of a batch"):
        Output(tmp_path / "out")
    assert (tmp_path / "out").read_text() == content


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with Output(tmp_path / "out"), pytest.raises(ConfigError, match="is being written by another process"):
        Output(tmp_path / "out")


def test_a_device_that_never_ends_is_no_file_of_answers() -> None:
    with pytest.raises(ConfigError, match="/dev/null is no regular file"):
        Output(Path("/dev/null"))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        Output(tmp_path)
