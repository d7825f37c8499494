"""How long a prompt waits for others, and how often one is computed again: laws over random loads."""

import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.request import EngineRequest
from glm_worker.scheduler.lanes import lane_of, short_tokens
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler

BUDGET = 16
LIMITS = SchedulerLimits(max_model_len=256, max_batch_tokens=BUDGET, max_num_seqs=99, num_blocks=9999, block_size=4)
NUM_LANES = 1 + lane_of(256, short_tokens(BUDGET))
LAWS = settings(max_examples=60, deadline=None, derandomize=True)
PROMPTS = st.one_of(st.integers(1, 4), st.integers(5, 60), st.integers(61, 200))


def a_request(request_id: str, num_prompt: int, max_tokens: int = 1) -> EngineRequest:
    return EngineRequest(
        request_id=request_id, prompt_token_ids=[1] * num_prompt, max_tokens=max_tokens, stop_token_ids=[]
    )


def steps_waited(arrivals: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return for each prompt in how many steps it has its token, and how many its lane alone would take for it.

    arrivals: lengths of the prompts that come before each step.
    """
    scheduler = Scheduler(LIMITS)
    begun: dict[str, int] = {}
    bounds: list[int] = []
    waited: dict[str, int] = {}
    step = 0
    while step < len(arrivals) or scheduler.has_work:
        for num_prompt in arrivals[step] if step < len(arrivals) else ():
            name, lane = str(len(begun)), lane_of(num_prompt, short_tokens(BUDGET))
            before = [s for s in [*scheduler._running, *scheduler._waiting] if s.lane == lane]
            begun[name] = step
            bounds.append(math.ceil((sum(s.num_uncomputed for s in before) + num_prompt) / (BUDGET // NUM_LANES)))
            scheduler.add(a_request(name, num_prompt))
        plan = scheduler.schedule()
        scheduler.check()
        step += 1
        for output in scheduler.commit({s.request_id: [7] for s in plan.sampled}):
            waited[output.request_id] = step - begun[output.request_id]
    return [waited[str(number)] for number in range(len(begun))], bounds


@LAWS
@given(st.lists(st.lists(PROMPTS, max_size=4), min_size=1, max_size=20))
def test_a_prompt_waits_for_those_of_its_size_and_for_its_part_of_the_steps(arrivals: list[list[int]]) -> None:
    waited, bounds = steps_waited(arrivals)
    assert all(steps <= bound for steps, bound in zip(waited, bounds, strict=True)), (waited, bounds)


def test_behind_a_prompt_of_64_steps_a_short_one_has_its_token_at_once_and_a_middling_one_soon() -> None:
    limits = SchedulerLimits(131_072, 2048, 64, 9000, 16)
    scheduler = Scheduler(limits)
    scheduler.add(a_request("128k", 131_000))
    scheduler.commit({s.request_id: [7] for s in scheduler.schedule().sampled})
    for name, num_prompt in (("short", 500), ("middling", 2000), ("also middling", 2000)):
        scheduler.add(a_request(name, num_prompt))
    first_token: dict[str, int] = {}
    for step in range(1, 99):
        plan = scheduler.schedule()
        for output in scheduler.commit({s.request_id: [7] for s in plan.sampled}):
            first_token[output.request_id] = step
        if not scheduler.has_work:
            break
    assert first_token == {"short": 1, "middling": 3, "also middling": 5, "128k": 66}


@LAWS
@given(
    older=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    num_prompt=st.integers(20, 120),
    num_spare=st.integers(0, 30),
)
def test_each_time_a_long_sequence_is_preempted_it_gets_twice_as_far_before_the_next(
    older: list[int], num_prompt: int, num_spare: int
) -> None:
    """Without a cache, where each time costs the whole prompt. older: tokens of the answers that grow beside it."""
    block_size = 4
    num_blocks = -(-(num_prompt + 60) // block_size) + len(older) + num_spare
    scheduler = Scheduler(SchedulerLimits(256, 256, 16, num_blocks, block_size))
    for number, max_tokens in enumerate(older):
        scheduler.add(a_request(f"old-{number}", 1, max_tokens))
    scheduler.add(a_request("long", num_prompt, 60))
    num_preempted, admitted_at = 0, 0
    while scheduler.has_work:
        was_held = "long" in scheduler.blocks.holders()
        plan = scheduler.schedule()
        scheduler.check()
        if "long" in plan.preempted:
            assert num_preempted == 0 or plan.step - admitted_at >= block_size << (num_preempted - 1)
            num_preempted += 1
        elif not was_held:
            admitted_at = plan.step
        scheduler.commit({s.request_id: [7] for s in plan.sampled})
