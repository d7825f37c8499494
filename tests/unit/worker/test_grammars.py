"""Grammars are read in a thread of their own, kept within bounds, and fail alone."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
import xgrammar

from glm_worker.engine import grammars as module
from glm_worker.engine.grammars import Grammars, GrammarUnreadable
from glm_worker.engine.intake import Intake
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.errors import ConfigError
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, pack_grammar
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams
from unit.worker.sampling.answers import NANO, VOCAB_SIZE, a_request, compiler

DEADLINE_S = 60.0


def a_grammar(regex: str) -> AnswerGrammar:
    return AnswerGrammar(key=regex, compiled=pack_grammar(compiler().compile_regex(regex)))


@contextmanager
def the_grammars() -> Iterator[Grammars]:
    grammars = Grammars(lambda: grammar_vocabulary(NANO))
    try:
        yield grammars
    finally:
        grammars.close()  # other tests fork, which is safe only beside no threads


def test_a_grammar_is_read_once_and_kept() -> None:
    with the_grammars() as grammars:
        first = grammars.read(a_grammar("a+")).result(DEADLINE_S)
        again = grammars.read(AnswerGrammar(key="a+", compiled=b"not read")).result(DEADLINE_S)
        assert again is first
        assert xgrammar.GrammarMatcher(first).accept_string("aaa")


def test_what_is_kept_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    with the_grammars() as grammars:
        for regex in ("a", "b", "a", "c"):  # b was used before a
            grammars.read(a_grammar(regex)).result(DEADLINE_S)
        assert list(grammars._kept) == ["a", "c"]


def test_what_is_kept_is_bounded_in_bytes_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1)
    with the_grammars() as grammars:
        for regex in ("a", "b"):
            grammars.read(a_grammar(regex)).result(DEADLINE_S)
        assert list(grammars._kept) == ["b"]


def test_a_grammar_that_cannot_be_read_says_why_and_the_next_one_is_read() -> None:
    with the_grammars() as grammars:
        broken = grammars.read(AnswerGrammar(key="x", compiled=b"broken"))
        with pytest.raises(GrammarUnreadable, match="the compiled grammar cannot be read"):
            broken.result(DEADLINE_S)
        assert grammars.read(a_grammar("a")).result(DEADLINE_S)


def test_a_vocabulary_that_cannot_be_read_fails_every_grammar_and_nothing_else() -> None:
    def broken() -> xgrammar.TokenizerInfo:
        raise ConfigError("tokenizer.json cannot be read")

    grammars = Grammars(broken)
    grammars.warm_up()
    try:
        with pytest.raises(GrammarUnreadable, match="structured output does not work here"):
            grammars.read(a_grammar("a")).result(DEADLINE_S)
    finally:
        grammars.close()


class HeldGrammars:
    """Grammars that are read when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Future[xgrammar.CompiledGrammar]] = []

    def read(self, grammar: AnswerGrammar) -> "Future[xgrammar.CompiledGrammar]":
        self.asked.append(Future())
        return self.asked[-1]


def an_intake(grammars: HeldGrammars, sampler: Sampler | None = None) -> Intake:
    return Intake(grammars, sampler or Sampler(), VOCAB_SIZE)  # type: ignore[arg-type]


def a_submit(request_id: str, *, has_grammar: bool = False) -> Submit:
    return Submit("g-1", a_request(request_id, has_grammar=has_grammar))


def ids(commands: list[ToEngine]) -> list[str]:
    return [c.request.request_id if isinstance(c, Submit) else f"cancel {c.request_id}" for c in commands]


def test_a_request_with_a_grammar_waits_for_it_and_holds_nobody_up() -> None:
    grammars = HeldGrammars()
    intake = an_intake(grammars)
    passed, _ = intake.take([a_submit("slow", has_grammar=True), a_submit("fast"), Cancel("g-1", "other")])
    assert (ids(passed), intake.holds_any) == (["fast", "cancel other"], True)
    assert intake.take([]) == ([], [])
    grammars.asked[0].set_result(compiler().compile_regex("a"))
    passed, _ = intake.take([a_submit("next")])
    assert (ids(passed), intake.holds_any) == (["slow", "next"], False)


def test_no_rank_but_this_one_sees_what_was_compiled() -> None:
    with the_grammars() as grammars:
        intake = Intake(grammars, Sampler(), VOCAB_SIZE)
        whole = EngineRequest(
            request_id="a", prompt_token_ids=[1], max_tokens=1, stop_token_ids=[], grammar=a_grammar("a")
        )
        passed, _ = intake.take([Submit("g-1", whole), a_submit("b")])
        grammars.read(a_grammar("a")).result(DEADLINE_S)
        later, _ = intake.take([])
        (submit,) = [c for c in passed + later if isinstance(c, Submit) and c.request.grammar is not None]
        assert submit.request.grammar == AnswerGrammar(key="a", compiled=b"")


def test_a_request_whose_grammar_is_kept_keeps_its_place() -> None:
    with the_grammars() as grammars:
        grammars.read(a_grammar("k")).result(DEADLINE_S)
        passed, _ = Intake(grammars, Sampler(), VOCAB_SIZE).take(
            [a_submit("known", has_grammar=True), a_submit("next")]
        )
        assert ids(passed) == ["known", "next"]


def test_a_request_that_waits_for_its_grammar_can_be_cancelled() -> None:
    grammars = HeldGrammars()
    intake = an_intake(grammars)
    intake.take([a_submit("slow", has_grammar=True)])
    assert intake.take([Cancel("g-1", "slow")]) == ([], [RequestOutput("slow", [], "cancelled")])
    assert not intake.holds_any
    assert ids(intake.take([Cancel("g-1", "slow")])[0]) == ["cancel slow"]  # the scheduler knows what that means


def test_a_grammar_that_cannot_be_read_ends_its_request_only() -> None:
    grammars = HeldGrammars()
    intake = an_intake(grammars)
    grammars_asked = [a_submit("broken", has_grammar=True), a_submit("fine")]
    passed, _ = intake.take(grammars_asked)
    assert ids(passed) == ["fine"]
    grammars.asked[0].set_exception(GrammarUnreadable("it is broken"))
    assert intake.take([]) == ([], [RequestOutput("broken", [], "failed", error="it is broken")])


def test_a_request_that_cannot_be_sampled_never_reaches_a_scheduler() -> None:
    request = a_request("bad", sampling=SamplingParams(logit_bias={VOCAB_SIZE: 1.0}))
    passed, outputs = an_intake(HeldGrammars()).take([Submit("g-1", request), a_submit("fine")])
    assert ids(passed) == ["fine"]
    assert [(o.request_id, o.finish_reason) for o in outputs] == [("bad", "failed")]
    assert "outside of the vocabulary" in (outputs[0].error or "")
