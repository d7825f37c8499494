"""What the scheduler promises, one example a promise. The laws over random schedules are in test_scheduler_laws.py."""

from collections.abc import Sequence

import msgspec
import pytest

from glm_worker.errors import EngineFailed
from glm_worker.messages import EngineLimits, RequestOutput
from glm_worker.request import EngineRequest
from glm_worker.scheduler.lanes import lane_of, short_tokens
from glm_worker.scheduler.limits import SchedulerLimits, why_it_never_fits
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch
from glm_worker.scheduler.prefix import hashes_of, seed_of
from glm_worker.scheduler.scheduler import Scheduler

STOP = 99


def limits(
    *,
    max_model_len: int = 64,
    max_batch_tokens: int = 16,
    max_num_seqs: int = 4,
    num_blocks: int = 16,
    block_size: int = 4,
) -> SchedulerLimits:
    return SchedulerLimits(max_model_len, max_batch_tokens, max_num_seqs, num_blocks, block_size)


def a_request(
    request_id: str, num_prompt: int = 3, max_tokens: int = 4, *, priority: int = 0, deadline_ms: int | None = None
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=list(range(1, num_prompt + 1)),
        max_tokens=max_tokens,
        stop_token_ids=[STOP],
        priority=priority,
        deadline_ms=deadline_ms,
    )


def a_shared(request_id: str, prompt: Sequence[int], max_tokens: int = 4, *, tenant: str = "") -> EngineRequest:
    """A request that shares blocks."""
    return msgspec.structs.replace(
        a_request(request_id, 1, max_tokens), prompt_token_ids=prompt, cache_seed=seed_of(tenant)
    )


def a_scheduler(*requests: EngineRequest, of: SchedulerLimits | None = None) -> Scheduler:
    scheduler = Scheduler(of or limits())
    for request in requests:
        assert scheduler.add(request) is None
    return scheduler


def chunks(plan: ScheduledBatch) -> list[tuple[str, int, int]]:
    return [(s.request_id, s.start, s.end) for s in plan.sequences]


def step(scheduler: Scheduler, token_id: int = 7) -> list[RequestOutput]:
    """Run one step in which every sequence samples the same token."""
    plan = scheduler.schedule()
    scheduler.check()
    outputs = scheduler.commit({s.request_id: [token_id] for s in plan.sampled})
    scheduler.check()
    return outputs


def test_a_prompt_is_computed_at_once_and_then_one_token_a_step() -> None:
    scheduler = a_scheduler(a_request("a", num_prompt=3))
    assert chunks(scheduler.schedule()) == [("a", 0, 3)]
    scheduler.commit({"a": [7]})
    plan = scheduler.schedule()
    assert chunks(plan) == [("a", 3, 4)]
    assert list(plan.sequences[0].token_ids) == [7]


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks_and_samples_after_the_last() -> None:
    scheduler = a_scheduler(a_request("a", num_prompt=9), of=limits(max_batch_tokens=4))
    seen = []
    for _ in range(3):
        plan = scheduler.schedule()
        seen.append((chunks(plan), [s.is_sampled for s in plan.sequences]))
        scheduler.commit({s.request_id: [7] for s in plan.sampled})
    assert seen == [([("a", 0, 4)], [False]), ([("a", 4, 8)], [False]), ([("a", 8, 9)], [True])]


def test_decode_and_prefill_share_a_step_and_its_budget() -> None:
    scheduler = a_scheduler(a_request("a"), of=limits(max_batch_tokens=4))
    step(scheduler)
    scheduler.add(a_request("b", num_prompt=5))
    assert chunks(scheduler.schedule()) == [("a", 3, 4), ("b", 0, 3)]


@pytest.mark.parametrize(
    ("max_num_seqs", "running"), [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (4, ["a", "b", "c"])]
)
def test_no_more_sequences_run_than_allowed(max_num_seqs: int, running: list[str]) -> None:
    scheduler = a_scheduler(*map(a_request, "abc"), of=limits(max_num_seqs=max_num_seqs))
    assert [s.request_id for s in scheduler.schedule().sequences] == running
    assert (scheduler.num_running, scheduler.num_waiting) == (len(running), 3 - len(running))


def test_a_request_that_does_not_fit_yet_is_not_overtaken() -> None:
    first, big, small = a_request("a", 8, 8), a_request("b", 53, 4), a_request("c", 1, 1)
    scheduler = a_scheduler(first, big, small, of=limits(max_batch_tokens=64))
    assert [s.request_id for s in scheduler.schedule().sequences] == ["a"]
    assert scheduler.num_tokens_waiting == 54


def test_requests_are_admitted_by_priority_then_deadline_then_arrival() -> None:
    requests = [
        a_request("late", priority=1, deadline_ms=5),
        a_request("first"),
        a_request("second"),
        a_request("soon", deadline_ms=900),
        a_request("sooner", deadline_ms=800),
        a_request("now", priority=-1),
    ]
    scheduler = a_scheduler(*requests, of=limits(max_num_seqs=1))
    admitted = []
    while scheduler.has_work:
        plan = scheduler.schedule()
        admitted += plan.first_scheduled
        scheduler.commit({s.request_id: [STOP] for s in plan.sampled})
    assert admitted == ["now", "sooner", "soon", "first", "second", "late"]


def test_an_important_request_preempts_nobody_who_runs() -> None:
    scheduler = a_scheduler(a_request("a", priority=5), of=limits(max_num_seqs=1))
    step(scheduler)
    scheduler.add(a_request("b", priority=-5))
    assert chunks(scheduler.schedule()) == [("a", 3, 4)]
    assert (scheduler.num_preemptions, scheduler.num_waiting) == (0, 1)


def test_the_least_important_is_preempted_though_it_is_the_oldest() -> None:
    # 3 blocks of 2: a and b hold one each, then both want a second.
    first, second = a_request("a", 2, 4, priority=1), a_request("b", 1, 4)
    scheduler = a_scheduler(first, second, of=limits(num_blocks=3, block_size=2))
    step(scheduler)
    plan = scheduler.schedule()
    assert (chunks(plan), plan.preempted) == ([("b", 1, 2), ("a", 2, 3)], ())
    scheduler.commit({"a": [7], "b": [7]})
    plan = scheduler.schedule()
    assert (chunks(plan), plan.preempted) == ([("b", 2, 3)], ("a",))


def test_the_prompt_of_an_important_newcomer_halts_no_answer() -> None:
    scheduler = a_scheduler(a_request("a", max_tokens=8), of=limits(max_batch_tokens=4))
    step(scheduler)
    scheduler.add(a_request("b", num_prompt=9, priority=-1))
    seen = []
    for _ in range(3):
        plan = scheduler.schedule()
        seen.append(chunks(plan))
        scheduler.commit({s.request_id: [7] for s in plan.sampled})
    assert seen == [[("a", 3, 4), ("b", 0, 3)], [("a", 4, 5), ("b", 3, 6)], [("a", 5, 6), ("b", 6, 9)]]


@pytest.mark.parametrize(("patience_steps", "is_served"), [(20, True), (10_000, False)])
def test_deadlines_do_not_starve_a_request_without_one(patience_steps: int, is_served: bool) -> None:
    scheduler = Scheduler(limits(max_num_seqs=1), patience_steps)
    scheduler.add(a_request("hurried-0", deadline_ms=0))
    scheduler.add(a_request("patient"))
    served = []
    for number in range(1, 100):
        scheduler.add(a_request(f"hurried-{number}", max_tokens=2, deadline_ms=number))
        plan = scheduler.schedule()
        served += plan.first_scheduled
        scheduler.commit({s.request_id: [7] for s in plan.sampled})
        scheduler.check()
    assert ("patient" in served) == is_served
    assert not is_served or served.index("patient") <= patience_steps


def test_a_lower_priority_waits_as_long_as_higher_ones_come() -> None:
    scheduler = Scheduler(limits(max_num_seqs=1), 5)
    scheduler.add(a_request("low", priority=1))
    for number in range(60):
        scheduler.add(a_request(f"high-{number}"))
        plan = scheduler.schedule()
        assert "low" not in plan.first_scheduled
        scheduler.commit({s.request_id: [7] for s in plan.sampled})


def test_max_tokens_is_exact() -> None:
    scheduler = a_scheduler(a_request("a", max_tokens=3))
    outputs = [output for _ in range(3) for output in step(scheduler)]
    assert [(o.token_ids, o.finish_reason) for o in outputs] == [([7], None), ([7], None), ([7], "length")]
    assert not scheduler.has_work


def test_a_stop_token_ends_the_request_and_is_delivered() -> None:
    scheduler = a_scheduler(a_request("a"))
    step(scheduler)
    assert step(scheduler, STOP) == [RequestOutput("a", [STOP], "stop")]
    assert (scheduler.has_work, scheduler.blocks.num_used) == (False, 0)


def test_a_stop_token_as_the_last_allowed_token_is_a_stop() -> None:
    assert step(a_scheduler(a_request("a", max_tokens=1)), STOP) == [RequestOutput("a", [STOP], "stop")]


def test_a_stop_token_in_the_prompt_stops_nothing() -> None:
    request = EngineRequest(request_id="a", prompt_token_ids=[STOP], max_tokens=2, stop_token_ids=[STOP])
    assert step(a_scheduler(request)) == [RequestOutput("a", [7], None)]


def test_cancelling_a_running_request_frees_its_blocks_at_once_and_ends_it_once() -> None:
    scheduler = a_scheduler(a_request("a"))
    step(scheduler)
    assert scheduler.cancel("a") == RequestOutput("a", [], "cancelled")
    scheduler.check()
    assert (scheduler.blocks.num_used, scheduler.has_work) == (0, False)
    assert scheduler.cancel("a") is None


def test_a_waiting_request_can_be_cancelled() -> None:
    scheduler = a_scheduler(a_request("a"))
    assert scheduler.cancel("a") == RequestOutput("a", [], "cancelled")
    assert scheduler.schedule().sequences == ()


def test_a_request_cancelled_while_it_runs_on_the_device_delivers_nothing_more() -> None:
    scheduler = a_scheduler(a_request("a"), a_request("b"))
    scheduler.schedule()
    scheduler.cancel("a")
    scheduler.check()
    assert scheduler.commit({"a": [7], "b": [7]}) == [RequestOutput("b", [7], None)]
    scheduler.check()


def test_an_id_may_be_used_again_after_a_cancel_even_before_the_commit() -> None:
    scheduler = a_scheduler(a_request("a"))
    scheduler.schedule()
    scheduler.cancel("a")
    scheduler.add(a_request("a", num_prompt=2))
    assert scheduler.commit({"a": [7]}) == []
    assert chunks(scheduler.schedule()) == [("a", 0, 2)]


def test_cancelling_what_never_was_or_has_finished_is_silent() -> None:
    scheduler = a_scheduler(a_request("a", max_tokens=1))
    step(scheduler)
    assert scheduler.cancel("a") is None
    assert scheduler.cancel("nobody") is None


def test_the_newest_is_preempted_and_goes_on_where_it_was() -> None:
    # 3 blocks of 2: a and b hold one each, then both want a second.
    scheduler = a_scheduler(a_request("a", 2, 4), a_request("b", 1, 4), of=limits(num_blocks=3, block_size=2))
    assert step(scheduler, 11) == [RequestOutput("a", [11], None), RequestOutput("b", [11], None)]
    assert step(scheduler, 12) == [RequestOutput("a", [12], None), RequestOutput("b", [12], None)]
    plan = scheduler.schedule()
    assert (chunks(plan), plan.preempted) == ([("a", 3, 4)], ("b",))
    assert (scheduler.num_preemptions, scheduler.num_tokens_waiting) == (1, 3)
    scheduler.commit({"a": [13]})
    scheduler.cancel("a")
    plan = scheduler.schedule()
    assert list(plan.sequences[0].token_ids) == [1, 11, 12]  # the prompt and what was delivered, computed again
    assert plan.first_scheduled == ()  # its queue time has ended before
    assert scheduler.commit({"b": [13]}) == [RequestOutput("b", [13], None)]


def test_first_scheduled_names_a_request_in_the_step_of_its_first_chunk_only() -> None:
    scheduler = a_scheduler(a_request("a", num_prompt=6), of=limits(max_batch_tokens=4))
    assert scheduler.schedule().first_scheduled == ("a",)
    scheduler.commit({})
    assert scheduler.schedule().first_scheduled == ()


def test_a_request_that_can_never_fit_ends_at_once() -> None:
    scheduler = Scheduler(limits(num_blocks=2, block_size=4))
    assert scheduler.add(a_request("a", 5, 3)) is None
    assert scheduler.add(a_request("b", 5, 4)) == RequestOutput("b", [], "length")
    assert scheduler.num_waiting == 1


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "reason"),
    [
        (5, 3, None),
        (5, 4, "5 prompt tokens and 4 answer tokens are more than the 8 tokens of the KV cache"),
        (9, 2, "9 prompt tokens and 2 answer tokens are more than the 10 tokens of the model"),
        (0, 1, "the prompt has no tokens; at least 1 is needed"),
        (1, 0, "max_tokens 0 is below 1"),
    ],
)
def test_why_a_request_never_fits_is_a_sentence_with_the_numbers(
    num_prompt: int, max_tokens: int, reason: str | None
) -> None:
    engine_limits = EngineLimits(max_model_len=10, num_blocks=2, block_size=4)
    assert why_it_never_fits(a_request("a", num_prompt, max_tokens), engine_limits) == reason


def test_misuse_is_named() -> None:
    scheduler = a_scheduler(a_request("a"))
    with pytest.raises(EngineFailed, match="request a was submitted while it is still in the engine"):
        scheduler.add(a_request("a"))
    scheduler.schedule()
    with pytest.raises(EngineFailed, match="step 1 was not committed"):
        scheduler.schedule()
    with pytest.raises(EngineFailed, match=r"wanted tokens for \['a'\] and got \['b'\]"):
        scheduler.commit({"b": [7]})


def test_check_finds_blocks_of_a_sequence_that_does_not_run() -> None:
    scheduler = a_scheduler(a_request("a"))
    scheduler.blocks.grow("ghost", 1)
    with pytest.raises(EngineFailed, match="blocks belong to running sequences"):
        scheduler.check()


def test_equal_plans_have_equal_digests_and_any_difference_shows() -> None:
    def digest(*requests: EngineRequest, of: SchedulerLimits | None = None, previous: int = 0) -> int:
        return a_scheduler(*requests, of=of).schedule().digest(previous)

    base = digest(a_request("a"))
    assert base == digest(a_request("a"))
    others = [
        digest(a_request("b")),
        digest(a_request("a", 4)),
        digest(a_request("a"), a_request("b")),
        digest(a_request("a"), of=limits(block_size=2)),
        digest(a_request("a"), previous=base),
    ]
    assert base not in others


def test_a_prompt_is_prefill_to_its_last_token_and_what_follows_is_decode() -> None:
    scheduler = a_scheduler(a_request("a", num_prompt=17), of=limits(max_batch_tokens=16))
    kinds = []
    for _ in range(3):
        plan = scheduler.schedule()
        scheduler.commit({s.request_id: [7] for s in plan.sampled})
        kinds.append((plan.prefill_tokens, plan.decode_tokens, scheduler.num_prompt_tokens_left))
    assert kinds == [(16, 0, 1), (1, 0, 0), (0, 1, 0)]


def test_a_step_says_how_much_of_it_is_prefill_and_how_much_decode() -> None:
    scheduler = a_scheduler(a_request("a", num_prompt=3))
    step(scheduler)
    scheduler.add(a_request("b", num_prompt=20))
    plan = scheduler.schedule()
    assert (plan.prefill_tokens, plan.decode_tokens) == (15, 1)
    scheduler.commit({"a": [7]})
    assert scheduler.num_prompt_tokens_left == 5


def test_what_a_preempted_request_computes_again_is_prefill() -> None:
    scheduler = a_scheduler(a_request("a", 2, 4), a_request("b", 1, 5), of=limits(num_blocks=3, block_size=2))
    for token_id in (11, 12, 13):
        step(scheduler, token_id)
    assert scheduler.num_preemptions == 1
    scheduler.cancel("a")
    plan = scheduler.schedule()
    assert (plan.prefill_tokens, plan.decode_tokens) == (3, 0)  # a token of the prompt and two that were delivered
    scheduler.commit({"b": [13]})
    plan = scheduler.schedule()
    assert (plan.prefill_tokens, plan.decode_tokens) == (0, 1)


def finish(scheduler: Scheduler, token_id: int = 7) -> list[ScheduledBatch]:
    """Run until nothing is left; return the plans."""
    plans = []
    while scheduler.has_work:
        plans.append(scheduler.schedule())
        scheduler.check()
        scheduler.commit({s.request_id: [token_id] for s in plans[-1].sampled})
        scheduler.check()
    return plans


def test_the_next_turn_of_a_chat_computes_only_what_is_new() -> None:
    scheduler = a_scheduler(a_shared("a", range(10, 19), 4))
    finish(scheduler)
    scheduler.add(a_shared("b", [*range(10, 19), 7, 7, 7, 7, 1, 2], 2))  # 15 tokens; 12 of them are computed, 3 blocks
    plan = scheduler.schedule()
    assert chunks(plan) == [("b", 12, 15)]
    assert scheduler.commit({"b": [7]}) == [RequestOutput("b", [7], None, cached_tokens=12)]
    assert step(scheduler) == [RequestOutput("b", [7], "length")]


def test_the_last_token_of_a_prompt_that_is_there_is_computed_in_a_block_of_its_own() -> None:
    scheduler = a_scheduler(a_shared("a", range(8), 8))
    step(scheduler)
    table = list(scheduler.blocks.table("a"))
    scheduler.add(a_shared("b", range(8), 8))
    plan = scheduler.schedule()
    assert chunks(plan) == [("a", 8, 9), ("b", 4, 8)]
    shared, own = plan.sequences[1].block_table
    assert shared == table[0]
    assert own not in table


@pytest.mark.parametrize(("tenant", "start"), [("", 8), ("t", 0)])
def test_blocks_of_one_tenant_are_not_for_another(tenant: str, start: int) -> None:
    scheduler = a_scheduler(a_shared("a", range(9), 1))
    finish(scheduler)
    scheduler.add(a_shared("b", range(9), 1, tenant=tenant))
    assert chunks(scheduler.schedule()) == [("b", start, 9)]


def test_a_request_without_a_seed_shares_nothing() -> None:
    scheduler = a_scheduler(a_request("a", 9, 1))
    finish(scheduler)
    assert scheduler.blocks.num_cached == 0
    scheduler.add(a_request("b", 9, 1))
    assert chunks(scheduler.schedule()) == [("b", 0, 9)]


def test_hashes_that_came_with_a_request_are_those_of_the_engine() -> None:
    scheduler = a_scheduler(a_shared("a", range(9), 1))
    finish(scheduler)
    hashed = a_shared("b", range(9), 1)
    hashes = hashes_of(hashed.prompt_token_ids, hashed.cache_seed, 4)  # type: ignore[arg-type]
    scheduler.add(msgspec.structs.replace(hashed, block_hashes=hashes))
    assert chunks(scheduler.schedule()) == [("b", 8, 9)]


def test_a_preempted_sequence_finds_what_nobody_needed_meanwhile() -> None:
    # 5 blocks of 2: both have two, a takes the fifth, and b, which wants it next, must go.
    first, second = a_shared("a", [1, 2, 3, 4], 5), a_shared("b", [5, 6, 7], 5)
    scheduler = a_scheduler(first, second, of=limits(num_blocks=5, block_size=2))
    step(scheduler, 11)
    step(scheduler, 12)
    assert scheduler.schedule().preempted == ("b",)
    scheduler.commit({"a": [13]})
    scheduler.cancel("a")
    plan = scheduler.schedule()
    assert (chunks(plan), list(plan.sequences[0].token_ids)) == ([("b", 4, 5)], [12])
    (output,) = scheduler.commit({"b": [13]})
    assert output.cached_tokens == 0  # of the first time, and said then


def test_a_cancelled_request_leaves_what_it_has_computed_for_others() -> None:
    scheduler = a_scheduler(a_shared("a", range(9), 4))
    step(scheduler)
    scheduler.cancel("a")
    assert (scheduler.blocks.num_used, scheduler.blocks.num_cached) == (0, 2)


def test_a_failed_request_leaves_nothing_and_its_blocks_are_zeroed_before_the_next_step() -> None:
    scheduler = a_scheduler(a_shared("a", range(9), 4))
    step(scheduler)
    blocks = set(scheduler.blocks.table("a"))
    scheduler.cancel("a", "failed")
    scheduler.check()
    scheduler.add(a_shared("b", range(9), 4))
    plan = scheduler.schedule()
    assert (set(plan.zeroed), chunks(plan)) == (blocks, [("b", 0, 9)])
    scheduler.commit({"b": [7]})
    assert scheduler.schedule().zeroed == ()


def test_several_tokens_of_a_step_are_taken_up_to_the_end_of_the_answer() -> None:
    scheduler = a_scheduler(a_request("a", 3, 9))
    scheduler.schedule()
    assert scheduler.commit({"a": [7, 8]}) == [RequestOutput("a", [7, 8], None)]
    scheduler.check()
    plan = scheduler.schedule()
    assert (chunks(plan), plan.decode_tokens) == ([("a", 3, 5)], 1)
    assert scheduler.commit({"a": [5, STOP, 6]}) == [RequestOutput("a", [5, STOP], "stop")]
    scheduler.check()


@pytest.mark.parametrize(
    ("num_tokens", "lane"), [(1, 0), (512, 0), (513, 1), (2048, 1), (2049, 2), (8192, 2), (8193, 3), (131_072, 4)]
)
def test_a_lane_has_prefills_of_like_size(num_tokens: int, lane: int) -> None:
    assert lane_of(num_tokens, short_tokens(2048)) == lane


def test_a_long_prompt_does_not_hold_up_a_short_one_nor_a_middling_one() -> None:
    scheduler = a_scheduler(a_request("long", 200, 1), of=limits(max_model_len=300, num_blocks=99))
    step(scheduler)
    scheduler.add(a_request("short", 4, 1))
    scheduler.add(a_request("middling", 9, 1))
    assert chunks(scheduler.schedule()) == [("long", 16, 23), ("short", 0, 4), ("middling", 0, 5)]
    scheduler.commit({"short": [7]})
    plan = scheduler.schedule()
    assert chunks(plan) == [("long", 23, 35), ("middling", 5, 9)]


def test_of_prompts_of_like_size_one_is_begun_at_a_time() -> None:
    scheduler = a_scheduler(a_request("a", 40, 1), a_request("b", 60, 1), of=limits(max_model_len=99, num_blocks=99))
    assert chunks(scheduler.schedule()) == [("a", 0, 16)]
    assert scheduler.num_waiting == 1


def test_a_prompt_that_is_mostly_cached_is_a_short_one() -> None:
    of = limits(max_model_len=300, num_blocks=199)
    scheduler = a_scheduler(a_shared("a", range(100), 1), of=of)
    finish(scheduler)
    scheduler.add(a_request("long", 200, 1))
    step(scheduler)
    scheduler.add(a_shared("b", range(102), 1))
    assert chunks(scheduler.schedule()) == [("long", 16, 30), ("b", 100, 102)]


def test_a_higher_priority_takes_all_tokens_that_it_needs() -> None:
    scheduler = a_scheduler(a_request("low", 40, 1, priority=1), of=limits(max_model_len=99, num_blocks=99))
    step(scheduler)
    scheduler.add(a_request("high", 30, 1))
    assert chunks(scheduler.schedule()) == [("high", 0, 16)]
    scheduler.commit({})
    assert chunks(scheduler.schedule()) == [("high", 16, 30), ("low", 16, 18)]


def test_a_step_can_be_held_to_fewer_tokens_of_prompts_and_decodes_are_not() -> None:
    scheduler = a_scheduler(a_request("a"))
    step(scheduler)
    scheduler.add(a_request("b", num_prompt=9))
    assert chunks(scheduler.schedule(max_prefill_tokens=2)) == [("a", 3, 4), ("b", 0, 2)]
    scheduler.commit({"a": [7]})
    assert chunks(scheduler.schedule(max_prefill_tokens=0)) == [("a", 4, 5), ("b", 2, 3)]  # one at least


def test_several_answers_to_a_new_prompt_compute_it_once() -> None:
    scheduler = a_scheduler(*(a_shared(name, range(9), 2) for name in "abc"))
    assert chunks(scheduler.schedule()) == [("a", 0, 9)]
    scheduler.commit({"a": [7]})
    assert chunks(scheduler.schedule()) == [("a", 9, 10), ("b", 8, 9), ("c", 8, 9)]


def test_an_important_request_does_not_wait_for_the_prompt_of_a_lesser_one() -> None:
    scheduler = a_scheduler(a_shared("low", range(40), 2), of=limits(max_model_len=99, num_blocks=99))
    step(scheduler)
    important = msgspec.structs.replace(a_shared("high", range(40), 2), priority=-1)
    scheduler.add(important)
    assert chunks(scheduler.schedule()) == [("high", 16, 32)]


def ahead(*requests: EngineRequest, of: SchedulerLimits | None = None) -> Scheduler:
    """A scheduler that plans a step while another runs."""
    scheduler = Scheduler(of or limits(), max_uncommitted=2)
    for request in requests:
        assert scheduler.add(request) is None
    return scheduler


def test_a_step_can_be_planned_before_the_tokens_of_the_last_one_are_known() -> None:
    scheduler = ahead(a_request("a", 3, 3))
    first, second = scheduler.schedule(), scheduler.schedule()
    scheduler.check()
    assert (chunks(first), chunks(second)) == ([("a", 0, 3)], [("a", 3, 4)])
    assert list(second.sequences[0].token_ids) == [UNKNOWN_TOKEN]
    assert scheduler.commit({"a": [7]}) == [RequestOutput("a", [7], None)]
    assert list(scheduler.schedule().sequences[0].token_ids) == [UNKNOWN_TOKEN]
    scheduler.check()
    assert scheduler.commit({"a": [8]}) == [RequestOutput("a", [8], None)]
    assert scheduler.commit({"a": [9]}) == [RequestOutput("a", [9], "length")]


def test_no_step_is_planned_where_all_wait_for_what_is_not_committed() -> None:
    scheduler = ahead(a_request("a", 3, 1))
    assert scheduler.schedule().step == 1
    assert (scheduler.schedule().sequences, scheduler.step) == ((), 1)
    assert scheduler.commit({"a": [7]}) == [RequestOutput("a", [7], "length")]


def test_what_was_planned_behind_a_stop_token_counts_for_nothing() -> None:
    scheduler = ahead(a_request("a", 3, 9))
    scheduler.schedule()
    scheduler.schedule()
    assert scheduler.commit({"a": [STOP]}) == [RequestOutput("a", [STOP], "stop")]
    scheduler.check()
    assert (scheduler.commit({"a": [7]}), scheduler.blocks.num_used) == ([], 0)


def test_nobody_is_preempted_for_a_step_that_is_planned_ahead() -> None:
    # 4 blocks of 2: each has two, and both want a third in the fourth step.
    scheduler = ahead(a_request("a", 2, 4), a_request("b", 2, 4), of=limits(num_blocks=4, block_size=2))
    scheduler.schedule()
    scheduler.schedule()
    scheduler.commit({"a": [7], "b": [7]})
    scheduler.schedule()
    scheduler.commit({"a": [7], "b": [7]})
    plan = scheduler.schedule()
    assert (chunks(plan), plan.preempted, scheduler.step) == ([], (), 3)
    scheduler.commit({"a": [7], "b": [7]})
    assert scheduler.schedule().preempted == ("b",)


def test_a_step_ahead_that_lacks_a_block_for_one_is_no_step_for_anybody() -> None:
    """Or whoever lacks it stood still while the others have blocks: only a plan with no step before it may preempt."""
    # 3 blocks of 4: both are full, and want the third one.
    scheduler = ahead(a_request("a", 4, 5), a_request("b", 4, 5), of=limits(num_blocks=3))
    scheduler.schedule()
    plan = scheduler.schedule()
    assert (chunks(plan), scheduler.step, scheduler.blocks.num_free) == ([], 1, 1)
    scheduler.check()
    scheduler.commit({"a": [7], "b": [7]})
    plan = scheduler.schedule()
    assert (chunks(plan), plan.preempted) == ([("a", 4, 5)], ("b",))


def test_a_step_ahead_leaves_blocks_that_are_on_their_way_to_who_computes_them() -> None:
    scheduler = ahead(a_shared("a", range(9), 3), a_shared("b", range(9), 3))
    assert chunks(scheduler.schedule()) == [("a", 0, 9)]
    assert chunks(scheduler.schedule()) == [("a", 9, 10)]
    scheduler.commit({"a": [7]})
    assert chunks(scheduler.schedule()) == [("a", 10, 11), ("b", 8, 9)]


def test_several_tokens_cannot_come_where_the_next_step_counts_on_one() -> None:
    scheduler = ahead(a_request("a", 3, 9))
    scheduler.schedule()
    scheduler.schedule()
    with pytest.raises(EngineFailed, match="2 tokens of a came, and the next step counts on one"):
        scheduler.commit({"a": [7, 8]})


def test_what_the_cache_has_of_waiting_prompts_is_known_when_they_come() -> None:
    scheduler = a_scheduler(a_shared("a", range(9), 1), of=limits(max_num_seqs=1))
    finish(scheduler)
    scheduler.add(a_request("b"))
    scheduler.add(a_shared("c", range(10), 1))
    scheduler.schedule()
    assert (scheduler.num_tokens_waiting, scheduler.num_cached_waiting) == (10, 8)
