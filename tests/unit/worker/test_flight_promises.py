"""Which class a request belongs to, and whether it met what its class promises."""

import pytest
from starlette.datastructures import Headers

from glm_worker.errors import EngineFailed, Overloaded, RequestRefused
from glm_worker.messages import EngineLimits, HeaderMatch, RequestOutput, Slo, SloClass
from unit.worker.flights_world import World, a_chat, a_job, prompt_len, tokens
from unit.worker.server_builders import tokenizer


def promises(*classes: SloClass) -> Slo:
    return Slo(list(classes) or [SloClass(name="fast", thresholds_s={"ttft": 1.0, "e2e": 2.0}, objective=0.99)])


def judged(world: World, slo_class: str = "fast") -> tuple[float, float]:
    """Return how many requests of a class met its promise, and how many did not."""
    met, missed = (
        world.value(f'glm_slo_requests_total{{met="{met}",model="m",slo_class="{slo_class}"}}')
        for met in ("true", "false")
    )
    return met, missed


def test_requests_are_counted_by_class_as_they_arrive() -> None:
    world = World()
    gold = SloClass(name="gold", header=HeaderMatch("x-tier", "gold"), thresholds_s={"ttft": 1}, objective=0.9)
    thought = SloClass(name="thought", thinking="enabled", thresholds_s={"ttfa": 1}, objective=0.9)
    world.telemetry.promise(promises(gold, thought))
    flights = [
        world.flights.admit(a_job(), Headers({"X-Tier": "gold"})),
        world.flights.admit(a_chat()),
        world.flights.admit(a_chat(thinking={"type": "disabled"})),
    ]
    for name, flight in zip(("gold", "thought", "default"), flights, strict=True):
        labels = f'{{model="m",slo_class="{name}"}}'
        assert world.value(f"glm_requests_received_total{labels}") == 1
        assert world.value(f"glm_prompt_tokens_received_total{labels}") == prompt_len(flight)
    assert world.value('glm_thinking_requests_total{model="m",thinking="enabled"}') == 1
    assert world.value('glm_thinking_requests_total{model="m",thinking="disabled"}') == 2


def test_a_request_that_was_fast_enough_met_its_promise() -> None:
    world = World()
    world.telemetry.promise(promises())
    world.serve()
    flight = world.flights.admit(a_job())
    world.clock.now += 1
    world.step(tokens(flight, " 4"))
    assert judged(world) == (0, 0), "it has not ended"
    world.clock.now += 1
    world.step(tokens(flight, " 5", "stop"))
    assert judged(world) == (1, 0)


@pytest.mark.parametrize(("before", "after"), [(1.1, 0.1), (0.1, 2.0)], ids=["ttft", "e2e"])
def test_one_threshold_that_is_missed_is_enough(before: float, after: float) -> None:
    world = World()
    world.telemetry.promise(promises())
    world.serve()
    flight = world.flights.admit(a_job())
    world.clock.now += before
    world.step(tokens(flight, " 4"))
    world.clock.now += after
    world.step(tokens(flight, " 5", "stop"))
    assert judged(world) == (0, 1)


@pytest.mark.parametrize(("gap_s", "is_met"), [(0.29, True), (0.31, False)])
def test_the_itl_of_a_request_is_its_mean(gap_s: float, is_met: bool) -> None:
    world = World()
    world.telemetry.promise(promises(SloClass(name="fast", thresholds_s={"itl": 0.2}, objective=0.9)))
    world.serve()
    flight = world.flights.admit(a_job(max_tokens=50))
    for gap, token in zip((5.0, 0.1, gap_s), tokenizer().encode(" 4 5 6")[:3], strict=True):
        world.clock.now += gap
        world.step(RequestOutput(flight.job.id, [token], None))
    world.step(RequestOutput(flight.job.id, [], "length"))
    assert judged(world) == ((1, 0) if is_met else (0, 1))


@pytest.mark.parametrize(("whole_s", "is_met"), [(2.0, True), (2.1, False)])
def test_an_answer_of_thoughts_alone_is_judged_by_its_whole_time(whole_s: float, is_met: bool) -> None:
    world = World()
    world.telemetry.promise(promises(SloClass(name="fast", thresholds_s={"ttfa": 2.0}, objective=0.9)))
    world.serve()
    flight = world.flights.admit(a_chat())
    world.step(RequestOutput(flight.job.id, tokenizer().encode("\n<think>\nhm"), None))
    world.clock.now += whole_s
    world.step(RequestOutput(flight.job.id, [], "length"))
    assert judged(world) == ((1, 0) if is_met else (0, 1))


@pytest.mark.parametrize("has_begun", [False, True], ids=["ttft", "e2e"])
def test_a_promise_that_is_broken_counts_while_no_engine_answers(*, has_begun: bool) -> None:
    world = World()
    world.telemetry.promise(promises())
    world.serve()
    flight = world.flights.admit(a_job())
    if has_begun:
        world.step(tokens(flight, " 4"))
    world.clock.now += 2.0 if has_begun else 1.0
    assert judged(world) == (0, 0), "it is in time"
    world.clock.now += 0.1
    assert judged(world) == (0, 1)
    world.step(tokens(flight, " 5", "stop"))
    assert judged(world) == (0, 1), "once"


def test_a_first_token_that_came_in_time_keeps_its_promise_though_its_generation_is_lost() -> None:
    world = World()
    world.telemetry.promise(promises(SloClass(name="fast", thresholds_s={"ttft": 1.0}, objective=0.9)))
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(tokens(flight, " 4"))
    world.flights.lose("g1", "gone")
    world.serve("g2")
    world.clock.now += 5
    world.step(tokens(flight, " 4", "stop"))
    assert judged(world) == (1, 0)


@pytest.mark.parametrize("end", ["failed", "lost", "too small", "queue full"])
def test_what_fails_or_finds_no_room_missed_its_promise(end: str) -> None:
    world = World(max_waiting_requests=1)
    world.telemetry.promise(promises())
    flight = world.flights.admit(a_job(max_tokens=50))
    match end:
        case "failed":
            world.flights.fail(flight, EngineFailed("the engine gave up"))
        case "lost":
            for generation in ("g1", "g2"):
                world.serve(generation)
                world.begin_step(flight)
                world.flights.lose(generation, "gone")
        case "too small":
            world.serve(limits=EngineLimits(max_model_len=64, num_blocks=1, block_size=16))
        case "queue full":
            with pytest.raises(Overloaded):
                world.flights.admit(a_job())
    assert judged(world) == (0, 1)


def test_what_its_client_cancelled_or_got_wrong_counts_not_at_all() -> None:
    world = World()
    world.telemetry.promise(promises())
    world.serve()
    world.flights.cancel(world.flights.admit(a_job()))
    with pytest.raises(RequestRefused):
        world.flights.admit(a_job(max_tokens=1000))
    assert judged(world) == (0, 0)
    assert world.value('glm_requests_received_total{model="m",slo_class="fast"}') == 1


def test_a_first_token_that_came_late_is_a_missed_promise_at_once() -> None:
    world = World()
    world.telemetry.promise(promises(SloClass(name="fast", thresholds_s={"ttft": 1.0}, objective=0.9)))
    world.serve()
    flight = world.flights.admit(a_job(max_tokens=50))
    world.clock.now += 1.1
    world.step(tokens(flight, " 4"))
    assert judged(world) == (0, 1)
    world.step(tokens(flight, " 5", "stop"))
    assert judged(world) == (0, 1)


@pytest.mark.parametrize(("waited_s", "missed"), [(0.9, 0), (1.1, 1)])
def test_a_client_that_gave_up_after_the_promised_time_was_let_down(waited_s: float, missed: int) -> None:
    world = World()
    world.telemetry.promise(promises(SloClass(name="fast", thresholds_s={"ttft": 1.0}, objective=0.9)))
    world.serve()
    flight = world.flights.admit(a_job())
    world.clock.now += waited_s
    world.flights.cancel(flight)
    assert judged(world) == (0, missed)


def test_a_promise_counts_from_the_arrival_of_the_request_and_not_from_its_admission() -> None:
    world = World()
    world.telemetry.promise(promises())
    world.serve()
    (flight,) = world.flights.admit_all([a_job()], age_s=0.6)
    world.clock.now += 0.6
    world.step(tokens(flight, " 4"))
    assert judged(world) == (0, 1)
    assert flight.times.ttft == pytest.approx(1.2)
