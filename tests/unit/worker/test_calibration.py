"""From reports of steps to the costs of a group."""

import random

import msgspec
import pytest

from glm_worker import main
from glm_worker.engine.calibration.costs import costs, step_s
from glm_worker.engine.calibration.experiments import SPREAD, Experiment, experiments, ragged_lengths
from glm_worker.engine.calibration.fit import fit, median_error
from glm_worker.engine.calibration.points import PointReader, StepPoint, gap_s, whole_turns
from glm_worker.engine.calibration.result import DecodeCost, PrefillCost
from glm_worker.engine.calibration.served.backlog import backlog, foretell
from glm_worker.errors import EngineFailed
from glm_worker.messages import EngineLimits, StepDone, Submit
from glm_worker.request import EngineRequest
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler

PREFILL = PrefillCost(base_s=0.004, per_token_s=4e-5, per_token_context_s=1e-7)
DECODE = DecodeCost(base_s=0.003, per_sequence_s=1e-4, per_context_token_s=1e-6)
LIMITS = EngineLimits(max_model_len=2048, num_blocks=4096, block_size=16)
MAX_BATCH_TOKENS, MAX_NUM_SEQS = 512, 64


def a_point(seconds: float = 0.1, *, began_s: float = 0.0, is_followed: bool = True, **work: float) -> StepPoint:
    counts = {"tokens": 0, "token_context": 0.0, "rows": 0, "context": 0} | work
    return StepPoint(began_s=began_s, seconds=seconds, is_followed=is_followed, **counts)  # type: ignore[arg-type]


def scheduler_limits(limits: EngineLimits, max_batch_tokens: int, max_num_seqs: int) -> SchedulerLimits:
    return SchedulerLimits(
        max_model_len=limits.max_model_len,
        max_batch_tokens=max_batch_tokens,
        max_num_seqs=max_num_seqs,
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
    )


class PretendEngine:
    """The real scheduler, and a clock that steps move by what they cost; a turn takes a gap besides."""

    def __init__(self, gap_s: float = 0.001, decode: DecodeCost = DECODE) -> None:
        self.decode = decode
        self.scheduler = Scheduler(scheduler_limits(LIMITS, MAX_BATCH_TOKENS, MAX_NUM_SEQS))
        self.now_s, self.gap_s = 0.0, gap_s

    def step(self) -> StepDone:
        plan = self.scheduler.schedule()
        chunks = [(len(s.token_ids), s.start) for s in plan.sequences if not s.is_decode]
        point = a_point(
            tokens=plan.prefill_tokens,
            token_context=sum(n * (start + n / 2) for n, start in chunks),
            rows=plan.decode_tokens,
            context=sum(s.end for s in plan.sequences if s.is_decode),
        )
        seconds, began_s = step_s(PREFILL, self.decode, point), self.now_s
        self.now_s += seconds + self.gap_s
        outputs = self.scheduler.commit({s.request_id: [7] for s in plan.sampled})
        return StepDone(
            generation="g",
            outputs=outputs,
            step=plan.step,
            began_s=began_s,
            num_running=self.scheduler.num_running,
            num_waiting=self.scheduler.num_waiting,
            num_tokens_waiting=0,
            kv_blocks_used=0,
            num_preemptions=self.scheduler.num_preemptions,
            prefill_tokens=plan.prefill_tokens,
            prefill_s=seconds,
            decode_tokens=plan.decode_tokens,
        )

    def run(self, experiment: Experiment) -> list[StepPoint]:
        prompts = [*experiment.prompts, *([experiment.then] if experiment.then else [])]
        submits = [a_submit(f"{self.now_s}-{i}", n, experiment.max_tokens, i) for i, n in enumerate(prompts)]
        reader = PointReader({s.request.request_id: len(s.request.prompt_token_ids) for s in submits})
        for submit in submits[: len(experiment.prompts)]:
            self.scheduler.add(submit.request)
        points = [reader.read(self.step())]
        for submit in submits[len(experiment.prompts) :]:
            self.scheduler.add(submit.request)
        while self.scheduler.has_work:
            points.append(reader.read(self.step()))
        return points


def a_submit(request_id: str, num_prompt: int, max_tokens: int, priority: int = 0) -> Submit:
    request = EngineRequest(
        request_id=request_id,
        prompt_token_ids=[1] * num_prompt,
        max_tokens=max_tokens,
        stop_token_ids=[],
        priority=priority,
    )
    return Submit("g", request)


def test_the_experiments_find_what_the_steps_of_an_engine_cost() -> None:
    engine, found = PretendEngine(), {}
    for experiment in experiments(LIMITS, MAX_BATCH_TOKENS, MAX_NUM_SEQS):
        points = engine.run(experiment)
        found[experiment.name] = whole_turns(points, engine.gap_s)
    costed = costs(found, LIMITS)
    assert engine.scheduler.num_preemptions == 0
    assert costed.prefill.base_s == pytest.approx(PREFILL.base_s + engine.gap_s, rel=1e-3)
    assert costed.prefill.per_token_s == pytest.approx(PREFILL.per_token_s, rel=1e-3)
    assert costed.prefill.per_token_context_s == pytest.approx(PREFILL.per_token_context_s, rel=1e-3)
    assert costed.decode.base_s == pytest.approx(DECODE.base_s + engine.gap_s, rel=1e-2)
    assert costed.decode.per_sequence_s == pytest.approx(DECODE.per_sequence_s, rel=1e-2)
    assert costed.decode.per_context_token_s == pytest.approx(DECODE.per_context_token_s, rel=1e-2)
    assert costed.kv_tokens == 65536
    assert max(costed.measured.errors.values()) < 0.01
    assert costed.measured.mixed


@pytest.mark.parametrize(
    ("limits", "max_batch_tokens", "max_num_seqs"),
    [(LIMITS, 2048, 64), (LIMITS, 16, 1), (EngineLimits(max_model_len=64, num_blocks=8, block_size=4), 16, 2)],
)
def test_experiments_fit_the_group_and_show_both_kinds_of_steps(
    limits: EngineLimits, max_batch_tokens: int, max_num_seqs: int
) -> None:
    todo = experiments(limits, max_batch_tokens, max_num_seqs)
    for experiment in todo:
        assert len(experiment.prompts) <= max_num_seqs
        assert max(experiment.prompts) + experiment.max_tokens <= limits.max_model_len
    assert any(experiment.max_tokens == 1 for experiment in todo)
    assert any(experiment.max_tokens > 1 for experiment in todo)


def test_the_experiments_find_where_context_gets_dear() -> None:
    dear = msgspec.structs.replace(DECODE, near_context_tokens=8000, per_far_token_s=2e-6)
    engine, found = PretendEngine(decode=dear), {}
    for experiment in experiments(LIMITS, MAX_BATCH_TOKENS, MAX_NUM_SEQS):
        found[experiment.name] = whole_turns(engine.run(experiment), engine.gap_s)
    costed = costs(found, LIMITS).decode
    for context in (1000, 4000, 10_000, 20_000):
        assert costed.seconds(16, context) == pytest.approx(dear.seconds(16, context) + engine.gap_s, rel=0.1)
    assert costed.near_context_tokens == pytest.approx(8000, rel=0.25)


def test_no_context_is_far_where_every_token_takes_the_same() -> None:
    engine, found = PretendEngine(), {}
    for experiment in experiments(LIMITS, MAX_BATCH_TOKENS, MAX_NUM_SEQS):
        found[experiment.name] = whole_turns(engine.run(experiment), engine.gap_s)
    assert costs(found, LIMITS).decode.per_far_token_s == 0.0


GROUPS = [
    (LIMITS, 512, 16),
    (LIMITS, 16, 1),
    (EngineLimits(max_model_len=64, num_blocks=8, block_size=4), 16, 2),
    (EngineLimits(max_model_len=131_072, num_blocks=4_000, block_size=64), 4096, 128),
]


@pytest.mark.parametrize(("limits", "max_batch_tokens", "max_num_seqs"), GROUPS)
def test_a_backlog_fills_every_seat_and_fits_the_group(
    limits: EngineLimits, max_batch_tokens: int, max_num_seqs: int
) -> None:
    requests = backlog(scheduler_limits(limits, max_batch_tokens, max_num_seqs))
    assert len(requests) > max_num_seqs
    for prompt, answer in requests:
        assert prompt >= 1
        assert answer >= 1
        assert prompt + answer <= min(limits.max_model_len, limits.num_blocks * limits.block_size)
    assert sum(prompt for prompt, _ in requests) <= 4 * limits.num_blocks * limits.block_size


def test_what_is_foretold_of_a_backlog_is_what_an_engine_of_these_costs_takes() -> None:
    engine = PretendEngine(gap_s=0.0)
    requests = backlog(engine.scheduler.limits)
    for number, (prompt, answer) in enumerate(requests):
        engine.scheduler.add(a_submit(f"{number}", prompt, answer).request)
    first_s, tokens = 0.0, 0
    while engine.scheduler.has_work:
        done = engine.step()
        if first_s:
            tokens += done.decode_tokens
        elif done.outputs:
            first_s = engine.now_s
    foretold = foretell(requests, engine.scheduler.limits, PREFILL, DECODE)
    assert foretold.seconds == pytest.approx(engine.now_s - first_s)
    assert foretold.tokens == tokens == sum(answer - 1 for _, answer in requests)


def test_a_backlog_takes_longer_by_what_each_token_takes() -> None:
    limits = scheduler_limits(LIMITS, 512, 16)
    requests = backlog(limits)
    alone = foretell(requests, limits, PREFILL, DECODE)
    served = DecodeCost(base_s=0.003, per_sequence_s=1e-4 + 5e-5, per_context_token_s=1e-6)
    assert foretell(requests, limits, PREFILL, served).seconds == pytest.approx(alone.seconds + 5e-5 * alone.tokens)


def test_lengths_are_of_all_sizes_in_no_order() -> None:
    lengths = ragged_lengths(16, 1600)
    assert 1300 < max(lengths) <= 1600
    assert min(lengths) < 1.5 * 1600 / SPREAD
    assert sum(length < 400 for length in lengths) == 8  # half of them below the geometric middle
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_batches_that_are_measured_hold_requests_of_different_lengths() -> None:
    batches = [
        e for e in experiments(LIMITS, MAX_BATCH_TOKENS, MAX_NUM_SEQS) if e.max_tokens > 1 and len(e.prompts) > 4
    ]
    assert batches
    assert all(max(each.prompts) > 8 * min(each.prompts) for each in batches)
    assert max(sum(each.prompts) for each in batches) > 0.3 * LIMITS.num_blocks * LIMITS.block_size


def test_a_step_that_does_not_add_up_is_refused() -> None:
    engine = PretendEngine()
    engine.scheduler.add(a_submit("a", 4, 2).request)
    with pytest.raises(EngineFailed, match="none that the calibration asked for"):
        PointReader({"a": 3}).read(engine.step())


def test_a_turn_takes_until_the_next_step_begins() -> None:
    points = [a_point(0.1), a_point(0.1, began_s=0.12), a_point(0.1, began_s=0.26, is_followed=False)]
    assert gap_s(points) == pytest.approx(0.03)
    assert [p.seconds for p in whole_turns(points, 0.5)] == pytest.approx([0.12, 0.14, 0.6])


def test_without_a_following_step_there_is_no_gap() -> None:
    assert gap_s([a_point(is_followed=False)]) == 0.0
    assert whole_turns([], 0.5) == []


def test_a_fit_is_not_moved_by_steps_that_the_machine_held_up() -> None:
    noise = random.Random(1)
    points = [((1, n), 0.01 + 0.001 * n) for n in range(1, 64)]
    held_up = [(factors, seconds * (8 if noise.random() < 0.2 else 1)) for factors, seconds in points]
    assert fit(held_up) == pytest.approx([0.01, 0.001], rel=0.02)


def test_a_fit_keeps_what_all_steps_take_together() -> None:
    seconds = [0.010, 0.010, 0.014] * 20  # late more often than early, as steps are
    (found,) = fit([((1,), each) for each in seconds])
    assert found * len(seconds) == pytest.approx(sum(seconds), rel=1e-3)


def test_no_coefficient_is_negative() -> None:
    assert fit([((1, n), 1.0 - 0.01 * n) for n in range(20)])[1] == 0.0


def test_without_prefill_or_decode_nothing_is_claimed() -> None:
    with pytest.raises(EngineFailed, match="1 kinds of prefill and 0 of decode"):
        costs({"one": [a_point(tokens=16, token_context=128.0)]}, LIMITS)


def test_the_median_error_of_nothing_is_zero() -> None:
    assert median_error([]) == 0.0
    assert median_error([(1.1, 1.0), (0.5, 1.0), (1.0, 1.0)]) == pytest.approx(0.1)


def test_calibrate_takes_the_flags_of_serve_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["calibrate", "--model", "m", "--num-pods", "2", "-o", "x.json"]) == 78
    assert "num_pods 2: a calibration runs one pod" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.run(["calibrate", "--model", "m"])
    assert "-o/--output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.run(["calibrate", "--model", "m", "-o", "x.json", "--starts", "0"])
    assert "0 is not a number of 1 or more" in capsys.readouterr().err
