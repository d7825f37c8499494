"""What a client adds to the logits of some tokens.

Shape suffixes: S rows, V vocabulary, N tokens to change, of all rows together.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_LARGEST = 1e30  # more would make no difference, and infinities would


def add_bias(logits_SV: Tensor, bias_of_row: Mapping[int, Mapping[int, float]]) -> None:
    """Add to the logits of each row, in place."""
    added = [(row, token_id, value) for row, bias in bias_of_row.items() for token_id, value in bias.items()]
    rows, ids, values = zip(*added, strict=True)
    device = logits_SV.device
    rows_N, ids_N = torch.tensor(rows, device=device), torch.tensor(ids, device=device)
    values_N = torch.tensor(values, dtype=torch.float64, device=device).clamp_(-_LARGEST, _LARGEST)
    logits_SV[rows_N, ids_N] += values_N.to(logits_SV.dtype)


def forbid(logits_SV: Tensor, banned_of_row: Mapping[int, list[int]]) -> None:
    """Make tokens impossible, in place. One token of each row must be left."""
    banned = [(row, token_id) for row, token_ids in banned_of_row.items() for token_id in token_ids]
    if banned:
        rows, ids = zip(*banned, strict=True)
        device = logits_SV.device
        logits_SV[torch.tensor(rows, device=device), torch.tensor(ids, device=device)] = -torch.inf
