"""Penalties on tokens that have come before, in vLLM's order: repetition, then frequency and presence.

Only the tokens that have come are touched, so a row costs by the length of its text, not by the vocabulary.

Shape suffixes: S rows, V vocabulary, N tokens to change, of all rows together.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_worker.request import Ids, SamplingParams

_LARGEST = torch.finfo(torch.float32).max


class TokenCounts:
    """How often each token was generated; those of the prompt are known with 0. Each token stands in it once."""

    def __init__(self, prompt_token_ids: Ids, without: Collection[int] = ()) -> None:
        """without: ids that are not counted."""
        known = np.setdiff1d(
            np.asarray(prompt_token_ids, dtype=np.int64), np.fromiter(without, dtype=np.int64, count=len(without))
        )
        self._without = frozenset(without)
        self._place = dict(zip(known.tolist(), range(len(known)), strict=True))
        self._num = len(known)
        self._ids_N = np.concatenate([known, np.zeros(64, dtype=np.int64)])  # doubled when full
        self._counts_N = np.zeros(len(self._ids_N), dtype=np.float32)

    def add(self, token_id: int) -> None:
        if token_id in self._without:
            return
        place = self._place.setdefault(token_id, self._num)
        if place == self._num:
            if place == len(self._ids_N):
                self._ids_N = np.concatenate([self._ids_N, np.zeros_like(self._ids_N)])
                self._counts_N = np.concatenate([self._counts_N, np.zeros_like(self._counts_N)])
            self._ids_N[place] = token_id
            self._num += 1
        self._counts_N[place] += 1

    @property
    def ids(self) -> np.ndarray:
        return self._ids_N[: self._num]

    @property
    def counts(self) -> np.ndarray:
        return self._counts_N[: self._num]


@dataclass(frozen=True, slots=True)
class Penalised:
    """A row of logits, and what is asked of it."""

    row: int
    params: SamplingParams
    counts: TokenCounts


def has_penalty(params: SamplingParams) -> bool:
    return bool(params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1)


def counts_for(params: SamplingParams, prompt_token_ids: Ids) -> TokenCounts:
    """Return the counts at the beginning of an answer. Only the repetition penalty asks for the prompt."""
    return TokenCounts(prompt_token_ids if params.repetition_penalty != 1 else (), params.unpenalised_ids)


def penalise(logits_SV: Tensor, penalised: Sequence[Penalised]) -> None:
    """Change the rows in place. Results stay finite, whatever the penalties."""
    lengths = [len(p.counts.ids) for p in penalised]
    device = logits_SV.device

    def column(values: Sequence[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float64), lengths)).to(device)

    rows_N = torch.from_numpy(np.repeat(np.asarray([p.row for p in penalised], dtype=np.int64), lengths)).to(device)
    ids_N = torch.from_numpy(np.concatenate([p.counts.ids for p in penalised])).to(device)
    counts_N = torch.from_numpy(np.concatenate([p.counts.counts for p in penalised])).to(device)
    repetition_N = column([p.params.repetition_penalty for p in penalised])
    logits_N = logits_SV[rows_N, ids_N].double()
    logits_N = torch.where(logits_N > 0, logits_N / repetition_N, logits_N * repetition_N).clamp_(-_LARGEST, _LARGEST)
    logits_N -= column([p.params.frequency_penalty for p in penalised]) * counts_N
    logits_N -= column([p.params.presence_penalty for p in penalised]) * (counts_N > 0)
    logits_SV[rows_N, ids_N] = logits_N.clamp_(-_LARGEST, _LARGEST).to(logits_SV.dtype)
