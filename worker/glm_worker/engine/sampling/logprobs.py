"""Logprobs in the model's own distribution: taken from the raw logits, before anything else changes them.

Shape suffixes: L rows that ask for logprobs, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_worker.messages import TokenLogprobs


class Logprobs:
    """A copy of the rows that ask."""

    def __init__(self, logits_SV: Tensor, rows: Sequence[int], num_top: Sequence[int]) -> None:
        """num_top: how many of the best each row wants besides its own token."""
        self._logits_LV = logits_SV[torch.tensor(rows, device=logits_SV.device)].float()
        self._num_top = num_top

    def of(self, token_ids: Sequence[int]) -> list[TokenLogprobs]:
        """Return the logprobs of the token that each row got. Of equal tokens the lower id is the better one."""
        logits_LV = self._logits_LV
        ids_L1 = torch.tensor(token_ids, device=logits_LV.device)[:, None]
        chosen_L1 = logits_LV.gather(1, ids_L1)
        totals = logits_LV.logsumexp(dim=1).tolist()
        ranks = ((logits_LV > chosen_L1).sum(dim=1) + 1).tolist()
        tops = self._top()
        return [
            TokenLogprobs(logit - total, rank, [(id_, value - total) for id_, value in top])
            for logit, total, rank, top in zip(chosen_L1[:, 0].tolist(), totals, ranks, tops, strict=True)
        ]

    def _top(self) -> list[list[tuple[int, float]]]:
        """Return ids and logits of the best tokens of each row, best first."""
        most = min(max(self._num_top), self._logits_LV.shape[1])
        if not most:
            return [[] for _ in self._num_top]
        least_L1 = self._logits_LV.topk(most, dim=1).values[:, -1:]
        found: list[list[tuple[int, float]]] = [[] for _ in self._num_top]
        places_N2 = (self._logits_LV >= least_L1).nonzero()  # all that are equal to the last one too: topk picks any
        values_N = self._logits_LV[places_N2[:, 0], places_N2[:, 1]]
        for (row, token_id), value in zip(places_N2.tolist(), values_N.tolist(), strict=True):
            found[row].append((token_id, value))
        return [
            sorted(of_row, key=lambda entry: (-entry[1], entry[0]))[:num]
            for of_row, num in zip(found, self._num_top, strict=True)
        ]
