"""What rank 0 does with commands before the schedulers hear of them.

A request with a grammar is held back, outside of every batch, until the grammar has been read; then it arrives. Since
followers get commands in the order in which rank 0 obeys them, all ranks see it arrive at the same step. What cannot be
sampled, and a grammar that cannot be read, end their own request, and the followers never hear of it.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from glm_worker.engine.grammars import Grammars, GrammarUnreadable
from glm_worker.engine.sampling.limits import why_it_cannot_be_sampled
from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine
from glm_worker.request import AnswerGrammar

if TYPE_CHECKING:
    import xgrammar


class Intake:
    """Holds requests by id, in order of their coming."""

    def __init__(self, grammars: Grammars, sampler: Sampler, vocab_size: int) -> None:
        self._grammars = grammars
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._held: dict[str, tuple[Submit, Future[xgrammar.CompiledGrammar]]] = {}

    @property
    def holds_any(self) -> bool:
        """Whether a request may go on without a further command."""
        return bool(self._held)

    def take(self, commands: Sequence[ToEngine]) -> tuple[list[ToEngine], list[RequestOutput]]:
        """Return what every rank is to obey now, in order, and the outputs of requests that end here."""
        passed: list[ToEngine] = []
        outputs: list[RequestOutput] = []
        for command in commands:
            match command:
                case Submit(request=request):
                    if (reason := why_it_cannot_be_sampled(request, self._vocab_size)) is not None:
                        outputs.append(_failure(request.request_id, reason))
                    elif request.grammar is None:
                        passed.append(command)
                    else:
                        self._held[request.request_id] = (command, self._grammars.read(request.grammar))
                case Cancel(request_id=request_id) if request_id in self._held:
                    self._held.pop(request_id)[1].cancel()
                    outputs.append(RequestOutput(request_id, [], "cancelled"))
                case Cancel():
                    passed.append(command)
        for submit, compiled in [held for held in self._held.values() if held[1].done()]:
            request_id = submit.request.request_id
            del self._held[request_id]
            try:
                self._sampler.expect(request_id, AnswerMatcher(compiled.result(), submit.request))
            except (GrammarUnreadable, GrammarFailed) as error:
                outputs.append(_failure(request_id, str(error)))
            else:
                passed.append(_without_compiled(submit, submit.request.grammar))
        return passed, outputs


def _failure(request_id: str, reason: str) -> RequestOutput:
    return RequestOutput(request_id, [], "failed", error=reason)


def _without_compiled(submit: Submit, grammar: AnswerGrammar | None) -> Submit:
    assert grammar is not None
    bare = msgspec.structs.replace(grammar, compiled=b"")
    return msgspec.structs.replace(submit, request=msgspec.structs.replace(submit.request, grammar=bare))
