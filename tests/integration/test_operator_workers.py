"""What leaders of groups say at /group, and what becomes of those that do not answer."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from glm_operator.cluster import workers
from glm_operator.cluster.workers import REMEMBERED_S, NotTaken, PutRefused, Workers, group_url
from unit.operator.operator_builders import a_group, a_pod

ALL = [f"chat-g{index}" for index in range(4)]
SERVING = {"group": "chat-g0", "state": "serving", "generation": "a-1", "load": {"done_bytes": 3, "total_bytes": 3}}


def some_workers(answers: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> Workers:
    """Return workers by the address of their leader: an answer, an exception, or None for silence."""

    async def answer(request: httpx.Request) -> httpx.Response:
        said = answers[request.url.host]
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, httpx.Response) else httpx.Response(200, json=said)

    return Workers(httpx.AsyncClient(transport=httpx.MockTransport(answer)), clock)


def a_led_group(index: int, ip: str | None, **pod: Any) -> Any:
    return a_group(index, pods=(a_pod(f"chat-g{index}", ip=ip, **pod),))


async def ask(answers: dict[str, Any], *groups: Any) -> dict[str, str]:
    asked = some_workers(answers)
    try:
        return {name: report.state for name, report in (await asked.reports(groups, ALL)).items()}
    finally:
        await asked.close()


async def test_each_leader_is_asked() -> None:
    answers = {"10.0.0.1": SERVING, "10.0.0.2": {**SERVING, "state": "starting"}}
    said = await ask(answers, a_led_group(0, "10.0.0.1"), a_led_group(1, "10.0.0.2"))
    assert said == {"chat-g0": "serving", "chat-g1": "starting"}


async def test_fields_of_another_version_are_ignored() -> None:
    assert await ask({"10.0.0.1": {**SERVING, "mood": "good"}}, a_led_group(0, "10.0.0.1")) == {"chat-g0": "serving"}


@pytest.mark.parametrize(
    "answer",
    [httpx.ConnectError("refused"), httpx.Response(500), httpx.Response(200, text="<html>"), {"state": "dancing"}],
    ids=["refused", "error", "not json", "unknown state"],
)
async def test_one_that_does_not_answer_is_left_out_and_the_others_are_heard(answer: Any) -> None:
    said = await ask({"10.0.0.1": answer, "10.0.0.2": SERVING}, a_led_group(0, "10.0.0.1"), a_led_group(1, "10.0.0.2"))
    assert said == {"chat-g1": "serving"}


async def test_a_silent_one_does_not_hold_up_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DEADLINE_S", 0.05)
    asked = some_workers({"10.0.0.1": None, "10.0.0.2": SERVING})
    groups = [a_led_group(0, "10.0.0.1"), a_led_group(1, "10.0.0.2")]
    async with asyncio.timeout(30):
        while not (said := await asked.reports(groups, ALL)):  # the other may miss so short a deadline, too
            pass
    assert said.keys() == {"chat-g1"}
    await asked.close()


async def test_what_a_leader_said_counts_while_it_says_nothing_for_a_moment() -> None:
    answers: dict[str, Any] = {"10.0.0.1": SERVING}
    now_s = 100.0
    group, other = a_led_group(0, "10.0.0.1", uid="first"), a_led_group(0, "10.0.0.1", uid="second")
    asked = some_workers(answers, lambda: now_s)
    said = await asked.reports([group], ALL)
    answers["10.0.0.1"] = httpx.ConnectError("refused")
    now_s += REMEMBERED_S
    assert await asked.reports([group], ALL) == said
    assert await asked.reports([other], ALL) == {}, "another pod is asked itself"
    now_s += 1
    assert await asked.reports([group], ALL) == {}
    await asked.close()


async def test_a_leader_of_another_revision_or_without_address_is_not_asked() -> None:
    stray = a_group(1, pods=(a_pod("chat-g1", revision="old"),))
    assert await ask({}, a_led_group(0, None), stray) == {}


def test_an_address_of_ipv6_is_written_as_one() -> None:
    assert group_url("fd00::1") == "http://[fd00::1]:9090/group"
    assert group_url("10.0.0.1") == "http://10.0.0.1:9090/group"


async def test_only_those_are_asked_that_a_pass_wants_to_hear() -> None:
    asked = some_workers({"10.0.0.1": SERVING})
    groups = [a_led_group(0, "10.0.0.1", uid="first"), a_led_group(1, "10.0.0.2", uid="second")]
    assert (await asked.reports(groups, ["chat-g0"])).keys() == {"chat-g0"}
    await asked.close()


async def test_before_a_removal_only_what_is_said_now_counts() -> None:
    answers: dict[str, Any] = {"10.0.0.1": {**SERVING, "in_flight_tokens": 7}, "10.0.0.2": SERVING}
    groups = [a_led_group(0, "10.0.0.1", uid="first"), a_led_group(1, "10.0.0.2", uid="second")]
    asked = some_workers(answers)
    fresh = await asked.fresh_reports(groups)
    assert fresh["chat-g0"].in_flight_tokens == 7
    assert (fresh["chat-g1"].in_flight_tokens, fresh["chat-g1"].reports_in_flight_tokens) == (None, False)
    answers["10.0.0.1"] = httpx.ConnectError("refused")
    assert (await asked.fresh_reports(groups)).keys() == {"chat-g1"}
    await asked.close()


async def test_a_poll_tells_of_those_that_say_something_new_and_tokens_are_nothing_new() -> None:
    answers: dict[str, Any] = {"10.0.0.1": {**SERVING, "in_flight_tokens": 7}, "10.0.0.2": SERVING}
    groups = [("a", a_led_group(0, "10.0.0.1", uid="first")), ("b", a_led_group(0, "10.0.0.2", uid="second"))]
    asked = some_workers(answers)
    assert await asked.poll(groups) == {"a", "b"}
    answers["10.0.0.1"] = {**SERVING, "in_flight_tokens": 9}
    assert await asked.poll(groups) == set()
    answers["10.0.0.2"] = {**SERVING, "deaths_while_serving": 1}
    assert await asked.poll(groups) == {"b"}
    await asked.close()


PROMISES: dict[str, object] = {"classes": [{"name": "fast", "thresholds_s": {"ttft": 0.5}, "objective": 0.99}]}


async def put(answers: dict[str, Any], group: Any) -> str | None:
    asked = some_workers(answers)
    try:
        return await asked.put_slo(group, "s3cret", PROMISES)
    finally:
        await asked.close()


async def test_promises_go_to_the_leader_with_the_token() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"digest": "0123456789abcdef"})

    asked = Workers(httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    assert await asked.put_slo(a_led_group(0, "10.0.0.1"), "s3cret", PROMISES) == "0123456789abcdef"
    await asked.close()
    (request,) = seen
    assert (request.method, str(request.url)) == ("PUT", "http://10.0.0.1:9090/slo")
    assert request.headers["authorization"] == "Bearer s3cret"
    assert json.loads(request.content) == PROMISES


async def test_a_worker_of_the_version_before_has_no_such_page() -> None:
    assert await put({"10.0.0.1": httpx.Response(404, text="Not Found")}, a_led_group(0, "10.0.0.1")) is None


async def test_a_policy_goes_to_a_page_of_its_own_and_its_refusal_is_told_as_one() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(422, text="reasoning.auto_threshold is 2")

    asked = Workers(httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    with pytest.raises(PutRefused, match=r"refused the policy with 422: reasoning\.auto_threshold is 2"):
        await asked.put_policy(a_led_group(0, "10.0.0.1"), "s3cret", {"reasoning": {"auto_threshold": 2}})
    await asked.close()
    assert seen == ["http://10.0.0.1:9090/policy"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (httpx.ConnectError("refused"), "did not answer at http://10.0.0.1:9090/slo: refused"),
        (
            httpx.Response(401, text="put promises with the header\n"),
            "refused the promises with 401: put promises with",
        ),
        (httpx.Response(422, text="there are 9 classes"), "refused the promises with 422: there are 9 classes"),
        (httpx.Response(200, text="<html>"), "sent an invalid answer"),
    ],
    ids=["silent", "token", "body", "nonsense"],
)
async def test_promises_that_are_not_taken_are_reported_with_the_reason(answer: Any, sentence: str) -> None:
    with pytest.raises(NotTaken, match=re.escape(sentence)) as caught:
        await put({"10.0.0.1": answer}, a_led_group(0, "10.0.0.1"))
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, PutRefused) is not isinstance(answer, Exception), "who is silent has not refused"


async def test_a_silent_worker_holds_up_promises_no_longer_than_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DEADLINE_S", 0.05)
    with pytest.raises(NotTaken, match="did not answer"):
        await put({"10.0.0.1": None}, a_led_group(0, "10.0.0.1"))


async def test_an_answer_without_end_is_not_read_to_it() -> None:
    num_sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal num_sent
            while num_sent < 10_000:
                num_sent += 1
                yield b" " * 2**16

    group, most = a_led_group(0, "10.0.0.1"), workers.MAX_ANSWER_BYTES // 2**16 + 2
    assert await ask({"10.0.0.1": httpx.Response(200, stream=Endless())}, group) == {}
    assert num_sent <= most
    num_sent = 0
    with pytest.raises(NotTaken, match="longer than 1024 KiB"):
        await put({"10.0.0.1": httpx.Response(422, stream=Endless())}, group)
    assert num_sent <= most


async def test_a_group_without_a_leader_takes_no_promises_yet() -> None:
    with pytest.raises(NotTaken, match="group chat-g0 has no leading pod with an address yet"):
        await put({}, a_led_group(0, None))
