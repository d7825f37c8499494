"""Logprobs in the model's own distribution: of the raw logits, before anything else changes them.

Shape suffixes: L rows that are worked on at once, V vocabulary.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from glm_worker.messages import TokenLogprobs

_ROWS_AT_ONCE = {"cpu": 1, "cuda": 16}  # a row fits the cache of a core; a GPU wants more at once


class Logprobs:
    """The rows that ask, as they are now. It is made before logits change, and asked when tokens are known."""

    def __init__(self, logits_SV: Tensor, num_top: dict[int, int], changing: Collection[int]) -> None:
        """num_top: by row, how many of the best it wants besides its own token. changing: rows that will not stay."""
        self._rows = [logits_SV[row].clone() if row in changing else logits_SV[row] for row in num_top]
        self._num_top = num_top

    def of(self, token_ids: Sequence[int]) -> dict[int, TokenLogprobs]:
        """Return the logprobs of a step by row. token_ids: what each row of the step got.

        Of equal tokens the one with the lower id is the better.
        """
        found: list[TokenLogprobs] = []
        rows, tops = list(self._num_top), list(self._num_top.values())
        size = _ROWS_AT_ONCE.get(self._rows[0].device.type, 1)
        for begin in range(0, len(rows), size):
            part = slice(begin, begin + size)
            raw = self._rows[part]
            logits_LV = raw[0][None] if len(raw) == 1 else torch.stack(raw)
            found += _logprobs(logits_LV, [token_ids[row] for row in rows[part]], tops[part])
        return dict(zip(rows, found, strict=True))


def _logprobs(logits_LV: Tensor, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprobs]:
    chosen_L1 = logits_LV.gather(1, torch.tensor(token_ids, device=logits_LV.device)[:, None])
    totals = logits_LV.logsumexp(dim=1).tolist()
    ranks = (torch.count_nonzero(logits_LV > chosen_L1, dim=1) + 1).tolist()
    return [
        TokenLogprobs(logit - total, rank, [(id_, value - total) for id_, value in top])
        for logit, total, rank, top in zip(
            chosen_L1[:, 0].tolist(), totals, ranks, _top(logits_LV, num_top), strict=True
        )
    ]


def _top(logits_LV: Tensor, num_top: Sequence[int]) -> list[list[tuple[int, float]]]:
    """Return ids and logits of the best tokens of each row, best first."""
    vocab_size = logits_LV.shape[1]
    most = min(max(num_top), vocab_size)
    if not most:
        return [[] for _ in num_top]
    values_LC, ids_LC = logits_LV.topk(min(most + 1, vocab_size), dim=1)
    entries = [
        list(zip(ids, values, strict=True)) for ids, values in zip(ids_LC.tolist(), values_LC.tolist(), strict=True)
    ]
    for row, of_row in enumerate(entries):
        if most < vocab_size and of_row[most - 1][1] == of_row[most][1]:  # topk took any of those that are equal
            ids = (logits_LV[row] >= of_row[most][1]).nonzero()[:, 0]
            entries[row] = list(zip(ids.tolist(), logits_LV[row, ids].tolist(), strict=True))
    return [
        sorted(of_row, key=lambda entry: (-entry[1], entry[0]))[:num]
        for of_row, num in zip(entries, num_top, strict=True)
    ]
