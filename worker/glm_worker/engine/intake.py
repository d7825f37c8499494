"""What rank 0 does with commands before the schedulers hear of them.

A request with a grammar is held back, outside of every batch, until the grammar has been read and has taken the tokens
with which the request came; then it arrives. Since followers get commands in the order in which rank 0 obeys them, all
ranks see it arrive at the same step. What cannot be sampled, a grammar that cannot be read, and an answer that is over
by its grammar end their own request, and the followers never hear of it.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from glm_worker.engine.grammars import Grammars, GrammarUnreadable
from glm_worker.engine.sampling.limits import why_it_cannot_be_sampled
from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine


class Intake:
    """Holds requests by id, in order of their coming."""

    def __init__(self, grammars: Grammars, sampler: Sampler, vocab_size: int) -> None:
        self._grammars = grammars
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._held: dict[str, tuple[Submit, Future[AnswerMatcher]]] = {}

    @property
    def holds_any(self) -> bool:
        """Whether a request may go on without a further command."""
        return bool(self._held)

    def take(self, commands: Sequence[ToEngine]) -> tuple[list[ToEngine], list[RequestOutput]]:
        """Return what every rank is to obey now, in order, and the outputs of requests that end here."""
        taken = _Taken([], [])
        for request_id in [id_ for id_, (_, matcher) in self._held.items() if matcher.done()]:
            self._let_go(*self._held.pop(request_id), taken)
        for command in commands:
            match command:
                case Submit():
                    self._submit(command, taken)
                case Cancel(request_id=request_id) if request_id in self._held:
                    self._held.pop(request_id)[1].cancel()
                    taken.outputs.append(RequestOutput(request_id, [], "cancelled"))
                case Cancel():
                    taken.passed.append(command)
        return taken.passed, taken.outputs

    def _submit(self, submit: Submit, taken: "_Taken") -> None:
        request = submit.request
        if request.request_id in self._held:
            raise EngineFailed(f"request {request.request_id} was submitted while it is still held back")
        if (reason := why_it_cannot_be_sampled(request, self._vocab_size)) is not None:
            taken.outputs.append(_failure(request.request_id, reason))
        elif request.grammar is None:
            taken.passed.append(submit)
        elif (matcher := self._grammars.matcher(request)).done():
            self._let_go(submit, matcher, taken)
        else:
            self._held[request.request_id] = (submit, matcher)

    def _let_go(self, submit: Submit, begun: "Future[AnswerMatcher]", taken: "_Taken") -> None:
        """Pass a request on whose grammar has been read, or end it if that cannot be."""
        request = submit.request
        try:
            matcher = begun.result()
            is_over = bool(request.answer_token_ids) and matcher.is_over
        except (GrammarUnreadable, GrammarFailed) as error:
            taken.outputs.append(_failure(request.request_id, str(error)))
            return
        if is_over:
            taken.outputs.append(RequestOutput(request.request_id, [], "stop"))
            return
        self._sampler.expect(request.request_id, matcher)
        assert request.grammar is not None
        bare = msgspec.structs.replace(request.grammar, compiled=b"")
        taken.passed.append(msgspec.structs.replace(submit, request=msgspec.structs.replace(request, grammar=bare)))


@dataclass(frozen=True, slots=True)
class _Taken:
    passed: list[ToEngine]
    outputs: list[RequestOutput]


def _failure(request_id: str, reason: str) -> RequestOutput:
    return RequestOutput(request_id, [], "failed", error=reason)
