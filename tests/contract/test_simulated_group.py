"""The simulated group does what the worker's scheduler does, given the same costs: no machine is in between."""

import random
from collections import deque

import pytest

from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.model.group import Group, Request
from glm_operator.autoscale.simulate.trace import Arrival
from glm_worker.engine.calibration.costs import step_s
from glm_worker.engine.calibration.points import StepPoint
from glm_worker.engine.calibration.result import DecodeCost, PrefillCost
from glm_worker.request import EngineRequest
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler

PREFILL = PrefillCost(base_s=0.003, per_token_s=5e-5, per_token_context_s=1e-7)
DECODE = DecodeCost(
    base_s=0.004, per_sequence_s=1e-4, per_context_token_s=5e-7, near_context_tokens=2000, per_far_token_s=1e-6
)
MAX_BATCH_TOKENS, MAX_NUM_SEQS, BLOCK_SIZE, MAX_MODEL_LEN = 512, 16, 16, 2048
TOLERANCE = 0.1  # the simulated group loses half a block a request to rounding, and takes the mean of alike steps
Latencies = dict[str, list[float]]


def arrivals(rate: float, count: int) -> list[Arrival]:
    chance, at_s, found = random.Random(7), 0.0, []
    for _ in range(count):
        at_s += chance.expovariate(rate)
        prompt = round(min(1000, max(32, chance.lognormvariate(5.5, 0.9))))
        found.append(Arrival(at_s, prompt, chance.randint(8, 48)))
    return found


def scheduled(requests: list[Arrival], kv_tokens: int) -> Latencies:
    """Run the worker's scheduler on a clock that steps move by what they cost."""
    limits = SchedulerLimits(
        max_model_len=MAX_MODEL_LEN,
        max_batch_tokens=MAX_BATCH_TOKENS,
        max_num_seqs=MAX_NUM_SEQS,
        num_blocks=kv_tokens // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
    )
    scheduler, coming, now_s = Scheduler(limits), deque(enumerate(requests)), 0.0
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            now_s = max(now_s, coming[0][1].at_s)
        while coming and coming[0][1].at_s <= now_s:
            number, arrival = coming.popleft()
            assert scheduler.add(a_request(str(number), arrival)) is None
        plan = scheduler.schedule()
        now_s += step_s(PREFILL, DECODE, work_of(plan))
        for output in scheduler.commit({s.request_id: [7] for s in plan.sampled}):
            first.setdefault(int(output.request_id), now_s)
            last[int(output.request_id)] = now_s
    return {
        "ttft": [first[number] - arrival.at_s for number, arrival in enumerate(requests)],
        "itl": [(last[number] - first[number]) / (a.output_tokens - 1) for number, a in enumerate(requests)],
    }


def a_request(request_id: str, arrival: Arrival) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=[1] * arrival.prompt_tokens,
        max_tokens=arrival.output_tokens,
        stop_token_ids=[],
    )


def work_of(plan: ScheduledBatch) -> StepPoint:
    chunks = [(len(s.token_ids), s.start) for s in plan.sequences if not s.is_decode]
    return StepPoint(
        began_s=0.0,
        seconds=0.0,
        is_followed=True,
        tokens=plan.prefill_tokens,
        token_context=sum(n * (start + n / 2) for n, start in chunks),
        rows=plan.decode_tokens,
        context=sum(s.end for s in plan.sequences if s.is_decode),
    )


def simulated(requests: list[Arrival], kv_tokens: int) -> Latencies:
    calibration = Calibration(
        prefill_base_s=PREFILL.base_s,
        prefill_per_token_s=PREFILL.per_token_s,
        prefill_per_token_context_s=PREFILL.per_token_context_s,
        decode_base_s=DECODE.base_s,
        decode_per_sequence_s=DECODE.per_sequence_s,
        decode_per_context_token_s=DECODE.per_context_token_s,
        decode_near_context_tokens=DECODE.near_context_tokens,
        decode_per_far_token_s=DECODE.per_far_token_s,
        overhead_s=0.0,
        kv_tokens=kv_tokens,
        block_size=BLOCK_SIZE,
        max_batch_tokens=MAX_BATCH_TOKENS,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MAX_MODEL_LEN,
        cold_start_s=(60.0,),
    )
    edges = {("default", signal): (1.0,) for signal in ("ttft", "ttfa", "itl", "e2e")}
    group, now_s = Group("g0", calibration, edges, {}, 0.0, 0.0), 0.0
    for arrival in requests:
        now_s = arrival.at_s
        group.add(Request(arrival, "default"), now_s)
    while not group.is_idle:
        now_s += 1.0
        group.advance(now_s)
    return {signal: [request.latency[signal] for request in group.ended] for signal in ("ttft", "itl")}


def percentile(values: list[float], p: float) -> float:
    return sorted(values)[int(p * (len(values) - 1))]


@pytest.mark.parametrize("kv_tokens", [65536, 3072])
@pytest.mark.parametrize("rate", [8.0, 20.0, 26.0])
def test_latencies_are_those_of_the_workers_scheduler(rate: float, kv_tokens: int) -> None:
    requests = arrivals(rate, 600)
    real, model = scheduled(requests, kv_tokens), simulated(requests, kv_tokens)
    for signal in ("ttft", "itl"):
        for p in (0.5, 0.95):
            assert percentile(model[signal], p) == pytest.approx(percentile(real[signal], p), rel=TOLERANCE), (
                signal,
                p,
            )
