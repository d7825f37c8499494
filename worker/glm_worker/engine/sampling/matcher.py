"""An answer held against its grammar, token by token.

xgrammar does the work; what is ours is when masks begin, which stop tokens end an answer, and that a grammar which
breaks or dawdles ends its own request and nothing else.

Shape suffixes: R rows with a mask, B bytes of a mask, V vocabulary.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from glm_worker.model.grammar_vocabulary import load_xgrammar
from glm_worker.request import EngineRequest

load_xgrammar()  # once in the zygote, for the ranks of every generation
import xgrammar  # noqa: E402

MAX_TOKEN_CPU_S = 0.5  # of this thread, for one token of one answer: every other request of the step waits for it
MAX_ANSWER_CPU_S = 10.0  # of this thread, for the tokens with which a request came


class GrammarFailed(Exception):
    """This answer cannot go on. The message is for the client and tells nothing of the answer."""


class AnswerMatcher:
    """Follows the answer of one request.

    Of the request's stop tokens those that are no text (end_ids) end an answer that the grammar says is whole, and are
    allowed nowhere else, nor in the thought before it; the others are text, and end the answer where the grammar lets
    them stand. If there is none of the first kind (the client ignores the end), the answer is over when nothing more
    may follow.
    """

    def __init__(self, compiled: xgrammar.CompiledGrammar, request: EngineRequest) -> None:
        """Raises GrammarFailed if no answer can be held against it."""
        assert request.grammar is not None
        vocabulary = compiled.tokenizer_info
        own_ends = set(vocabulary.stop_token_ids)
        ends = sorted((own_ends | set(vocabulary.special_token_ids)) & set(request.stop_token_ids))
        try:
            self._matcher = xgrammar.GrammarMatcher(compiled, override_stop_tokens=ends or None)
        except RuntimeError as error:
            raise GrammarFailed("no answer can be held against the grammar of this request") from error
        self.end_ids = ends
        self._never = [] if ends else sorted(own_ends)
        self._close_id = request.grammar.close_id
        self._has_begun = self._close_id is None
        self._mask_bytes = -(-vocabulary.vocab_size // 32) * 4
        self._mask_B: np.ndarray | None = None  # of the token that comes next; None: not made yet

    @property
    def ends_by_itself(self) -> bool:
        """Whether no stop token can end the answer."""
        return not self.end_ids

    @property
    def has_begun(self) -> bool:
        """Whether the thought before the answer is closed."""
        return self._has_begun

    def take(self, token_id: int) -> None:
        """Go on by a token that was generated. Raises GrammarFailed if the grammar does not allow it."""
        if not self._has_begun:
            self._has_begun = token_id == self._close_id
            return
        self._mask_B = None
        began = time.thread_time()
        try:
            is_allowed = self._matcher.accept_token(token_id)
        except RuntimeError as error:
            raise GrammarFailed("the grammar of this request failed while an answer was held against it") from error
        self._hurry(began)
        if not is_allowed:
            raise GrammarFailed("the answer left the grammar of this request")

    def take_all(self, token_ids: Sequence[int]) -> None:
        """Go on by tokens that were generated elsewhere, perhaps thousands. Raises GrammarFailed as take does."""
        began = time.thread_time()
        for token_id in token_ids:
            self.take(token_id)
            if (took_s := time.thread_time() - began) > MAX_ANSWER_CPU_S:
                raise GrammarFailed(
                    f"the grammar of this request took {took_s:.1f} s for its answer so far; simplify it"
                )

    @property
    def is_over(self) -> bool:
        """Whether an answer that no stop token can end has nothing more to come."""
        return self.ends_by_itself and self._has_begun and self._matcher.is_completed() and not self.mask().any()

    def mask(self, banned: Sequence[int] = ()) -> np.ndarray:
        """Return a bit for each token, (B,) bytes, lowest bit first: 1 may come next. For begun answers.

        banned: tokens that the request forbids besides. Where the grammar allows nothing else it goes before them.
        """
        if self._mask_B is None:
            self._mask_B = self._filled()
        if not banned:
            return self._mask_B
        mask_B = self._mask_B.copy()
        _clear(mask_B, banned)
        return mask_B if mask_B.any() else self._mask_B

    def _filled(self) -> np.ndarray:
        words = np.zeros(self._mask_bytes // 4, dtype=np.int32)
        began = time.thread_time()
        try:
            self._matcher.fill_next_token_bitmask(words)
        except RuntimeError as error:
            raise GrammarFailed("the grammar of this request failed while an answer was held against it") from error
        self._hurry(began)
        mask_B = words.view(np.uint8)
        _clear(mask_B, self._never)
        return mask_B

    def _hurry(self, began: float) -> None:
        if (took_s := time.thread_time() - began) > MAX_TOKEN_CPU_S:
            raise GrammarFailed(f"the grammar of this request took {took_s:.1f} s for one token; simplify it")


def apply_masks(logits_SV: Tensor, mask_of_row: Mapping[int, np.ndarray]) -> None:
    """Make the tokens that masks leave out impossible, in place."""
    vocab_size, device = logits_SV.shape[1], logits_SV.device
    bytes_RB = torch.from_numpy(np.stack(list(mask_of_row.values()))).to(device)
    added_RV = _of_bytes(device).index_select(0, bytes_RB.int().flatten()).view(len(mask_of_row), -1)[:, :vocab_size]
    logits_SV.index_add_(0, torch.tensor(list(mask_of_row), device=device), added_RV)


@cache
def _of_bytes(device: torch.device) -> Tensor:
    """Return (256, 8): what each bit of a byte adds to a logit, nothing or minus infinity."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return torch.from_numpy(np.where(bits == 1, 0.0, -np.inf).astype(np.float32)).to(device)


def _clear(mask_B: np.ndarray, token_ids: Sequence[int]) -> None:
    for token_id in token_ids:
        mask_B[token_id // 8] &= ~(1 << token_id % 8) & 0xFF
