"""From the logits of a step to its tokens: the order of work on a row.

Raw logits; logprobs are taken of them. Then penalties, bias, bans (bad words, stop tokens before min_tokens) and the
grammar's mask change them, in place; temperature, filters and the draw are in draw.py. A forced token replaces the
draw. Rows that ask for nothing of it are only drawn, all at once.

Where bans leave nothing the grammar goes before them: a whole answer is the stronger promise. Without a grammar, bans
of the whole vocabulary are no bans. A grammar that allows nothing at all ends its request, and no other.

A token is a function of the request, its tokens so far and its row of logits: not of batch, order or ranks.

Shape suffixes: S rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from glm_worker.engine.sampling.bias import add_bias, forbid
from glm_worker.engine.sampling.draw import Drawn, draw
from glm_worker.engine.sampling.logprobs import Logprobs
from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed, apply_masks
from glm_worker.engine.sampling.penalties import Penalised, penalise
from glm_worker.engine.sampling.row import Row, asks_nothing
from glm_worker.kernels.cpu.sample import SampleKernel
from glm_worker.messages import TokenLogprobs
from glm_worker.scheduler.sequence import SequenceState

BROKEN = "the model computed no number for the next token of this request (NaN or infinity): retry it once"


@dataclass(slots=True)
class Sampled:
    """The tokens of a step, and what a few of their requests have besides, by row."""

    token_ids: list[int]
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    is_over: set[int] = field(default_factory=set)  # the token completes an answer that no stop token can end
    failed: dict[int, str] = field(default_factory=dict)  # why the request cannot go on; its token counts for nothing


class Sampler:
    """Rank 0's. It knows a request from its first sampled token to forget()."""

    def __init__(self, kernel: SampleKernel | None = None) -> None:
        """kernel: draws in place of torch; the logits are on the CPU then."""
        self._kernel = kernel
        self._rows: dict[str, Row | None] = {}  # None: it asks for nothing
        self._matchers: dict[str, AnswerMatcher] = {}  # of the requests that have a grammar

    def expect(self, request_id: str, matcher: AnswerMatcher) -> None:
        """Keep what a request that has a grammar is held against, before its first token is sampled."""
        self._matchers[request_id] = matcher

    def forget(self, request_id: str) -> None:
        """Drop what is known of a request that has ended; one that is not known is fine."""
        self._rows.pop(request_id, None)
        self._matchers.pop(request_id, None)

    def sample(self, logits_SV: Tensor, sequences: Sequence[SequenceState]) -> Sampled:
        """Return a token for each row. Changes the logits.

        logits_SV: fp32, a row for each sequence, in this order; each token will stand at the end of its sequence.
        A request whose row is broken (its largest logit is not a finite number) fails, and no other.
        """
        asking = self._asking(sequences, logits_SV.shape[1])
        if asking or self._kernel is None:
            return self._sample(logits_SV, sequences, asking)
        return _plain(self._draw(logits_SV, sequences))  # what most steps are: nothing for torch to do

    @torch.inference_mode()  # or the logits could not be changed in place
    def _sample(self, logits_SV: Tensor, sequences: Sequence[SequenceState], asking: dict[int, Row]) -> Sampled:
        failed = _keep_up(asking)
        logprobs = _taken(logits_SV, asking)
        free = {index: row for index, row in asking.items() if index not in failed and not _is_forced(row)}
        failed |= _change(logits_SV, free)
        sampled = _plain(self._draw(logits_SV, sequences))
        sampled.failed = failed | sampled.failed
        for index, row in asking.items():
            if row.thought is not None and (forced := row.thought.forced_id) is not None:
                sampled.token_ids[index] = forced
        if logprobs is not None:
            sampled.logprobs = logprobs.of(sampled.token_ids)
        _end(sampled, asking)
        return sampled

    def _draw(self, logits_SV: Tensor, sequences: Sequence[SequenceState]) -> Drawn:
        params = [sequence.request.sampling for sequence in sequences]
        return draw(logits_SV, params, [sequence.num_tokens for sequence in sequences], self._kernel)

    def _asking(self, sequences: Sequence[SequenceState], vocab_size: int) -> dict[int, Row]:
        """Return the rows that ask for more than the draw, by index."""
        asking = {}
        for index, sequence in enumerate(sequences):
            request_id = sequence.request.request_id
            try:
                row = self._rows[request_id]
            except KeyError:
                row = self._rows[request_id] = self._begun(sequence, vocab_size)
            if row is not None:
                asking[index] = row
        return asking

    def _begun(self, sequence: SequenceState, vocab_size: int) -> Row | None:
        request = sequence.request
        if asks_nothing(request):
            return None
        matcher = None if request.grammar is None else self._matchers[request.request_id]
        return Row(sequence, matcher, vocab_size)


def _plain(drawn: Drawn) -> Sampled:
    return Sampled(drawn.token_ids, failed=dict.fromkeys(drawn.broken, BROKEN))


def _keep_up(asking: dict[int, Row]) -> dict[int, str]:
    """Let each row take the tokens that it has not seen; return why some cannot."""
    failed = {}
    for index, row in asking.items():
        try:
            row.keep_up()
        except GrammarFailed as error:
            failed[index] = str(error)
    return failed


def _taken(logits_SV: Tensor, asking: dict[int, Row]) -> Logprobs | None:
    num_top = {i: n for i, row in asking.items() if (n := row.sequence.request.num_logprobs) is not None}
    changing = {i for i in num_top if asking[i].changes_logits}
    return Logprobs(logits_SV, num_top, changing) if num_top else None


def _is_forced(row: Row) -> bool:
    return row.thought is not None and row.thought.forced_id is not None


def _change(logits_SV: Tensor, rows: dict[int, Row]) -> dict[int, str]:
    """Change the logits of the rows as their requests ask; return why some have no token left."""
    if penalised := [
        Penalised(i, row.sequence.request.sampling, row.counts) for i, row in rows.items() if row.counts is not None
    ]:
        penalise(logits_SV, penalised)
    if bias := {i: b for i, row in rows.items() if (b := row.sequence.request.sampling.logit_bias)}:
        add_bias(logits_SV, bias)
    failed, masks, banned = {}, {}, {}
    for index, row in rows.items():
        bans = row.banned()
        if row.matcher is None or not row.matcher.has_begun:
            banned[index] = bans if len(set(bans)) < logits_SV.shape[1] else []
            continue
        try:
            masks[index] = _mask(row, bans)
        except GrammarFailed as error:
            failed[index] = str(error)
    forbid(logits_SV, banned)
    if masks:
        apply_masks(logits_SV, masks)
    return failed


def _mask(row: Row, bans: list[int]) -> np.ndarray:
    assert row.matcher is not None
    mask_B = row.matcher.mask(bans)
    if not mask_B.any():
        raise GrammarFailed("the grammar of this request allows no further token")
    return mask_B


def _end(sampled: Sampled, asking: dict[int, Row]) -> None:
    """Let answers end that the grammar says are over."""
    for index, row in asking.items():
        if row.matcher is None or index in sampled.failed or not row.matcher.ends_by_itself:
            continue
        try:
            row.take(sampled.token_ids[index])
            if row.matcher.is_over:
                sampled.is_over.add(index)
        except GrammarFailed as error:
            sampled.failed[index] = str(error)
