"""Grammars are read in a thread of their own, kept within bounds, and fail alone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import msgspec
import pytest
import xgrammar

from glm_worker.engine import grammars as module
from glm_worker.engine.grammars import Grammars, GrammarUnreadable
from glm_worker.engine.intake import Intake
from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.errors import ConfigError
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, pack_grammar
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams
from unit.worker.sampling.answers import NANO, STOPS, VOCAB_SIZE, a_matcher, a_request, compiler, ids_of

DEADLINE_S = 60.0


def a_grammar(regex: str) -> AnswerGrammar:
    return AnswerGrammar(key=regex, compiled=pack_grammar(compiler().compile_regex(regex)))


def asking(grammar: AnswerGrammar, answer: Sequence[int] = ()) -> EngineRequest:
    return msgspec.structs.replace(a_request(), grammar=grammar, answer_token_ids=list(answer))


def begun(grammars: Grammars, grammar: AnswerGrammar, answer: Sequence[int] = ()) -> AnswerMatcher:
    return grammars.matcher(asking(grammar, answer)).result(DEADLINE_S)


@contextmanager
def the_grammars() -> Iterator[Grammars]:
    grammars = Grammars(lambda: grammar_vocabulary(NANO))
    try:
        yield grammars
    finally:
        grammars.close()  # other tests fork, which is safe only beside no threads


def test_a_grammar_is_read_once_and_kept() -> None:
    with the_grammars() as grammars:
        begun(grammars, a_grammar("a+"))
        (kept,) = grammars._kept.values()
        again = grammars.matcher(asking(AnswerGrammar(key="a+", compiled=b"not read")))
        assert again.done()
        assert list(grammars._kept.values()) == [kept]
        assert again.result()._matcher.accept_string("aaa")


def test_what_is_kept_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    with the_grammars() as grammars:
        for regex in ("a", "b", "a", "c"):  # b was used before a
            begun(grammars, a_grammar(regex))
        assert list(grammars._kept) == ["a", "c"]


def test_what_is_kept_is_bounded_in_bytes_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1)
    with the_grammars() as grammars:
        for regex in ("a", "b"):
            begun(grammars, a_grammar(regex))
        assert list(grammars._kept) == ["b"]


def test_a_grammar_that_cannot_be_read_says_why_and_the_next_one_is_read() -> None:
    with the_grammars() as grammars:
        broken = grammars.matcher(asking(AnswerGrammar(key="x", compiled=b"broken")))
        with pytest.raises(GrammarUnreadable, match="the compiled grammar cannot be read"):
            broken.result(DEADLINE_S)
        assert begun(grammars, a_grammar("a"))


def test_a_vocabulary_that_cannot_be_read_fails_every_grammar_and_nothing_else() -> None:
    def broken() -> xgrammar.TokenizerInfo:
        raise ConfigError("tokenizer.json cannot be read")

    grammars = Grammars(broken)
    grammars.warm_up()
    try:
        with pytest.raises(GrammarUnreadable, match="structured output does not work here"):
            begun(grammars, a_grammar("a"))
    finally:
        grammars.close()


class HeldGrammars:
    """Grammars that are read when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Future[AnswerMatcher]] = []

    def matcher(self, request: EngineRequest) -> Future[AnswerMatcher]:
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
    grammars.asked[0].set_result(a_matcher(a_request("slow", has_grammar=True), "a"))
    passed, _ = intake.take([a_submit("next")])
    assert (ids(passed), intake.holds_any) == (["slow", "next"], False)


def test_no_rank_but_this_one_sees_what_was_compiled() -> None:
    with the_grammars() as grammars:
        intake = Intake(grammars, Sampler(), VOCAB_SIZE)
        whole = EngineRequest(
            request_id="a", prompt_token_ids=[1], max_tokens=1, stop_token_ids=[], grammar=a_grammar("a")
        )
        passed, _ = intake.take([Submit("g-1", whole), a_submit("b")])
        begun(grammars, a_grammar("a"))
        later, _ = intake.take([])
        (submit,) = [c for c in passed + later if isinstance(c, Submit) and c.request.grammar is not None]
        assert submit.request.grammar == AnswerGrammar(key="a", compiled=b"")


def test_a_request_whose_grammar_is_kept_keeps_its_place() -> None:
    with the_grammars() as grammars:
        begun(grammars, a_grammar("k"))
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


def test_a_matcher_has_taken_the_tokens_with_which_its_request_came() -> None:
    with the_grammars() as grammars:
        fresh, resumed = begun(grammars, a_grammar("abc")), begun(grammars, a_grammar("abc"), ids_of("ab"))
        fresh.take_all(ids_of("ab"))
        assert (resumed.mask() == fresh.mask()).all()
        assert (resumed.mask() != begun(grammars, a_grammar("abc")).mask()).any()


def test_an_answer_so_far_that_is_not_of_the_grammar_fails_and_the_next_one_is_taken() -> None:
    with the_grammars() as grammars:
        with pytest.raises(GrammarFailed, match="the answer left the grammar of this request"):
            begun(grammars, a_grammar("abc"), ids_of("ac"))
        assert begun(grammars, a_grammar("abc"), ids_of("ab"))


def test_an_answer_so_far_that_takes_its_grammar_long_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.engine.sampling.matcher.MAX_ANSWER_CPU_S", -1.0)
    with the_grammars() as grammars, pytest.raises(GrammarFailed, match=r"took 0\.0 s for its answer so far; simplify"):
        begun(grammars, a_grammar("abc"), ids_of("ab"))


def resumed(grammars: Grammars, answer: Sequence[int], stop_token_ids: Sequence[int]) -> list[RequestOutput]:
    """What comes of a request for "ab" that has this answer already, at rank 0 before any step."""
    request = msgspec.structs.replace(asking(a_grammar("ab"), answer), stop_token_ids=list(stop_token_ids))
    intake = Intake(grammars, Sampler(), VOCAB_SIZE)
    passed, outputs = intake.take([Submit("g-1", request)])
    if intake.holds_any:
        begun(grammars, a_grammar("later"), ids_of("l"))  # taken after it, in the same thread
        passed, outputs = intake.take([])
    assert bool(passed) != bool(outputs)
    return outputs


def test_an_answer_that_its_grammar_has_ended_ends_at_once_where_no_stop_token_can() -> None:
    with the_grammars() as grammars:
        assert resumed(grammars, ids_of("ab"), []) == [RequestOutput("a", [], "stop")]
        assert resumed(grammars, ids_of("a"), []) == []
        assert resumed(grammars, ids_of("ab"), STOPS) == []  # the stop token is to come
        assert resumed(grammars, ids_of("b"), []) == [
            RequestOutput("a", [], "failed", error="the answer left the grammar of this request")
        ]
