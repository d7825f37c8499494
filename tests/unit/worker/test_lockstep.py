"""Leader and followers stay equal, or the follower says so before it runs. Sockets and device are stood in for."""

import math
from concurrent.futures import Future

import msgspec
import pytest
import torch
import xgrammar

from glm_worker.engine.channel import KeepAlive, Report, StepInput
from glm_worker.engine.engine import Engine
from glm_worker.engine.follow import FollowerRank
from glm_worker.engine.grammars import GrammarUnreadable
from glm_worker.engine.intake import Intake
from glm_worker.engine.lead import LeadRank
from glm_worker.engine.sampling.matcher import AnswerMatcher
from glm_worker.engine.sampling.sampler import BROKEN, Sampler
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, RequestOutput, StepDone, Submit, ToEngine
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler
from unit.worker.rank_ends import FakeChannel, FakeServer, FakeSlot

VOCAB_SIZE = 10


class FakeRunner:
    """Logits whose greedy token is the position modulo the vocabulary."""

    def __init__(self, slot: FakeSlot) -> None:
        self.plans: list[ScheduledBatch] = []
        self.slot = slot

    def launch(self, plan: ScheduledBatch) -> None:
        self.plans.append(plan)
        self.slot.beat(plan.step)

    def wait(self) -> torch.Tensor:
        return torch.eye(VOCAB_SIZE)[[s.end % VOCAB_SIZE for s in self.plans[-1].sampled]]

    def expert_tokens_by_rank(self) -> list[int]:
        return [len(self.plans), 0]


class ReadGrammars:
    """Grammars that are read at once: regular expressions over tokens that are digits."""

    def matcher(self, request: EngineRequest) -> Future[AnswerMatcher]:
        assert request.grammar is not None
        digits = [str(digit).encode() for digit in range(VOCAB_SIZE)]
        vocabulary = xgrammar.TokenizerInfo(digits, xgrammar.VocabType.RAW, vocab_size=VOCAB_SIZE, stop_token_ids=[])
        done: Future[AnswerMatcher] = Future()
        try:
            regex = request.grammar.compiled.decode()
            matcher = AnswerMatcher(xgrammar.GrammarCompiler(vocabulary, max_threads=1).compile_regex(regex), request)
            matcher.take_all(request.answer_token_ids)
            done.set_result(matcher)
        except UnicodeDecodeError:
            done.set_exception(GrammarUnreadable("it is broken"))
        return done


class Pair:
    """Rank 0 and rank 1. turn() runs rank 0; follow() lets rank 1 hear what was sent since."""

    def __init__(self, max_batch_tokens: int = 8) -> None:
        num_blocks = 8 if max_batch_tokens == 8 else 32
        limits = SchedulerLimits(64, max_batch_tokens, max_num_seqs=4, num_blocks=num_blocks, block_size=4)
        self.server, self.channel, self.slots = FakeServer(), FakeChannel(), [FakeSlot(), FakeSlot()]
        self.runners = [FakeRunner(slot) for slot in self.slots]
        self.engines = [Engine(Scheduler(limits), runner) for runner in self.runners]  # type: ignore[arg-type]
        self.now_s = 100.0
        sampler = Sampler()
        intake = Intake(ReadGrammars(), sampler, VOCAB_SIZE)  # type: ignore[arg-type]
        link, channel, slot = self.server, self.channel, self.slots[0]
        self.leader = LeadRank(self.engines[0], sampler, intake, link, channel, slot, "g-1", self.clock)  # type: ignore[arg-type]
        self.follower = FollowerRank(self.engines[1], None, self.slots[1], rank=1)  # type: ignore[arg-type]

    def clock(self) -> float:
        """A second passes at each look."""
        self.now_s += 1
        return self.now_s

    def turn(self, *commands: ToEngine) -> None:
        self.server.commands.append(list(commands))
        self.leader.turn()

    def follow(self) -> None:
        for message in self.channel.sent:
            if isinstance(message, StepInput):
                self.follower.step(message)
        self.channel.sent.clear()


def a_submit(request_id: str = "a", max_tokens: int = 3, num_prompt: int = 2) -> Submit:
    request = EngineRequest(
        request_id=request_id,
        prompt_token_ids=[1] * num_prompt,
        max_tokens=max_tokens,
        stop_token_ids=[],
        sampling=SamplingParams(temperature=0),
    )
    return Submit("g-1", request)


def reports(pair: Pair) -> list[StepDone]:
    assert all(isinstance(message, StepDone) for message in pair.server.sent)
    return pair.server.sent  # type: ignore[return-value]


def test_a_follower_makes_the_plans_of_the_leader() -> None:
    pair = Pair()
    pair.turn(a_submit("a", num_prompt=12), a_submit("b"))
    pair.turn(a_submit("c"))
    pair.turn(Cancel("g-1", "b"))
    for _ in range(6):
        pair.turn()
    pair.follow()
    assert pair.runners[1].plans == pair.runners[0].plans
    assert len(pair.runners[0].plans) == 5
    assert pair.slots[1].signs == [1, 2, 3, 4, 5]


def test_what_was_asked_while_idle_reaches_the_followers_with_the_next_step() -> None:
    pair = Pair()
    pair.turn(a_submit("a", num_prompt=40))  # can never fit
    pair.turn(a_submit("b", max_tokens=1), Cancel("g-1", "b"))
    assert pair.channel.sent == []
    pair.turn(a_submit("c", max_tokens=1))
    pair.follow()
    assert pair.runners[1].plans == pair.runners[0].plans
    assert [report.outputs for report in reports(pair)] == [
        [RequestOutput("a", [], "length")],
        [RequestOutput("b", [], "cancelled")],
        [RequestOutput("c", [2], "length")],
    ]


def test_an_idle_leader_waits_for_the_server_and_keeps_the_followers_alive() -> None:
    pair = Pair()
    pair.turn()
    assert 0 < pair.server.timeouts[0] <= 0.5
    assert (pair.channel.sent, pair.slots[0].signs, pair.server.sent) == ([KeepAlive()], ["idle"], [])


def test_a_busy_leader_does_not_wait_for_the_server() -> None:
    pair = Pair()
    pair.turn(a_submit())
    pair.turn()
    assert pair.server.timeouts[1] == 0
    assert pair.slots[0].signs == [1, 2]


def test_a_step_reports_tokens_and_gauges() -> None:
    pair = Pair()
    pair.turn(a_submit("a"), a_submit("b", num_prompt=9))
    assert reports(pair)[0] == StepDone(
        generation="g-1",
        outputs=[RequestOutput("a", [2])],
        step=1,
        began_s=101.0,
        num_running=2,
        num_waiting=0,
        num_tokens_waiting=0,
        kv_blocks_used=4,
        num_preemptions=0,
        scheduled=["a", "b"],
        num_prompt_tokens_left=3,
        prefill_tokens=8,
        prefill_s=1.0,
        expert_tokens_by_rank=[1, 0],
    )
    pair.turn()
    assert reports(pair)[1].scheduled == []
    assert reports(pair)[1].began_s == 103.0


def test_the_times_of_prefill_and_decode_are_those_of_the_step() -> None:
    pair = Pair()
    pair.turn(a_submit("a", max_tokens=4))
    pair.turn()
    pair.turn(a_submit("b", num_prompt=5))
    kinds = [(step.prefill_tokens, step.decode_tokens, step.prefill_s, step.decode_s) for step in reports(pair)]
    assert kinds == [(2, 0, 1.0, 0.0), (0, 1, 0.0, 1.0), (5, 1, 0.0, 1.0)]  # every step takes a second


def test_how_much_of_a_prompt_fits_beside_decodes_is_rank_0s_to_say() -> None:
    """Its clock says so, and no other rank's: a follower has none here, and makes the same plans."""
    pair = Pair(max_batch_tokens=64)
    pair.turn(a_submit("a", max_tokens=9))
    pair.turn()  # a step that only decodes, of a second, as each
    pair.turn(a_submit("b", num_prompt=40))
    for _ in range(4):
        pair.turn()
    told = [step.max_prefill_tokens for step in pair.channel.sent if isinstance(step, StepInput)]
    pair.follow()
    assert told[:3] == [None, None, 16]
    assert [len(s.token_ids) for s in pair.runners[1].plans[2].sequences] == [1, 16]
    assert pair.runners[1].plans == pair.runners[0].plans


def test_a_report_without_a_step_is_nobodys_time() -> None:
    pair = Pair()
    pair.turn(a_submit("a", num_prompt=40))  # can never fit
    (report,) = reports(pair)
    assert (report.prefill_tokens, report.decode_tokens, report.prefill_s, report.decode_s) == (0, 0, 0.0, 0.0)


def test_the_load_of_the_experts_is_read_now_and_then_and_when_the_work_is_done() -> None:
    pair = Pair()
    pair.turn(a_submit("a", max_tokens=9))  # two looks at the clock a step, so 2 s
    for _ in range(8):
        pair.turn()
    read = [step.step for step in reports(pair) if step.expert_tokens_by_rank]
    assert read == [1, 6, 9]


def test_a_step_began_before_it_ran() -> None:
    """Or the time of the step would count as time in the queue."""
    pair = Pair()
    launch = pair.runners[0].launch
    pair.runners[0].launch = lambda plan: (pair.clock(), launch(plan))[1]  # type: ignore[method-assign]
    pair.turn(a_submit("a"))
    assert (reports(pair)[0].began_s, pair.now_s) == (101.0, 103.0)


def test_a_follower_whose_plans_differ_fails_before_it_runs() -> None:
    pair = Pair()
    pair.turn(a_submit())
    pair.follow()
    pair.engines[1].scheduler.add(a_submit("stray").request)
    pair.turn()
    with pytest.raises(EngineFailed, match=r"plans differ: rank 0 is at step 2 .* rank 1 at step 2 with digest"):
        pair.follow()
    assert len(pair.runners[1].plans) == 1


def test_a_follower_that_missed_a_step_fails() -> None:
    pair = Pair()
    pair.turn(a_submit())
    pair.channel.sent.clear()
    pair.turn()
    with pytest.raises(EngineFailed, match="rank 1 has run step 0 and was sent step 2: a step was lost on the way"):
        pair.follow()


def with_grammar(submit: Submit, compiled: bytes) -> Submit:
    grammar = AnswerGrammar(key="k", compiled=compiled)
    return Submit("g-1", msgspec.structs.replace(submit.request, grammar=grammar))


def outputs_of(pair: Pair, request_id: str) -> list[RequestOutput]:
    return [output for report in reports(pair) for output in report.outputs if output.request_id == request_id]


def test_an_answer_ends_on_all_ranks_when_its_grammar_is_over_and_the_others_go_on() -> None:
    pair = Pair()
    pair.turn(with_grammar(a_submit("a", max_tokens=9), b"[0-9][5-6]"), a_submit("b", max_tokens=6))
    for _ in range(4):
        pair.turn()
    pair.turn(a_submit("c"))
    pair.turn()
    pair.follow()
    assert outputs_of(pair, "a") == [RequestOutput("a", [2]), RequestOutput("a", [5], "stop")]
    assert [output.token_ids for output in outputs_of(pair, "b")] == [[n] for n in (2, 3, 4, 5, 6, 7)]
    assert [[s.request_id for s in plan.sequences] for plan in pair.runners[1].plans] == [
        ["a", "b"],
        ["a", "b"],
        ["b"],
        ["b"],
        ["b"],
        ["b", "c"],
        ["c"],
    ]
    assert [plan.digest() for plan in pair.runners[1].plans] == [plan.digest() for plan in pair.runners[0].plans]
    assert pair.engines[1].scheduler.blocks.num_used == pair.engines[0].scheduler.blocks.num_used


def test_an_answer_that_leaves_its_grammar_fails_alone_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    pair.turn(with_grammar(a_submit("a", max_tokens=9), b"[0-9]{4}"), a_submit("b", max_tokens=4))
    monkeypatch.setattr("glm_worker.engine.sampling.matcher.MAX_TOKEN_CPU_S", -1.0)
    for _ in range(3):
        pair.turn()
    pair.follow()
    (first, last) = outputs_of(pair, "a")
    assert (first, last.token_ids, last.finish_reason) == (RequestOutput("a", [2]), [], "failed")
    assert "simplify it" in (last.error or "")
    assert len(outputs_of(pair, "b")) == 4
    assert [len(plan.sequences) for plan in pair.runners[1].plans] == [2, 2, 1, 1]


def test_a_grammar_that_cannot_be_read_ends_its_request_before_any_step() -> None:
    pair = Pair()
    pair.turn(with_grammar(a_submit("a"), b"\xff"))
    assert outputs_of(pair, "a") == [RequestOutput("a", [], "failed", error="it is broken")]
    assert pair.channel.sent == [KeepAlive()]


def test_followers_never_see_a_compiled_grammar() -> None:
    pair = Pair()
    pair.turn(with_grammar(a_submit("a"), b"[0-9]*"))
    (step,) = pair.channel.sent
    assert isinstance(step, StepInput)
    assert [c.request.grammar for c in step.events if isinstance(c, Submit)] == [AnswerGrammar(key="k", compiled=b"")]


def test_logprobs_stand_beside_their_tokens_and_nowhere_else() -> None:
    pair = Pair()
    asking = msgspec.structs.replace(a_submit("a").request, num_logprobs=2)
    pair.turn(a_submit("b"), Submit("g-1", asking))
    pair.turn()
    for output in outputs_of(pair, "a"):
        (logprobs,) = output.logprobs
        assert (logprobs.rank, logprobs.top[0]) == (1, (output.token_ids[0], logprobs.logprob))
        assert len(logprobs.top) == 2
    assert all(output.logprobs == [] for output in outputs_of(pair, "b"))


def test_nothing_is_kept_of_requests_that_have_ended() -> None:
    pair = Pair()
    pair.turn(with_grammar(a_submit("a"), b"[0-9]*"), a_submit("b"), a_submit("c"))
    pair.turn(Cancel("g-1", "c"))
    for _ in range(4):
        pair.turn()
    sampler = pair.leader._sampler
    assert (sampler._rows, sampler._matchers) == ({}, {})


def breaks(runner: FakeRunner, step: int, row: int) -> None:
    """Let the logits of one row of one step be no numbers."""
    wait = runner.wait

    def broken() -> torch.Tensor:
        logits_SV = wait()
        if runner.plans[-1].step == step:
            logits_SV[row] = math.nan
        return logits_SV

    runner.wait = broken  # type: ignore[method-assign]


@pytest.mark.parametrize("max_tokens", [2, 9])  # the broken token would have been the last, or not
def test_a_broken_row_fails_its_request_on_all_ranks_and_its_blocks_are_zeroed(max_tokens: int) -> None:
    pair = Pair()
    breaks(pair.runners[0], step=2, row=0)
    pair.turn(a_submit("a", max_tokens), a_submit("b", max_tokens=4))
    (held,) = (list(s.block_table) for s in pair.runners[0].plans[0].sequences if s.request_id == "a")
    for _ in range(2):
        pair.turn()
    pair.turn(a_submit("c", max_tokens=1))
    pair.follow()
    first, last = outputs_of(pair, "a")
    assert (first.token_ids, last) == ([2], RequestOutput("a", [], "failed", error=BROKEN, is_fault=True))
    assert [output.token_ids for output in outputs_of(pair, "b")] == [[2], [3], [4], [5]]
    assert [output.token_ids for output in outputs_of(pair, "c")] == [[2]]
    assert [plan.zeroed for plan in pair.runners[1].plans] == [(), (), tuple(held), ()]
    assert pair.runners[1].plans == pair.runners[0].plans
    for engine in pair.engines:
        engine.scheduler.check()


def test_a_request_with_which_a_follower_cannot_go_on_fails_on_all_ranks() -> None:
    pair = Pair()
    pair.turn(a_submit("a", max_tokens=9), a_submit("b", max_tokens=3))
    pair.channel.reported = [(1, Report("a", "its adapter is broken")), (1, Report("gone", "it is late"))]
    for _ in range(3):
        pair.turn()
    pair.follow()
    first, last = outputs_of(pair, "a")
    assert (first.token_ids, last.token_ids, last.finish_reason) == ([2], [], "failed")
    assert last.error == "rank 1 could not go on with this request: its adapter is broken"
    assert [output.token_ids for output in outputs_of(pair, "b")] == [[2], [3], [4]]
    assert pair.runners[1].plans == pair.runners[0].plans
    assert [len(plan.sequences) for plan in pair.runners[1].plans] == [2, 1, 1]
    assert outputs_of(pair, "gone") == []


def test_a_row_that_breaks_with_the_only_request_is_zeroed_before_the_next_one() -> None:
    pair = Pair()
    breaks(pair.runners[0], step=1, row=0)
    pair.turn(a_submit("a"))
    assert outputs_of(pair, "a") == [RequestOutput("a", [], "failed", error=BROKEN, is_fault=True)]
    pair.turn(a_submit("b", max_tokens=1))
    pair.follow()
    assert outputs_of(pair, "b") == [RequestOutput("b", [2], "length")]
    assert [len(plan.zeroed) for plan in pair.runners[1].plans] == [0, 1]
    assert pair.runners[1].plans == pair.runners[0].plans


def resuming(submit: Submit, answer: list[int]) -> Submit:
    return Submit("g-1", msgspec.structs.replace(submit.request, answer_token_ids=answer))


def test_an_answer_goes_on_on_all_ranks_from_the_tokens_with_which_it_came() -> None:
    """Positions 2 and 3 have their tokens; the model says 4 and then 5."""
    pair = Pair()
    pair.turn(resuming(a_submit("a", max_tokens=4), [2, 3]), a_submit("b"))
    pair.turn()
    pair.turn()
    pair.follow()
    assert outputs_of(pair, "a") == [RequestOutput("a", [4]), RequestOutput("a", [5], "length")]
    assert [list(s.token_ids) for s in pair.runners[0].plans[0].sequences] == [[1, 1, 2, 3], [1, 1]]
    assert pair.runners[1].plans == pair.runners[0].plans
    assert (reports(pair)[0].prefill_tokens, reports(pair)[0].decode_tokens) == (6, 0)


@pytest.mark.parametrize(
    ("submit", "output"),
    [
        (resuming(a_submit(), [2, 3, 4]), RequestOutput("a", [], "length")),
        (resuming(with_grammar(a_submit(max_tokens=9), b"[0-9]{2}"), [2, 3]), RequestOutput("a", [], "stop")),
        (
            resuming(a_submit(), [2, 3, 4, 5]),
            RequestOutput("a", [], "failed", error="the answer so far has 4 tokens, more than max_tokens 3"),
        ),
    ],
)
def test_a_whole_answer_ends_without_a_step_and_too_much_of_one_fails(submit: Submit, output: RequestOutput) -> None:
    pair = Pair()
    pair.turn(submit)
    assert outputs_of(pair, "a") == [output]
    assert (pair.runners[0].plans, pair.engines[0].scheduler.blocks.num_used) == ([], 0)
    assert (pair.leader._sampler._rows, pair.leader._sampler._matchers) == ({}, {})
    pair.turn(a_submit("b", max_tokens=1))
    pair.follow()
    assert pair.runners[1].plans == pair.runners[0].plans
