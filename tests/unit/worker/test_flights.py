"""What becomes of requests in flight: submitted, answered, cancelled, lost and run again; and how they are counted."""

import logging
from dataclasses import replace

import msgspec
import pytest

from glm_worker.errors import EngineFailed, GenerationLost, Overloaded, RequestRefused
from glm_worker.messages import EngineLimits, RequestOutput, Submit, ToEngine
from glm_worker.request import Thought
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler
from glm_worker.server.flights.flight import Ended
from glm_worker.server.text.deltas import assemble
from unit.worker.flights_world import LIMITS, RecordingEngine, World, a_job, prompt_len, text, tokens
from unit.worker.server_builders import tokenizer


def test_a_request_is_submitted_answered_and_finished() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    assert world.engine.submitted == [flight.job.id]
    world.step(tokens(flight, " 4"))
    world.step(tokens(flight, " 5", "stop"))
    assert text(flight) == " 4 5"
    assert flight.ended == Ended("stop")
    assert world.engine.cancelled == []
    assert world.outcomes() == {"finished": 1}
    assert len(world.flights) == 0


def test_before_a_generation_serves_requests_are_held() -> None:
    world = World()
    first, second = world.flights.admit(a_job()), world.flights.admit(a_job())
    assert world.flights.gauges().num_waiting == 2
    assert world.serve().submitted == [first.job.id, second.job.id]


def test_a_client_that_goes_away_cancels_at_once() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.flights.cancel(flight)
    world.flights.cancel(flight)
    assert world.engine.cancelled == [flight.job.id]
    assert world.outcomes() == {"cancelled": 1}
    world.step(tokens(flight, " 4"))  # on its way already
    assert text(flight) == ""


def test_a_held_request_that_is_cancelled_is_never_submitted() -> None:
    world = World()
    world.flights.cancel(world.flights.admit(a_job()))
    engine = world.serve()
    assert engine.sent == []


def test_a_stop_string_cancels_the_engine_and_finishes() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job(stop="6"))
    world.step(tokens(flight, " 4 5 6 7"))
    assert text(flight) == " 4 5 "
    assert flight.ended == Ended("stop")
    assert world.engine.cancelled == [flight.job.id]
    assert world.outcomes() == {"finished": 1}


def test_an_answer_goes_on_in_the_next_generation_from_the_tokens_that_are_there() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(tokens(flight, " 4"))
    world.flights.lose("g1", "rank 1 was killed")
    assert flight.ended is None
    engine = world.serve("g2")
    assert engine.submitted == [flight.job.id]
    assert engine.begun_with == [tokenizer().encode(" 4")]
    world.step(tokens(flight, " 5", "stop"))
    assert text(flight) == " 4 5"
    assert flight.reader.num_tokens == len(tokenizer().encode(" 4 5")) + 1
    assert world.outcomes() == {"finished": 1}


def test_a_request_that_only_waited_outlives_any_number_of_generations() -> None:
    world = World()
    flight = world.flights.admit(a_job())
    for number in range(5):
        assert world.serve(f"g{number}").submitted == [flight.job.id]
        world.flights.lose(f"g{number}", "rank 1 was killed")
    assert flight.ended is None


def test_what_was_computed_when_its_generation_died_goes_on_one_at_a_time_before_what_waited() -> None:
    world = World()
    world.serve()
    first, second, waiting = (world.flights.admit(a_job()) for _ in range(3))
    world.begin_step(first, second)
    world.flights.lose("g1", "rank 1 was killed")
    engine = world.serve("g2")
    world.begin_step(first)
    world.step(tokens(first, " 4"))
    assert engine.submitted == [first.job.id]
    world.step(tokens(first, " 5"))
    assert engine.submitted == [first.job.id, second.job.id]
    world.begin_step(second)
    assert engine.submitted == [first.job.id, second.job.id, waiting.job.id]


def test_one_on_a_long_trial_goes_before_what_waits_in_the_engine() -> None:
    world = World()
    world.serve("g1")
    suspects = [world.flights.admit(a_job()) for _ in range(2)]
    world.begin_step(*suspects)
    world.flights.lose("g1", "rank 1 was killed")
    world.serve("g2")
    for suspect in suspects:
        world.begin_step(suspect)
        world.step(tokens(suspect, " 4"))
        world.step(tokens(suspect, " 5"))
    world.flights.lose("g2", "rank 1 was killed")
    world.serve("g3")
    newcomers = [world.flights.admit(a_job(priority=priority)) for priority in (0, 0, -1)]
    world.flights.cancel(suspects[0])
    limits = SchedulerLimits(max_model_len=64, max_batch_tokens=64, max_num_seqs=1, num_blocks=100, block_size=16)
    scheduler = Scheduler(limits)
    for message in world.engine.sent:
        if isinstance(message, Submit):
            scheduler.add(message.request)
        else:
            scheduler.cancel(message.request_id)
    order = []
    while scheduler.has_work:
        (begun,) = scheduler.schedule().sequences
        order.append(begun.request_id)
        scheduler.commit({begun.request_id: [0]})
        scheduler.cancel(begun.request_id)
    ids = [flight.job.id for flight in newcomers]
    assert order == [ids[2], suspects[1].job.id, ids[0], ids[1]]


@pytest.mark.parametrize("end", ["finished", "cancelled", "failed"])
def test_the_end_of_one_on_trial_lets_the_next_one_go_also_while_no_step_is_done(end: str) -> None:
    world = World()
    world.serve()
    first, second = (world.flights.admit(a_job()) for _ in range(2))
    world.begin_step(first, second)
    world.flights.lose("g1", "rank 1 was killed")
    engine = world.serve("g2")
    match end:
        case "finished":
            world.step(tokens(first, " 4", "stop"))
        case "cancelled":
            world.flights.cancel(first)
        case "failed":
            world.flights.fail(first, EngineFailed("the engine gave up"))
    assert engine.submitted == [first.job.id, second.job.id]


def test_a_second_loss_fails_it_and_only_the_log_has_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    flight = world.flights.admit(a_job())
    for generation in ("g1", "g2"):
        world.serve(generation)
        assert flight.ended is None
        world.begin_step(flight)
        world.flights.lose(generation, "rank 1 was killed")
    assert flight.ended is not None
    assert isinstance(flight.ended.error, GenerationLost)
    assert str(flight.ended.error) == "the group that wrote this answer failed; try again"
    assert "rank 1 was killed" in caplog.text
    assert world.serve("g3").submitted == []
    assert world.outcomes() == {"failed": 1}


def test_a_request_that_the_new_generation_cannot_hold_is_refused() -> None:
    world = World()
    fits, does_not = world.flights.admit(a_job(max_tokens=8)), world.flights.admit(a_job(max_tokens=50))
    engine = world.serve(limits=EngineLimits(max_model_len=64, num_blocks=1, block_size=16))
    assert engine.submitted == [fits.job.id]
    assert does_not.ended is not None
    assert isinstance(does_not.ended.error, RequestRefused)
    assert does_not.ended.error.code == "context_length_exceeded"
    assert world.outcomes() == {"refused": 1}


def test_a_default_of_max_tokens_fits_every_generation() -> None:
    world = World()
    world.flights.admit(a_job())
    engine = world.serve(limits=EngineLimits(max_model_len=64, num_blocks=1, block_size=16))
    (submit,) = engine.sent
    assert isinstance(submit, Submit)
    assert submit.request.max_tokens == 16 - len(submit.request.prompt_token_ids)


def test_what_is_refused_at_the_door_is_counted_once() -> None:
    world = World(max_waiting_requests=0, max_num_seqs=1)
    world.serve()
    with pytest.raises(RequestRefused):
        world.flights.admit(a_job(max_tokens=1000))
    world.flights.admit(a_job())
    with pytest.raises(Overloaded):
        world.flights.admit(a_job())
    assert world.outcomes() == {"refused": 2}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "the request asks for 4 answers at once; allowed are 3: 1 that are computed and 2 that wait"),
        ({"max_waiting_requests": 10, "max_waiting_tokens": 1}, "for more than 1 answers at once 1 are allowed"),
    ],
)
def test_an_order_that_no_idle_server_takes_is_not_asked_to_come_again(limits: dict[str, int], said: str) -> None:
    world = World(**{"max_waiting_requests": 2, "max_num_seqs": 1, **limits})
    world.serve()
    with pytest.raises(RequestRefused, match=said) as caught:
        world.flights.admit_all([a_job() for _ in range(4)])
    assert (caught.value.status, caught.value.code) == (400, "too_many_answers")
    assert world.engine.sent == []


def test_a_closed_door_says_when_to_come_back() -> None:
    world = World()
    world.serve()
    world.flights.close(7)
    with pytest.raises(Overloaded, match="draining") as caught:
        world.flights.admit(a_job())
    assert caught.value.retry_after_s == 7


def test_why_no_generation_serves_is_logged_once_and_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    for retry_after_s in (8, 7):
        world.flights.suspend("the last 3 starts failed: rank 0 in pod 1 has no weights", retry_after_s)
    with pytest.raises(Overloaded) as caught:
        world.flights.admit(a_job())
    assert caught.value.message == "temporarily unavailable: this group cannot start; try again later"
    assert caught.value.retry_after_s == 7
    assert [record.getMessage() for record in caplog.records] == [
        "requests are refused: the last 3 starts failed: rank 0 in pod 1 has no weights"
    ]


def test_everything_left_can_be_ended_with_an_error() -> None:
    world = World()
    world.serve()
    flights = [world.flights.admit(a_job()) for _ in range(3)]
    assert world.flights.fail_all(GenerationLost("over")) == 3
    assert sorted(world.engine.cancelled) == sorted(flight.job.id for flight in flights)
    assert world.outcomes() == {"failed": 3}


def test_a_request_that_the_engine_gives_up_by_itself_fails() -> None:
    world = World()
    world.serve()
    flight, other = world.flights.admit(a_job()), world.flights.admit(a_job())
    world.step(tokens(flight, "", "cancelled"), tokens(other, " 4"))
    assert flight.ended is not None
    assert isinstance(flight.ended.error, EngineFailed)
    assert text(other) == " 4"


def test_a_request_that_the_engine_cannot_go_on_with_ends_with_the_cause_and_alone() -> None:
    world = World()
    world.serve()
    flight, other = world.flights.admit(a_job()), world.flights.admit(a_job())
    output = RequestOutput(flight.job.id, [], "failed", error="the grammar of this request allows no further token")
    world.step(output, tokens(other, " 4", "stop"))
    assert flight.ended is not None
    error = flight.ended.error
    assert isinstance(error, RequestRefused)
    assert (error.message, error.code) == ("the grammar of this request allows no further token", "cannot_be_answered")
    assert world.engine.cancelled == []
    assert world.outcomes() == {"finished": 1, "failed": 1}


def test_times_are_measured_from_arrival() -> None:
    world = World()
    flight = world.flights.admit(a_job())
    world.serve()
    labels = '{model="m",slo_class="default"}'
    world.clock.now += 3
    world.step(tokens(flight, " 4"), scheduled=[flight.job.id], began_s=world.clock.now - 1)
    world.clock.now += 0.5
    world.step(tokens(flight, " 5", "stop"))
    assert world.value(f"glm_request_queue_time_seconds_sum{labels}") == 2  # the engine's first step is no part of it
    assert world.value(f"glm_time_to_first_token_seconds_sum{labels}") == 3
    assert world.value(f"glm_time_to_first_answer_token_seconds_sum{labels}") == 3
    assert world.value(f"glm_e2e_request_latency_seconds_sum{labels}") == 3.5
    num_tokens = flight.reader.num_tokens
    assert world.value(f"glm_inter_token_latency_seconds_count{labels}") == num_tokens - len(tokenizer().encode(" 4"))
    assert world.value(f"glm_inter_token_latency_seconds_sum{labels}") == pytest.approx(0.5)
    assert world.value('glm_generation_tokens_total{kind="answer",model="m"}') == num_tokens


def test_a_second_run_observes_nothing_twice() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(tokens(flight, " 4"))
    world.flights.lose("g1", "gone")
    world.serve("g2")
    world.step(tokens(flight, " 4", "stop"))
    for name in ("glm_request_queue_time", "glm_time_to_first_token", "glm_e2e_request_latency"):
        assert world.value(f'{name}_seconds_count{{model="m",slo_class="default"}}') == 1


def test_without_requests_no_token_is_in_flight() -> None:
    assert World().flights.in_flight_tokens == 0


def test_a_waiting_request_has_the_tokens_of_its_prompt_in_flight() -> None:
    world = World()
    held = world.flights.admit(a_job("1 2 3"))
    assert world.flights.in_flight_tokens == prompt_len(held) > 0
    world.serve()
    waiting = world.flights.admit(a_job("1 2 3 4 5"))
    assert world.flights.in_flight_tokens == prompt_len(held) + prompt_len(waiting)


def test_a_running_request_has_what_it_generated_in_flight_too() -> None:
    world = World()
    world.serve()
    flight, other = world.flights.admit(a_job()), world.flights.admit(a_job(max_tokens=50))
    world.step(tokens(flight, " 4 5"))
    world.step(tokens(flight, " 6"))
    generated = len(tokenizer().encode(" 4 5")) + len(tokenizer().encode(" 6"))
    assert world.flights.in_flight_tokens == prompt_len(flight) + generated + prompt_len(other)


def test_a_request_that_waits_for_the_next_generation_keeps_what_it_has_generated() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(tokens(flight, " 4 5"))
    world.flights.lose("g1", "gone")
    assert world.flights.in_flight_tokens == prompt_len(flight) + len(tokenizer().encode(" 4 5"))


@pytest.mark.parametrize("end", ["finished", "cancelled", "failed", "lost"])
def test_a_request_that_has_ended_has_no_token_in_flight(end: str) -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.begin_step(flight)
    world.flights.lose("g1", "gone")
    world.serve("g2")
    other = world.flights.admit(a_job())
    world.begin_step(flight)
    world.step(tokens(flight, " 4"))
    match end:
        case "finished":
            world.step(tokens(flight, " 5", "stop"))
        case "cancelled":
            world.flights.cancel(flight)
        case "failed":
            world.flights.fail(flight, EngineFailed("the engine gave up"))
        case "lost":
            world.flights.lose("g2", "gone")
    assert flight.ended is not None
    assert world.flights.in_flight_tokens == prompt_len(other)


def test_a_refused_request_has_no_token_in_flight() -> None:
    world = World()
    with pytest.raises(RequestRefused):
        world.flights.admit(a_job(max_tokens=1000))
    assert world.flights.in_flight_tokens == 0


def test_gauges_are_the_engines_and_what_it_does_not_know_yet() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    assert world.flights.gauges().num_waiting == 1
    world.step(scheduled=[flight.job.id], num_running=1, num_waiting=3, num_tokens_waiting=30, kv_blocks_used=25)
    gauges = world.flights.gauges()
    assert (gauges.num_running, gauges.num_waiting, gauges.num_tokens_waiting, gauges.kv_cache_usage) == (
        1,
        3,
        30,
        0.25,
    )
    world.flights.lose("g1", "gone")
    gauges = world.flights.gauges()
    assert (gauges.num_running, gauges.num_waiting, gauges.kv_cache_usage) == (0, 1, 0)


def test_the_oldest_that_waits_ages_whether_or_not_an_engine_answers() -> None:
    world = World()
    assert world.flights.gauges().oldest_waiting_s == 0
    world.flights.admit(a_job())
    world.clock.now += 2
    second = world.flights.admit(a_job())
    world.clock.now += 3
    assert world.flights.gauges().oldest_waiting_s == 5, "no generation serves"
    world.serve()
    world.clock.now += 1
    assert world.flights.gauges().oldest_waiting_s == 6, "submitted, and no step has come"
    first = world.engine.submitted[0]
    world.step(scheduled=[first], num_running=1)
    assert world.flights.gauges().oldest_waiting_s == 4, "the second waits"
    world.step(scheduled=[second.job.id], num_running=2)
    world.clock.now += 100
    assert world.flights.gauges().oldest_waiting_s == 0
    world.flights.lose("g1", "gone")
    assert world.flights.gauges().oldest_waiting_s == 106, "both wait again, since they came"


def test_what_waits_and_what_is_left_to_compute_are_the_prompts_in_flight() -> None:
    world = World()
    flight, other = world.flights.admit(a_job("1 2 3 4 5")), world.flights.admit(a_job("1 2 3"))
    world.serve()
    gauges = world.flights.gauges()
    assert (gauges.num_tokens_waiting, gauges.num_tokens_left) == (prompt_len(flight) + prompt_len(other), 0)
    world.step(scheduled=[flight.job.id], num_running=1, num_prompt_tokens_left=2)
    gauges = world.flights.gauges()
    assert (gauges.num_tokens_waiting, gauges.num_tokens_left) == (prompt_len(other), 2)
    world.flights.lose("g1", "gone")
    gauges = world.flights.gauges()
    assert (gauges.num_tokens_waiting, gauges.num_tokens_left) == (prompt_len(flight) + prompt_len(other), 0)


def test_room_is_told_from_the_first_generation_on() -> None:
    world = World()
    assert (world.flights.gauges().num_blocks, world.flights.gauges().max_running) == (0, 4)
    world.serve(limits=EngineLimits(max_model_len=64, num_blocks=100, block_size=16, max_num_seqs=2))
    assert world.flights.gauges().num_blocks * world.flights.gauges().block_size == 1600
    assert world.flights.gauges().max_running == 2
    world.flights.lose("g1", "gone")
    assert world.flights.gauges().num_blocks == 100, "a cache that is started again is no smaller"


def test_what_a_cache_had_of_a_prompt_is_counted_once_and_told_in_the_end() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(replace(a_job(), cache_seed=b"s"))
    world.step(msgspec.structs.replace(tokens(flight, " 4"), cached_tokens=2))
    world.step(tokens(flight, " 5", "stop"))
    assert flight.ending.num_cached_tokens == 2
    assert world.value('glm_prefix_cache_queries_total{model="m"}') == prompt_len(flight)
    assert world.value('glm_prefix_cache_hits_total{model="m"}') == 2
    assert world.value('vllm:prefix_cache_hits_total{engine="0",model_name="m"}') == 2


def test_a_request_that_shares_nothing_is_looked_up_nowhere() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(tokens(flight, " 4", "stop"))
    assert world.value('glm_prefix_cache_queries_total{model="m"}') == 0


def test_an_answer_that_went_on_elsewhere_tells_what_was_found_when_it_began() -> None:
    world = World()
    world.serve()
    flight = world.flights.admit(a_job())
    world.step(msgspec.structs.replace(tokens(flight, " 4"), cached_tokens=2))
    world.flights.lose("g1", "test")
    world.serve("g2")
    world.step(tokens(flight, " 5", "stop"))
    assert flight.ending.num_cached_tokens == 2


def test_what_nobody_takes_before_its_end_is_kept_in_few_long_deltas() -> None:
    world = World()
    world.serve(limits=EngineLimits(max_model_len=50_000, num_blocks=4_000, block_size=16))
    flight = world.flights.admit(a_job(max_tokens=20_000))
    (word,) = tokenizer().encode("a")
    for _ in range(20_000):
        world.step(RequestOutput(flight.job.id, [word]))
    deltas = flight.take()
    assert len(deltas) <= 1024 + 20
    assert assemble(deltas).content == "a" * 20_000
    assert flight.take() == []


def test_tokens_that_the_cache_has_of_waiting_prompts_are_not_to_be_computed() -> None:
    world = World()
    world.serve()
    world.step(num_waiting=2, num_tokens_waiting=30, num_cached_waiting=16)
    assert world.value('glm_num_tokens_waiting{model="m"}') == 30
    assert world.value('glm_prompt_tokens_waiting{model="m"}') == 14


class EncodingEngine(RecordingEngine):
    """As the real one: what no message holds is an error."""

    def send(self, message: ToEngine) -> None:
        msgspec.msgpack.encode(message)
        super().send(message)


def test_a_request_that_no_message_holds_ends_alone_and_holds_up_nobody() -> None:
    world = World()
    huge = replace(a_job(), thought=Thought(open_id=1, close_id=2, begins_open=True, max_tokens=2**64, forced_ids=[2]))
    first, second = world.flights.admit(huge), world.flights.admit(a_job())
    engine = EncodingEngine()
    world.flights.serve(engine, LIMITS)
    assert engine.submitted == [second.job.id]
    assert first.ended is not None
    assert isinstance(first.ended.error, OverflowError)
    assert len(world.flights) == 1
    world.flights.lose("g1", "rank 1 was killed")
    world.flights.serve(EncodingEngine("g2"), LIMITS)
    assert len(world.flights) == 1
