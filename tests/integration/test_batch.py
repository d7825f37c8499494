"""`glm-worker batch` as a user runs it: the form of the answers, and what becomes of a run that ends early."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from openai.types import Completion
from openai.types.chat import ChatCompletion

from glm_worker import main
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
FLAGS = ("--model", "builtin://glm-nano", "--threads-per-rank", "1")
Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _no_zmq_threads_are_left() -> Iterator[None]:
    """Other tests fork, which is safe only beside no threads."""
    yield
    zmq.Context.instance().term()


def a_chat(number: int, **changes: object) -> Json:
    body: Json = {
        "model": "glm-nano",
        "messages": [{"role": "user", "content": f"What is {number} + 4?"}],
        "temperature": 0,
    }
    return {"custom_id": f"chat-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body | changes}


def a_completion(number: int, **changes: object) -> Json:
    body: Json = {"model": "glm-nano", "prompt": "The", "max_tokens": 4}
    return {"custom_id": f"text-{number}", "method": "POST", "url": "/v1/completions", "body": body | changes}


def a_response(number: int) -> Json:
    body = {"model": "glm-nano", "input": f"What is {number} + 2?", "temperature": 0}
    return {"custom_id": f"response-{number}", "method": "POST", "url": "/v1/responses", "body": body}


def written(folder: Path, requests: Sequence[Json]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(f"{json.dumps(request)}\n" for request in requests))
    return path


def answers_in(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(requests: Path, answers: Path, *flags: str) -> int:
    return main.run(["batch", str(requests), str(answers), *FLAGS, *flags])


@contextmanager
def started(requests: Path, answers: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the command as a process of its own, which does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "glm_worker.main", "batch", str(requests), str(answers), *FLAGS, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT / "worker")},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "no answers come"
        time.sleep(0.01)


def test_every_request_gets_an_answer_in_the_form_of_openai(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = [*map(a_chat, range(5)), *map(a_completion, range(3)), a_response(1)]
    assert run(written(tmp_path, requests), tmp_path / "out.jsonl") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("9 of 9 requests have an answer; ")
    answers = {answer["custom_id"]: answer for answer in answers_in(tmp_path / "out.jsonl")}
    assert answers.keys() == {request["custom_id"] for request in requests}
    for answer in answers.values():
        assert answer.keys() == {"id", "custom_id", "response", "error"}
        assert answer["error"] is None
        assert answer["response"].keys() == {"status_code", "request_id", "body"}
        assert (answer["response"]["status_code"], bool(answer["response"]["request_id"])) == (200, True)
    chat = ChatCompletion.model_validate(answers["chat-3"]["response"]["body"], strict=True)
    assert chat.choices[0].message.content == "3 + 4 = 7"
    assert Completion.model_validate(answers["text-0"]["response"]["body"], strict=True).usage is not None
    response = answers["response-1"]["response"]["body"]
    assert response["object"] == "response"
    assert "1 + 2 = 3" in json.dumps(response["output"])
    assert len({answer["id"] for answer in answers.values()}) == 9


def test_a_request_that_is_refused_is_an_answer_with_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [a_chat(1), a_chat(2, temperature=9), a_chat(3, model="gpt-5"), a_completion(4, max_tokens=10**6)]
    path, out = written(tmp_path, requests), tmp_path / "out.jsonl"
    assert run(path, out) == 1
    assert "3 are errors" in capsys.readouterr().err
    status = {answer["custom_id"]: answer["response"]["status_code"] for answer in answers_in(out)}
    assert status == {"chat-1": 200, "chat-2": 400, "chat-3": 404, "text-4": 400}
    error = next(answer for answer in answers_in(out) if answer["custom_id"] == "chat-2")["response"]["body"]["error"]
    assert (error["message"], error["param"]) == ("temperature is 9; allowed: 0 to 2", "temperature")
    assert run(path, out) == 1, "nothing is left to do, and three are errors still"
    assert "4 had one before; 3 are errors" in capsys.readouterr().err
    assert len(answers_in(out)) == 4


@pytest.mark.long
def test_a_run_that_is_killed_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = [a_chat(number, max_tokens=60) for number in range(60)]
    path, out = written(tmp_path, requests), tmp_path / "out.jsonl"
    with started(path, out, "--max-num-seqs", "2") as process:
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 5, process)
        process.kill()
        process.wait()
    whole = out.read_bytes()
    before = whole[: whole.rindex(b"\n") + 1]
    assert 5 <= before.count(b"\n") < 60, "it was killed in the middle"
    out.write_bytes(before + b'{"id":"batch_req_torn","custom_id":"chat-')  # as a crash of the machine leaves it
    assert run(path, out) == 0
    assert f"{before.count(bytes([10]))} had one before" in capsys.readouterr().err
    assert out.read_bytes().startswith(before), "what was answered stays as it is"
    assert Counter(answer["custom_id"] for answer in answers_in(out)) == Counter(f"chat-{n}" for n in range(60))
    texts = {answer["custom_id"]: answer["response"]["body"] for answer in answers_in(out)}
    assert texts["chat-50"]["choices"][0]["message"]["content"] == "50 + 4 = 54"


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [pytest.param(signal.SIGINT, "SIGINT", 130, marks=pytest.mark.long), (signal.SIGTERM, "SIGTERM", 143)],
)
def test_a_run_that_is_interrupted_ends_soon_and_leaves_whole_lines(
    tmp_path: Path, number: signal.Signals, name: str, code: int
) -> None:
    requests = [a_completion(number, max_tokens=500, ignore_eos=True, n=2) for number in range(200)]
    path, out = written(tmp_path, requests), tmp_path / "out.jsonl"
    with started(path, out, "--max-num-seqs", "4") as process:
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 2, process)
        process.send_signal(number)
        began = time.monotonic()
        _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert time.monotonic() - began < 10
    assert told == f"ended by {name}; the same command goes on where this one ended\n"
    assert out.read_bytes().endswith(b"\n")
    assert 2 <= len(answers_in(out)) < 200


def test_mistakes_in_the_file_are_told_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, [a_chat(1), a_chat(2), a_chat(1), {"custom_id": "x"}])
    assert run(path, tmp_path / "out.jsonl") == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"glm-worker: {path}, line 3: custom_id 'chat-1' is that of line 1 as well; each must be its own",
        f"{path}, line 4: it is no request: Object missing required field `method`",
    ]
    assert not (tmp_path / "out.jsonl").exists()


def test_the_answers_may_not_replace_the_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, [a_chat(1)])
    before = path.read_bytes()
    assert run(path, path) == 2
    assert "is the file of the requests" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_answers_to_other_requests_stay_and_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, [a_chat(2, temperature=9)]), tmp_path / "out.jsonl"
    assert run(path, out) == 1
    others = out.read_bytes()
    assert run(written(tmp_path, [a_completion(1)]), out) == 0, "what is an error is no answer to these requests"
    told = capsys.readouterr().err
    assert "has answers to 1 requests that" in told
    assert "1 of 1 requests have an answer; " in told
    assert out.read_bytes().startswith(others)
    assert len(answers_in(out)) == 2


def test_requests_that_go_while_others_are_answered_are_told(tmp_path: Path) -> None:
    requests = [a_completion(number, user="u" * 2**16) for number in range(200)]  # more than is read at once
    path, out = written(tmp_path, requests), tmp_path / "out.jsonl"
    with started(path, out, "--max-num-seqs", "2") as process:
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 1, process)
        os.truncate(path, 0)
        _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "has changed since it was checked: " in told


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--model", "no/such/folder"), "no/such/folder is not a folder"),
        (("--max-num-seqs", "none"), "GLM_MAX_NUM_SEQS=none"),
    ],
)
def test_a_model_or_setting_that_cannot_be_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], sentence: str
) -> None:
    assert run(written(tmp_path, [a_chat(1)]), tmp_path / "out.jsonl", *flags) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with path.open("w") as file:
        for number in range(1000):
            line = json.dumps(a_completion(number, max_tokens=1))
            file.write(line.replace('"prompt"', f'{" " * 2**16}"prompt"') + "\n")
    rss = []

    def is_far(num_answers: int) -> Callable[[], bool]:
        return lambda: out.exists() and out.read_bytes().count(b"\n") >= num_answers

    # A cache of 4 MiB: pages of a larger one are first used as prompts go on, which is no growth with the file
    with started(path, out, "--kv-cache-bytes", str(4 * 2**20)) as process:
        for num_answers in (150, 900):
            wait_for(is_far(num_answers), process)
            rss.append(_rss_bytes(process.pid))
    assert rss[1] - rss[0] < 24 * 2**20, "47 MiB of requests were kept"


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
