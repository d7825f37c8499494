"""A stream of /v1/responses that cannot go on ends as its API says, with the numbers that follow."""

import json
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.surfaces.responses import ResponseWords
from glm_gateway.surfaces.routes import Api
from glm_gateway.surfaces.words import Words

LOST = Failure(503, "the group was lost", "service_unavailable", code="group_lost", retry_after_s=1)


def event(kind: str, number: int, **fields: Any) -> bytes:
    body = json.dumps({"type": kind, **fields, "sequence_number": number}, ensure_ascii=False)
    return f"event: {kind}\ndata: {body}\n\n".encode()


CREATED = event("response.created", 0, response={"id": "resp_g_1", "status": "in_progress", "output": []})


def ends(*told: bytes, failure: Failure = LOST) -> list[tuple[str, Any]]:
    words = ResponseWords(Words(Api.OPENAI, "r"))
    for each in told:
        words.hear(each)
    found = []
    for block in words.event(failure).decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_it_fails_by_its_id_with_the_numbers_that_follow() -> None:
    error, failed = ends(CREATED, event("x", 1) + event("x", 2, delta='"sequence_number":9, "'), b": still here\n\n")
    assert error == (
        "error",
        {"type": "error", "code": "group_lost", "message": LOST.message, "param": None, "sequence_number": 3},
    )
    response = {"id": "resp_g_1", "output": [], "status": "failed"}
    response |= {"error": {"code": "server_error", "message": LOST.message}}
    assert failed == ("response.failed", {"type": "response.failed", "response": response, "sequence_number": 4})


ONE, TWO, WAITS = event("x", 1), event("x", 2), b": still here\n\n"
TOLD = CREATED + ONE + TWO


@pytest.mark.parametrize(
    "told",
    [
        (CREATED, ONE, WAITS + TWO),
        (WAITS + CREATED, ONE, TWO + WAITS),
        (CREATED + ONE + TWO[:20], TWO[20:]),
        (TOLD[:30], TOLD[30:-1], TOLD[-1:]),
        (CREATED, ONE + TWO, b"event: y\n"),
        (CREATED, ONE + TWO, b""),
    ],
)
def test_numbers_follow_however_the_events_came(told: tuple[bytes, ...]) -> None:
    error, failed = ends(*told)
    assert (error[1]["sequence_number"], failed[1]["sequence_number"]) == (3, 4)
    assert failed[1]["response"]["id"] == "resp_g_1"


@pytest.mark.parametrize("told", [(), (b": waiting\n\n",), (b": waiting\n\n", b": waiting\n\n")])
def test_one_of_which_the_client_knows_nothing_is_an_error_alone(told: tuple[bytes, ...]) -> None:
    ((name, data),) = ends(*told)
    assert (name, data["type"], data["sequence_number"]) == ("error", "error", 0)
    assert data["error"]["message"] == data["message"] == LOST.message


def test_a_request_that_is_refused_late_is_the_clients() -> None:
    assert ends(CREATED, failure=Failure(400, "m", "t"))[1][1]["response"]["error"]["code"] == "invalid_prompt"


def test_what_is_no_stream_has_the_words_of_its_api() -> None:
    words = Words(Api.OPENAI, "r")
    assert ResponseWords(words).body(LOST) == words.body(LOST)
