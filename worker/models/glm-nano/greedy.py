"""Greedy decoding of many prompts at once with a KV cache: how evaluate.py asks the model.

Shape suffixes as in model.py.
"""

from collections.abc import Iterator, Sequence

import torch
from model import CachedAttention, GlmNano
from tokenizers import Tokenizer
from torch import Tensor

MAX_ROWS = 100
STOP_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")


def complete(model: GlmNano, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int = 420) -> list[str]:
    """Return what the model writes after each prompt, with the token it stopped on (none: it ran to max_tokens)."""
    encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
    by_length = sorted(range(len(prompts)), key=lambda prompt_id: len(encoded[prompt_id]))
    stop_ids = torch.tensor([tokenizer.token_to_id(token) for token in STOP_TOKENS])
    completions = [""] * len(prompts)
    for start in range(0, len(by_length), MAX_ROWS):
        prompt_ids = by_length[start : start + MAX_ROWS]
        for row, written in _decode(model, [encoded[prompt_id] for prompt_id in prompt_ids], stop_ids, max_tokens):
            completions[prompt_ids[row]] = tokenizer.decode(written, skip_special_tokens=False)
    return completions


@torch.no_grad()
def _decode(
    model: GlmNano, prompts: list[list[int]], stop_ids: Tensor, max_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield each row with the ids it wrote, as it ends."""
    length = max(map(len, prompts))
    ids_BS = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    fill_B = torch.tensor([length - len(prompt) for prompt in prompts])
    columns = torch.arange(length)
    is_real_BC = columns >= fill_B[:, None]
    # A filler position sees itself, for a softmax over nothing is not a number; nobody else sees it.
    mask_BSC = (is_real_BC[:, None] & (columns[:, None] >= columns)) | torch.eye(length, dtype=torch.bool)
    positions_BS = (columns - fill_B[:, None]).clamp(min=0)
    rows = torch.arange(len(prompts))
    written: list[list[int]] = [[] for _ in prompts]
    attend = CachedAttention(model.config.num_hidden_layers)
    for _ in range(max_tokens):
        attend.mask_BSC = mask_BSC
        next_B = model.lm_head(model.hidden(ids_BS, positions_BS, attend)[:, -1]).argmax(-1)
        for row, token_id in zip(rows.tolist(), next_B.tolist(), strict=True):
            written[row].append(token_id)
        goes_on_B = ~torch.isin(next_B, stop_ids)
        for row in rows[~goes_on_B].tolist():
            yield row, written[row]
        rows, next_B, is_real_BC = rows[goes_on_B], next_B[goes_on_B], is_real_BC[goes_on_B]
        if not len(rows):
            return
        if not goes_on_B.all():
            attend.keep(goes_on_B)
        is_real_BC = torch.cat((is_real_BC, torch.ones(len(rows), 1, dtype=torch.bool)), 1)
        ids_BS, mask_BSC, positions_BS = next_B[:, None], is_real_BC[:, None], positions_BS[goes_on_B, -1:] + 1
    for row in rows.tolist():
        yield row, written[row]
