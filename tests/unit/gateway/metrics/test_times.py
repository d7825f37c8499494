"""What a request's moments become: observations of its class, and one verdict."""

from dataclasses import dataclass, field

import pytest

from glm_edge.frames import Close, Open, Tokens
from glm_gateway.ladder.config import HeaderConfig, SloClassConfig, SloConfig
from glm_gateway.metrics.classes import ModelClasses, families
from glm_gateway.metrics.times import RequestTimes
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.surfaces.thinking import Mode

FAST = SloClassConfig(name="fast", thinking="disabled", thresholds_s={"ttft": 1.0, "itl": 0.2})
DEEP = SloClassConfig(name="deep", thinking="enabled", thresholds_s={"ttfa": 10.0, "e2e": 60.0})
GOLD = SloClassConfig(
    name="gold", header=HeaderConfig(name="x-tier", value="gold"), thresholds_s={"ttft": 0.5}, objective=0.999
)


@dataclass
class Desk:
    """A model's classes, and a clock that stands until it is moved."""

    classes: ModelClasses = field(default_factory=lambda: ModelClasses("chat"))
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.classes.promise(SloConfig(classes=(GOLD, FAST, DEEP)))

    def request(
        self, mode: Mode | None = None, *, streams: bool = True, headers: list[tuple[bytes, bytes]] | None = None
    ) -> RequestTimes:
        return RequestTimes(self.classes, headers or [], mode=mode, streams=streams, clock=lambda: self.now_s)

    def after(self, seconds: float) -> None:
        self.now_s += seconds

    def told(self) -> dict[str, float]:
        """Every series but buckets, by its name and labels in short."""
        return {
            f"{sample.name.removeprefix('glm_gateway_')} {' '.join(list(sample.labels.values())[1:])}": sample.value
            for family in families([self.classes])
            for sample in family.samples
            if not sample.name.endswith("_bucket")
        }


@pytest.fixture
def desk() -> Desk:
    return Desk()


def opened(thinking: str | None = None, num_answers: int = 1) -> Open:
    headers = [("content-type", "text/event-stream")] + ([("X-GLM-Thinking", thinking)] if thinking else [])
    return Open(
        id="a", created=1, seeds=list(range(num_answers)), status=200, headers=headers, num_prompt_tokens=3,
        fingerprint="f",
    )  # fmt: skip


def some(number: int, index: int = 0) -> Tokens:
    return Tokens(ids=[(index, list(range(number)))])


def close(thoughts: int, answer: int) -> Close:
    return Close(
        num_prompt_tokens=3, num_cached_tokens=0, num_reasoning_tokens=thoughts, num_answer_tokens=answer, reasons=[]
    )


def finish(times: RequestTimes) -> None:
    times.ended(Outcome.FINISHED, is_plain=False, first_byte_s=None)


def test_the_wait_before_a_group_takes_the_request_is_a_part_of_its_first_token(desk: Desk) -> None:
    times = desk.request("disabled")
    desk.after(4.0)
    times.opened(opened("disabled; by=request"))
    desk.after(0.5)
    times.tokens(some(1))
    told = desk.told()
    assert told["time_to_first_token_seconds_sum fast"] == 4.5
    assert told["time_to_first_answer_token_seconds_sum fast"] == 4.5
    assert told["slo_requests_total fast false"] == 1


def test_what_auto_became_decides_the_class(desk: Desk) -> None:
    for thinking in ("enabled; by=auto", "disabled; by=auto", "disabled; by=auto"):
        times = desk.request("auto")
        times.opened(opened(thinking))
        times.tokens(some(1))
        times.closed(close(0, 1))
        finish(times)
    told = desk.told()
    assert (told["e2e_request_latency_seconds_count deep"], told["e2e_request_latency_seconds_count fast"]) == (1, 2)
    assert (told["slo_requests_total deep true"], told["slo_requests_total fast true"]) == (1, 2)


def test_a_reply_that_says_nothing_of_thinking_does_not_think(desk: Desk) -> None:
    times = desk.request()
    times.opened(opened())
    times.tokens(some(1))
    assert desk.told()["time_to_first_token_seconds_count fast"] == 1


def test_a_header_of_the_client_decides_before_any_reply(desk: Desk) -> None:
    times = desk.request("auto", headers=[(b"x-tier", b"gold"), (b"authorization", b"secret")])
    desk.after(0.6)
    desk.classes.look()
    assert desk.told()["slo_requests_total gold false"] == 1
    assert b"secret" not in repr(vars(times)).encode()


def test_the_first_answer_token_is_found_behind_the_thoughts_when_the_reply_is_complete(desk: Desk) -> None:
    times = desk.request("enabled")
    times.opened(opened("enabled; by=request"))
    for number in (2, 2, 2, 1):  # 5 thoughts: the third frame holds the last of them and the first of the answer
        desk.after(1.0)
        times.tokens(some(number))
    assert desk.told()["time_to_first_answer_token_seconds_count deep"] == 0
    times.closed(close(5, 2))
    finish(times)
    told = desk.told()
    assert told["time_to_first_answer_token_seconds_sum deep"] == 3.0
    assert told["slo_requests_total deep true"] == 1


def test_an_answer_that_never_left_its_thoughts_is_judged_by_its_whole_time(desk: Desk) -> None:
    times = desk.request("enabled")
    times.opened(opened("enabled; by=request"))
    times.tokens(some(5))
    desk.after(11.0)
    times.closed(close(5, 0))
    finish(times)
    told = desk.told()
    assert told["time_to_first_answer_token_seconds_count deep"] == 0
    assert told["slo_requests_total deep false"] == 1


def test_of_several_answers_that_think_none_knows_its_first_answer_token_and_none_is_judged_by_it(desk: Desk) -> None:
    times = desk.request("enabled")
    times.opened(opened("enabled; by=request", num_answers=2))
    times.tokens(Tokens(ids=[(0, [1]), (1, [2])]))
    times.closed(close(1, 1))
    finish(times)
    told = desk.told()
    assert told["slo_requests_total deep true"] == told["slo_requests_total deep false"] == 0
    assert told["e2e_request_latency_seconds_count deep"] == 1


def test_the_gap_of_an_answer_is_shared_among_the_tokens_that_come_together(desk: Desk) -> None:
    times = desk.request("disabled")
    times.opened(opened("disabled; by=request", num_answers=2))
    times.tokens(Tokens(ids=[(0, [1, 2]), (1, [1])]))
    desk.after(0.4)
    times.tokens(Tokens(ids=[(0, [3, 4]), (1, [])]))
    desk.after(0.4)
    times.tokens(some(1, index=1))
    told = desk.told()
    assert told["inter_token_latency_seconds_count fast"] == 3
    assert told["inter_token_latency_seconds_sum fast"] == pytest.approx(0.4 + 0.8)


def test_the_pause_while_another_group_goes_on_is_a_gap(desk: Desk) -> None:
    times = desk.request("disabled")
    times.opened(opened("disabled; by=request"))
    times.tokens(some(1))
    desk.after(3.0)
    times.opened(opened("enabled; by=auto", num_answers=1))  # a later group's head is not the client's
    times.tokens(some(1))
    times.closed(close(0, 2))
    finish(times)
    told = desk.told()
    assert told["inter_token_latency_seconds_sum fast"] == 3.0
    assert told["slo_requests_total fast false"] == 1


def test_what_waits_too_long_is_missed_before_it_ends_and_counted_once(desk: Desk) -> None:
    times = desk.request("disabled")
    desk.after(0.9)
    desk.classes.look()
    assert desk.told()["slo_requests_total fast false"] == 0
    desk.after(0.2)
    desk.classes.look()
    desk.classes.look()
    times.ended(Outcome.FAILED, is_plain=False, first_byte_s=None)
    told = desk.told()
    assert (told["slo_requests_total fast false"], told["slo_requests_total fast true"]) == (1, 0)
    assert told["time_to_first_token_seconds_count fast"] == 0
    assert not desk.classes.watched


def test_what_may_be_of_either_class_is_not_judged_before_its_reply(desk: Desk) -> None:
    desk.request("auto")
    desk.after(1000.0)
    desk.classes.look()
    assert not any(value for name, value in desk.told().items() if name.startswith("slo_requests"))


@pytest.mark.parametrize(
    ("outcome", "waited_s", "missed"),
    [
        (Outcome.REFUSED, 5.0, 0),
        (Outcome.FAILED, 0.0, 1),
        (Outcome.CANCELLED, 0.5, 0),
        (Outcome.CANCELLED, 5.0, 1),
    ],
)
def test_what_did_not_finish_is_missed_unless_it_is_the_clients_own_doing(
    desk: Desk, outcome: Outcome, waited_s: float, missed: int
) -> None:
    times = desk.request("disabled")
    desk.after(waited_s)
    times.ended(outcome, is_plain=False, first_byte_s=None)
    told = desk.told()
    assert (told["slo_requests_total fast false"], told["slo_requests_total fast true"]) == (missed, 0)
    assert told["e2e_request_latency_seconds_count fast"] == 0


def test_a_plain_reply_that_was_in_time_as_far_as_it_tells_is_not_judged(desk: Desk) -> None:
    times = desk.request("disabled")
    desk.after(0.3)
    first_s = desk.now_s
    desk.after(1.0)
    times.ended(Outcome.FINISHED, is_plain=True, first_byte_s=first_s)
    told = desk.told()
    assert told["time_to_first_token_seconds_sum fast"] == pytest.approx(0.3)
    assert told["e2e_request_latency_seconds_sum fast"] == pytest.approx(1.3)
    assert told["slo_requests_total fast true"] == told["slo_requests_total fast false"] == 0


def test_a_plain_reply_that_began_late_is_missed(desk: Desk) -> None:
    times = desk.request("disabled")
    desk.after(1.3)
    times.ended(Outcome.FINISHED, is_plain=True, first_byte_s=desk.now_s)
    assert desk.told()["slo_requests_total fast false"] == 1


def test_a_whole_plain_reply_does_not_tell_when_its_first_token_was(desk: Desk) -> None:
    times = desk.request("disabled", streams=False)
    desk.after(30.0)
    times.ended(Outcome.FINISHED, is_plain=True, first_byte_s=desk.now_s)
    told = desk.told()
    assert told["time_to_first_token_seconds_count fast"] == 0
    assert told["slo_requests_total fast true"] == told["slo_requests_total fast false"] == 0


def test_a_request_is_judged_by_the_promise_of_its_arrival(desk: Desk) -> None:
    times = desk.request("disabled")
    desk.classes.promise(SloConfig(classes=(SloClassConfig(name="other", thresholds_s={"ttft": 0.001}),)))
    times.opened(opened("disabled; by=request"))
    desk.after(0.5)
    times.tokens(some(1))
    times.closed(close(0, 1))
    finish(times)
    told = desk.told()
    assert told["slo_requests_total other false"] == told["slo_requests_total other true"] == 0
    assert not any(name.endswith(" fast") for name in told)


def test_a_class_that_stays_keeps_its_counts_and_other_thresholds_begin_other_edges(desk: Desk) -> None:
    times = desk.request("disabled")
    times.opened(opened("disabled; by=request"))
    times.tokens(some(1))
    times.closed(close(0, 1))
    finish(times)
    desk.classes.promise(SloConfig(classes=(FAST.model_copy(update={"objective": 0.5}),)))
    assert desk.told()["time_to_first_token_seconds_count fast"] == 1
    desk.classes.promise(SloConfig(classes=(FAST.model_copy(update={"thresholds_s": {"ttft": 3.0}}),)))
    told = desk.told()
    assert (told["time_to_first_token_seconds_count fast"], told["slo_requests_total fast true"]) == (0, 1)
    assert told["slo_threshold_seconds fast ttft"] == 3.0


def test_a_server_outside_shows_no_tokens() -> None:
    named = {sample.name for family in families([ModelClasses("far", is_outside=True)]) for sample in family.samples}
    assert {name.rpartition("_seconds")[0] for name in named} == {
        "glm_gateway_time_to_first_token",
        "glm_gateway_e2e_request_latency",
    }
