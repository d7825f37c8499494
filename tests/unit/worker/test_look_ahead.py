"""Steps launched before the tokens of the one before are known: nobody can tell it from what comes out.

Rank 0 and a follower in one process, over the real scheduler, batches, runner and draws. The model is stood in for by a
function of the tokens that the KV slots of a context hold: so a wrong token in a slot, a block that was given away too
early, or one that was not zeroed shows in the answer.
"""

import math
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_worker.engine.channel import KeepAlive, Report, StepInput
from glm_worker.engine.engine import Engine
from glm_worker.engine.follow import FollowerRank
from glm_worker.engine.intake import Intake
from glm_worker.engine.lead import LeadRank
from glm_worker.engine.look_ahead import DeviceDraws, can_be_passed, looks_ahead
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.sampler import BROKEN, Sampler
from glm_worker.errors import EngineFailed
from glm_worker.kernels.cpu.sample import sample_kernel
from glm_worker.messages import Cancel, RequestOutput, StepDone, Submit, ToEngine
from glm_worker.model.forward_batch import ForwardBatch
from glm_worker.parallel.groups import Communicator
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams, Thought
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch
from glm_worker.scheduler.prefix import seed_of
from glm_worker.scheduler.scheduler import Scheduler
from glm_worker.settings import read_settings
from integration.rank_pool import hold_torch_to_one_thread
from unit.worker.rank_ends import FakeChannel, FakeServer, FakeSlot

hold_torch_to_one_thread()

CPU, VOCAB_SIZE, POISON = torch.device("cpu"), 16, 15
GREEDY = SamplingParams(temperature=0)
SAMPLINGS = [GREEDY, SamplingParams(seed=3), SamplingParams(seed=4, top_p=0.8, top_k=5), SamplingParams(min_p=0.2)]


class Slots:
    """A KV cache of tokens. POISON stands for what is no number."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.block_size = limits.block_size
        self.tokens: list[int | None] = [None] * (limits.num_blocks * limits.block_size)

    def zero(self, blocks: tuple[int, ...]) -> None:
        for block in blocks:
            self.tokens[block * self.block_size : (block + 1) * self.block_size] = [None] * self.block_size


class ContextModel:
    """Logits that are a function of all tokens of a context."""

    expert_load = None

    def plan(self, batch: ForwardBatch) -> None:
        """There is nothing to plan."""

    def __call__(self, batch: ForwardBatch, _step: None, slots: Slots) -> Tensor:
        for slot, token in zip(batch.slots_T.tolist(), batch.token_ids_T.tolist(), strict=True):
            assert 0 <= token < VOCAB_SIZE, "a token that nobody has filled in"
            slots.tokens[slot] = token
        lens, rows = batch.context_lens_B.tolist(), []
        ends = (batch.cu_query_lens_B1[1:] - 1).tolist()
        size, sampled = slots.block_size, set(batch.logit_rows_S.tolist())
        for table, length, end in zip(batch.block_tables_BM.tolist(), lens, ends, strict=True):
            context = [slots.tokens[table[i // size] * size + i % size] for i in range(length)]
            assert None not in context, "a slot that nobody has written, or that was zeroed"
            if end in sampled:
                rows.append(logits_of(context))  # type: ignore[arg-type]
        return torch.stack(rows) if rows else torch.zeros(0, VOCAB_SIZE)


def logits_of(context: list[int]) -> Tensor:
    if POISON in context:
        return torch.full((VOCAB_SIZE,), math.nan)
    generator = torch.Generator().manual_seed(zlib.crc32(bytes(context)))
    logits_V = 2 * torch.randn(VOCAB_SIZE, generator=generator)
    logits_V[POISON] = -50.0
    return logits_V


class RecordingRunner(Runner):
    def __init__(self, limits: SchedulerLimits, slot: FakeSlot, draws: DeviceDraws | None) -> None:
        super().__init__(ContextModel(), Slots(limits), Communicator.single(), CPU, slot, draws=draws)  # type: ignore[arg-type]
        self.plans: list[ScheduledBatch] = []
        self.num_unwaited = 0
        self.most_unwaited = 0

    def launch(self, plan: ScheduledBatch, *, draws: bool = False) -> None:
        self.plans.append(copied(plan))
        self.num_unwaited += 1
        self.most_unwaited = max(self.most_unwaited, self.num_unwaited)
        super().launch(plan, draws=draws)

    def wait(self) -> Tensor:
        self.num_unwaited -= 1
        return super().wait()


def copied(plan: ScheduledBatch) -> ScheduledBatch:
    """Return the plan as it is now: block tables live on."""
    sequences = [msgspec.structs.replace(s, block_table=list(s.block_table)) for s in plan.sequences]
    return ScheduledBatch(plan.step, tuple(sequences), plan.first_scheduled, plan.preempted, plan.zeroed)


@dataclass
class Got:
    token_ids: list[int] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    num_logprobs: int = 0


class Pair:
    """Rank 0 and rank 1, which hears of steps when follow() lets it."""

    def __init__(
        self, *, is_ahead: bool = True, num_blocks: int = 40, block_size: int = 2, max_num_seqs: int = 4
    ) -> None:
        limits = SchedulerLimits(64, 8, max_num_seqs, num_blocks, block_size)
        self.server, self.channel, self.slots = FakeServer(), FakeChannel(), [FakeSlot(), FakeSlot()]
        kernel = sample_kernel(1)
        self.runners = [RecordingRunner(limits, slot, DeviceDraws(kernel) if is_ahead else None) for slot in self.slots]
        self.engines = [
            Engine(Scheduler(limits, max_uncommitted=1 + is_ahead), runner, looks_ahead=is_ahead)
            for runner in self.runners
        ]
        self.now_s = 100.0
        self.sampler = Sampler(kernel)
        intake = Intake(None, self.sampler, VOCAB_SIZE)  # type: ignore[arg-type]
        link, channel, slot = self.server, self.channel, self.slots[0]
        self.leader = LeadRank(self.engines[0], self.sampler, intake, link, channel, slot, "g-1", self.clock)  # type: ignore[arg-type]
        self.follower = FollowerRank(self.engines[1], None, self.slots[1], rank=1)  # type: ignore[arg-type]
        self.got: dict[str, Got] = {}
        self.inbox: list[StepInput] = []
        self.told: list[StepInput] = []

    def clock(self) -> float:
        self.now_s += 1
        return self.now_s

    def turn(self, *commands: ToEngine) -> None:
        for command in commands:
            if isinstance(command, Submit):
                self.got[command.request.request_id] = Got()
        self.server.commands.append(list(commands))
        num_sent = len(self.server.sent)
        self.leader.turn()
        for message in self.server.sent[num_sent:]:
            assert isinstance(message, StepDone)
            for output in message.outputs:
                self.take(output)
        self.inbox += [message for message in self.channel.sent if isinstance(message, StepInput)]
        self.channel.sent.clear()
        for engine in self.engines:
            engine.scheduler.check()

    def take(self, output: RequestOutput) -> None:
        got = self.got[output.request_id]
        assert not got.endings, "a finished request is never named again"
        got.token_ids += output.token_ids
        got.num_logprobs += len(output.logprobs)
        got.endings += [output.finish_reason] if output.finish_reason else []

    def follow(self) -> None:
        self.told += self.inbox
        while self.inbox:
            message = msgspec.msgpack.decode(msgspec.msgpack.encode(self.inbox.pop(0)), type=StepInput)
            self.follower.step(message)

    def finish(self) -> None:
        """Let everything end, on both ranks, and look at what is left."""
        while self.engines[0].has_work:
            self.turn()
        self.turn()
        self.follow()
        self.follower._wait(0)
        assert self.runners[1].plans == self.runners[0].plans
        assert [runner.num_unwaited for runner in self.runners] == [0, 0]
        assert self.engines[0].scheduler.blocks.num_used == 0
        assert (self.sampler._rows, self.sampler._matchers) == ({}, {})
        assert all(len(got.endings) == 1 for got in self.got.values())


def a_request(
    request_id: str = "a", prompt: list[int] | None = None, max_tokens: int = 6, **asks: object
) -> EngineRequest:
    given = {"sampling": GREEDY, "stop_token_ids": []} | asks
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=[1, 2, 3] if prompt is None else prompt,
        max_tokens=max_tokens,
        **given,  # type: ignore[arg-type]
    )


def submit(*args: object, **kwargs: object) -> Submit:
    return Submit("g-1", a_request(*args, **kwargs))  # type: ignore[arg-type]


def alone(request: EngineRequest) -> Got:
    """What a request gets by itself, one step after the other."""
    pair = Pair(is_ahead=False)
    pair.turn(Submit("g-1", request))
    pair.finish()
    assert pair.runners[0].most_unwaited == 1
    return pair.got[request.request_id]


def num_ahead(pair: Pair) -> int:
    """Steps that were planned before the tokens of the one before were known."""
    plans = pair.runners[0].plans
    return sum(any(s.token_ids[-1] == UNKNOWN_TOKEN for s in plan.sequences) for plan in plans)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_step_is_launched_before_the_one_before_is_waited_for_and_the_tokens_are_the_same(
    sampling: SamplingParams,
) -> None:
    pair, request = Pair(), a_request(sampling=sampling)
    pair.turn(Submit("g-1", request))
    assert [runner.num_unwaited for runner in pair.runners] == [1, 0]
    pair.follow()
    assert pair.runners[1].num_unwaited == 1
    pair.finish()
    assert pair.got["a"] == alone(request)
    assert [runner.most_unwaited for runner in pair.runners] == [2, 2]
    assert num_ahead(pair) == request.max_tokens - 1
    assert len(pair.runners[0].plans) == request.max_tokens  # and none for nothing: the last token was foreseen


def test_what_is_behind_a_stop_token_is_computed_and_dropped() -> None:
    whole = alone(a_request()).token_ids
    pair = Pair()
    pair.turn(submit(stop_token_ids=[whole[2]]))
    pair.finish()
    assert pair.got["a"] == Got(whole[:3], ["stop"])
    assert len(pair.runners[0].plans) == 4


ASKING: dict[str, dict[str, object]] = {
    "penalty": {"sampling": SamplingParams(temperature=0, frequency_penalty=1.5)},
    "bias": {"sampling": SamplingParams(temperature=0, logit_bias={4: 9.0})},
    "bad words": {"bad_words": [[4]]},
    "logprobs": {"num_logprobs": 1},
    "min_tokens": {"min_tokens": 3, "stop_token_ids": list(range(VOCAB_SIZE - 1))},
    "thought": {"thought": Thought(open_id=1, close_id=2, begins_open=True, max_tokens=3, forced_ids=[7, 2])},
}


@pytest.mark.parametrize("name", ASKING)
def test_a_step_is_not_passed_where_the_host_must_choose_and_is_as_soon_as_it_need_not(name: str) -> None:
    request = a_request("b", max_tokens=4, **ASKING[name])
    pair = Pair()
    pair.turn(submit("a", max_tokens=12), Submit("g-1", request))
    pair.finish()
    assert pair.got["b"] == alone(request)
    assert pair.got["a"] == alone(a_request("a", max_tokens=12))
    assert num_ahead(pair) >= 7  # those of "a" alone


@pytest.mark.parametrize("name", ASKING)
def test_the_predicate_says_what_needs_the_host(name: str) -> None:
    request = a_request(**ASKING[name])
    passed = [can_be_passed(request, num_generated) for num_generated in (0, 2, 3, 9)]
    by_number = {"min_tokens": [False, False, True, True], "thought": [True, True, False, False]}
    assert passed == by_number.get(name, [False] * 4)


def test_grammars_and_nothing_else_of_a_plain_request_need_the_host() -> None:
    assert all(can_be_passed(a_request(sampling=sampling), 0) for sampling in SAMPLINGS)
    assert not can_be_passed(a_request(grammar=AnswerGrammar(key="k", compiled=b"")), 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"look_ahead": "on"}, True),
        ({"device": "cuda"}, False),
        ({"device": "cuda", "cuda_kernels": "triton"}, True),
        ({"device": "cuda", "cuda_kernels": "triton", "look_ahead": "off"}, False),
    ],
)
def test_auto_looks_ahead_where_triton_was_asked_for_and_nowhere_else(
    settings: dict[str, object], expected: bool
) -> None:
    assert looks_ahead(read_settings(model="builtin://glm-nano", **settings)) is expected


def test_a_cancelled_request_ends_though_the_next_step_has_it() -> None:
    pair = Pair()
    pair.turn(submit("a", max_tokens=30), submit("b", max_tokens=5))
    pair.turn()
    pair.turn(Cancel("g-1", "a"), submit("c", prompt=[4, 5], max_tokens=3))
    pair.finish()
    assert pair.got["a"].endings == ["cancelled"]
    assert pair.got["b"] == alone(a_request("b", max_tokens=5))
    assert pair.got["c"] == alone(a_request("c", prompt=[4, 5], max_tokens=3))


def test_the_only_request_can_be_cancelled_while_two_steps_have_it() -> None:
    pair = Pair()
    pair.turn(submit("a", max_tokens=30))
    pair.turn(Cancel("g-1", "a"))
    pair.turn(submit("b"))
    pair.finish()
    assert pair.got["a"].endings == ["cancelled"]
    assert pair.got["b"] == alone(a_request("b"))


def test_who_asks_the_host_can_be_cancelled_while_its_step_runs() -> None:
    """Its first step computes a chunk alone, which can be passed; the second one samples it."""
    pair = Pair()
    pair.turn(submit("a", prompt=list(range(12)), num_logprobs=2))
    assert pair.runners[0].num_unwaited == 1
    pair.turn(Cancel("g-1", "a"), submit("b"))
    pair.finish()
    assert pair.got["a"] == Got([], ["cancelled"])
    assert pair.got["b"] == alone(a_request("b"))


class BreakingModel(ContextModel):
    """A row of a step is no number, and neither is what the step stores of its sequence."""

    def __init__(self, runner: RecordingRunner, step: int, row: int) -> None:
        self._runner, self._step, self._row = runner, step, row

    def __call__(self, batch: ForwardBatch, _step: None, slots: Slots) -> Tensor:
        logits_SV = super().__call__(batch, _step, slots)
        if self._runner.plans[-1].step == self._step:
            logits_SV[self._row] = math.nan
            slots.tokens[int(batch.slots_T[batch.logit_rows_S[self._row]])] = POISON
        return logits_SV


class OtherModel(ContextModel):
    def __call__(self, batch: ForwardBatch, _step: None, slots: Slots) -> Tensor:
        return -super().__call__(batch, _step, slots)[:, :POISON]


def test_a_broken_row_ends_its_request_alone_and_its_blocks_are_zeroed_behind_the_step_that_has_it_still() -> None:
    pair = Pair(num_blocks=8)
    for runner in pair.runners:
        runner._model = BreakingModel(runner, step=2, row=0)  # type: ignore[assignment]
    pair.turn(submit("a", max_tokens=9), submit("b", max_tokens=6))
    for _ in range(3):
        pair.turn()
    pair.turn(submit("c", prompt=[5, 6, 7, 8], max_tokens=4))
    pair.finish()
    assert pair.got["a"].endings == ["failed"]
    assert pair.got["b"] == alone(a_request("b", max_tokens=6))
    assert pair.got["c"] == alone(a_request("c", prompt=[5, 6, 7, 8], max_tokens=4))
    plans = pair.runners[0].plans
    (zeroed,) = [number for number, plan in enumerate(plans) if plan.zeroed]
    last = max(number for number, plan in enumerate(plans) if any(s.request_id == "a" for s in plan.sequences))
    assert (zeroed, last) == (3, 2)
    errors = [o.error for message in pair.server.sent for o in message.outputs if o.error]  # type: ignore[union-attr]
    assert errors == [BROKEN]


def test_a_request_with_which_a_follower_cannot_go_on_ends_while_its_step_runs() -> None:
    pair = Pair()
    pair.turn(submit("a", max_tokens=20), submit("b"))
    pair.channel.reported = [(1, Report("a", "its adapter is broken"))]
    pair.finish()
    assert pair.got["a"].endings == ["failed"]
    assert pair.got["b"] == alone(a_request("b"))


def test_a_follower_that_draws_otherwise_says_so_and_ends() -> None:
    pair = Pair()
    pair.runners[1]._model = OtherModel()  # type: ignore[assignment]
    pair.turn(submit("a"))
    pair.turn()
    with pytest.raises(EngineFailed, match=r"rank 1 drew \[\d+\] where rank 0 drew \[\d+\], for row 0 of 1: .* be off"):
        pair.follow()


class LastWord(Exception):
    pass


class KeepsAlive:
    """A channel on which nothing is to be done, and then nothing is left to be said."""

    def __init__(self) -> None:
        self._messages = [KeepAlive()]

    def receive(self, _timeout_s: float) -> KeepAlive:
        if not self._messages:
            raise LastWord
        return self._messages.pop()


def test_an_idle_follower_has_waited_for_the_last_step() -> None:
    """Or it would say that it idles while its device hangs."""
    pair = Pair()
    pair.turn(submit("a", max_tokens=9))
    pair.follow()
    assert pair.runners[1].num_unwaited == 1
    pair.follower._channel = KeepsAlive()  # type: ignore[assignment]
    with pytest.raises(LastWord):
        pair.follower.serve()
    assert (pair.runners[1].num_unwaited, pair.slots[1].signs[-1]) == (0, "idle")
    pair.finish()


def test_a_step_is_told_in_the_order_of_its_commands_and_commits() -> None:
    pair = Pair()
    pair.turn(submit("a", max_tokens=3))
    pair.turn(submit("b", max_tokens=2), Cancel("g-1", "b"))
    pair.finish()
    told = [[type(event).__name__ for event in message.events] for message in pair.told]
    assert told == [["Submit"], [], ["Committed", "Submit", "Cancel"], ["Committed"]][: len(told)]


def test_who_wants_the_blocks_that_a_running_step_computes_waits_for_them_also_one_step_ahead() -> None:
    """Or of several answers to one prompt all but the first would compute it again."""
    shared = {"cache_seed": seed_of("t")}
    pair = Pair(max_num_seqs=3)
    pair.turn(*[submit(name, prompt=[1, 2, 3, 4, 5, 6, 7], max_tokens=4, **shared) for name in "abc"])
    pair.finish()
    computed = [s for plan in pair.runners[0].plans for s in plan.sequences]
    first = [next(s for s in computed if s.request_id == name) for name in "abc"]
    assert [(s.start, len(s.token_ids)) for s in first] == [(0, 7), (6, 1), (6, 1)]


def test_a_report_says_the_step_that_ended_and_its_time_begins_where_the_one_before_ended() -> None:
    pair = Pair()
    pair.turn(submit("a", max_tokens=3))
    pair.turn()
    pair.turn()
    done = [message for message in pair.server.sent if isinstance(message, StepDone)]
    assert [message.step for message in done] == [1, 2, 3]
    times = [(message.began_s, message.prefill_s + message.decode_s) for message in done]
    assert all(began + took <= following for (began, took), (following, _) in pairwise(times))
    assert all(took > 0 for _, took in times)


REQUESTS = st.builds(
    lambda prompt, max_tokens, sampling, stops, asks, shares: a_request(
        prompt=prompt,
        max_tokens=max_tokens,
        cache_seed=seed_of("t") if shares else b"",
        **({"sampling": sampling, "stop_token_ids": [7, 8] if stops else []} | (ASKING[asks] if asks else {})),
    ),
    st.integers(1, 12).map(lambda num: [(3 * i + num // 4) % 11 for i in range(num)]),
    st.integers(2, 9),
    st.sampled_from(SAMPLINGS),
    st.booleans(),
    st.none() | st.none() | st.sampled_from(sorted(ASKING)),
    st.booleans(),
)
ACTIONS = st.lists(
    st.tuples(st.just("submit"), REQUESTS)
    | st.tuples(st.just("cancel"), st.integers(0, 20))
    | st.tuples(st.just("poison"), st.integers(1, 9))
    | st.tuples(st.just("turn"), st.none())
    | st.tuples(st.just("turn"), st.none())
    | st.tuples(st.just("follow"), st.none()),
    min_size=10,
    max_size=40,
)


@given(ACTIONS, st.integers(22, 30), st.integers(1, 4), st.integers(2, 4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_comes_every_request_gets_what_it_gets_alone_without_looking_ahead(
    actions: list[tuple[str, object]], num_slots: int, block_size: int, max_num_seqs: int
) -> None:
    """Arrivals, cancels, poisoned prompts, prefixes, preemptions; and a follower that lags behind."""
    pair = Pair(num_blocks=-(-num_slots // block_size), block_size=block_size, max_num_seqs=max_num_seqs)
    requests: dict[str, EngineRequest] = {}
    for what, value in actions:
        name = f"r{len(requests)}"
        match what, value:
            case "submit", EngineRequest():
                requests[name] = msgspec.structs.replace(value, request_id=name)
                pair.turn(Submit("g-1", requests[name]))
            case "poison", int():
                requests[name] = a_request(name, [1] * value + [POISON], cache_seed=seed_of("t"))
                pair.turn(Submit("g-1", requests[name]))
            case "cancel", int() if requests:
                pair.turn(Cancel("g-1", f"r{value % len(requests)}"))
            case "follow", None:
                pair.follow()
            case _:
                pair.turn()
    pair.finish()
    event(f"ahead: {num_ahead(pair) > 0}")
    event(f"preempted: {any(plan.preempted for plan in pair.runners[0].plans)}")
    for name, got in pair.got.items():
        expected = alone(requests[name])
        if got.endings == ["cancelled"]:
            assert got.token_ids == expected.token_ids[: len(got.token_ids)]
        else:
            assert got == expected
