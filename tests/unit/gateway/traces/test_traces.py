"""A trace is found by the key that owns it, for as long as it is kept, and never by anybody else."""

from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.traces.config import TraceConfig
from glm_gateway.traces.trace import MAX_EVENTS, Trace
from glm_gateway.traces.traces import Traces


def a_trace(request_id: str = "r1", owner: str = "alice", began_s: float = 0.0) -> Trace:
    return Trace(request_id, owner, arrived_at=1_795_953_600.0, began_s=began_s, path="/v1/completions")


def kept(*traces: Trace, **config: object) -> Traces:
    found = Traces(TraceConfig.model_validate({"enabled": True, **config}))
    for trace in traces:
        assert found.begin(trace, trace.began_s)
        trace.end(trace.began_s + 1)
        found.end(trace)
    return found


def test_a_trace_is_its_owners_alone() -> None:
    trace = a_trace()
    traces = kept(trace)
    assert traces.find("alice", "r1", 2.0) is trace
    assert traces.find("bob", "r1", 2.0) is None
    assert traces.find("alice", "r2", 2.0) is None


def test_two_keys_may_use_one_id_and_a_key_that_uses_it_again_means_the_later_request() -> None:
    hers, his, again = a_trace(), a_trace(owner="bob"), a_trace(began_s=5)
    traces = kept(hers, his, again)
    assert traces.find("alice", "r1", 7.0) is again
    assert traces.find("bob", "r1", 7.0) is his


def test_a_request_under_way_can_be_asked_about() -> None:
    traces, trace = Traces(TraceConfig(enabled=True)), a_trace()
    traces.begin(trace, 0.0)
    assert traces.find("alice", "r1", 10_000.0) is trace
    assert trace.told()["is_over"] is False


def test_what_ended_too_long_ago_is_forgotten() -> None:
    traces = kept(a_trace(), keepSeconds=10)
    assert traces.find("alice", "r1", 10.9) is not None
    assert traces.find("alice", "r1", 11.0) is None


def test_of_too_many_the_one_that_ended_first_goes() -> None:
    traces = kept(*(a_trace(f"r{number}") for number in range(5)), maxRequests=3)
    left = [number for number in range(5) if traces.find("alice", f"r{number}", 2.0) is not None]
    assert left == [2, 3, 4]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60), st.integers(1, 4))
def test_never_more_are_kept_than_may_be(steps: list[tuple[bool, int]], most: int) -> None:
    traces = Traces(TraceConfig(enabled=True, max_requests=most))
    running: list[Trace] = []
    for number, (begins, which) in enumerate(steps):
        now_s = float(number)
        if begins:
            trace = a_trace(f"r{which}", began_s=now_s)
            if traces.begin(trace, now_s):
                running.append(trace)
        elif running:
            trace = running.pop(which % len(running))
            trace.end(now_s)
            traces.end(trace)
        assert len(traces._running) == len(running)
        assert len(traces._running) + len(traces._ended) <= most


def test_events_are_told_in_the_order_of_their_moments_and_bounded() -> None:
    trace = a_trace(began_s=100.0)
    trace.note("chosen", 101.0, group="g0", why=None)
    trace.note("first_token", 100.5)
    for _ in range(MAX_EVENTS):
        trace.note("lost", 102.0)
    trace.end(103.0, status=200)
    told = trace.told()
    assert [event["what"] for event in told["events"][:3]] == ["arrived", "first_token", "chosen"]
    assert told["events"][2] == {"at_s": 1.0, "what": "chosen", "group": "g0"}
    assert told["events"][-1] == {"at_s": 3.0, "what": "ended", "status": 200}
    assert (len(told["events"]), told["events_missing"]) == (MAX_EVENTS + 2, 2)
    assert told["arrived"] == "2026-11-29T12:00:00.000Z"
