"""Feed given tokens through GlmMoe the way an engine would, in any division into steps, and collect all logits."""

import random
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.mesh import Mesh

Step: TypeAlias = dict[int, int]
"""How many tokens of which prompt a step takes."""


def whole_prompts(prompts: Sequence[Tensor]) -> list[Step]:
    """One step with every prompt complete."""
    return [{i: len(prompt) for i, prompt in enumerate(prompts)}]


def mixed_steps(prompts: Sequence[Tensor], seed: int) -> list[Step]:
    """Steps that mix chunks of prefill, single tokens and sequences that pause, in changing order within a step."""
    rng = random.Random(seed)
    left = {i: len(prompt) for i, prompt in enumerate(prompts)}
    steps = []
    while left:
        chosen = rng.sample(sorted(left), k=rng.randint(1, len(left)))
        step = {i: min(left[i], rng.choice([1, 7, 40, 150])) for i in chosen}
        left = {i: n - step.get(i, 0) for i, n in left.items() if n > step.get(i, 0)}
        steps.append(step)
    return steps


def prefill_then_decode(prompts: Sequence[Tensor], num_decode: int) -> list[Step]:
    """All but the last tokens of each prompt in one step, then one token of each at a time."""
    ends = {i: min(num_decode, len(prompt) - 1) for i, prompt in enumerate(prompts)}
    prefill = {i: len(prompt) - ends[i] for i, prompt in enumerate(prompts)}
    return [prefill, *({i: 1 for i, n in ends.items() if n > step} for step in range(max(ends.values())))]


def teacher_forced_logits(
    model: GlmMoe, mesh: Mesh, prompts: Sequence[Tensor], steps: list[Step], block_size: int = 16, seed: int = 0
) -> list[Tensor]:
    """Return the logits (tokens, V) of each prompt. Blocks are handed out in random order. Collective over ranks."""
    device, dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
    needed = [-(-len(prompt) // block_size) for prompt in prompts]
    blocks = list(range(sum(needed) + 1))
    random.Random(seed).shuffle(blocks)
    tables = [[blocks.pop() for _ in range(n)] for n in needed]
    cache = KVCache.allocate(model.config, mesh, sum(needed) + 1, block_size, dtype, device)
    done = [0] * len(prompts)
    logits: list[list[Tensor]] = [[] for _ in prompts]
    for step in steps:
        batch = _batch(prompts, tables, done, step, block_size, device)
        parts = model.forward(batch, model.plan(batch), cache).cpu().split(list(step.values()))
        for i, part in zip(step, parts, strict=True):
            logits[i].append(part)
            done[i] += step[i]
    assert done == [len(prompt) for prompt in prompts]
    return [torch.cat(parts) for parts in logits]


def _batch(
    prompts: Sequence[Tensor],
    tables: list[list[int]],
    done: list[int],
    step: Step,
    block_size: int,
    device: torch.device,
) -> ForwardBatch:
    token_ids, positions, slots, cu_query_lens = [], [], [], [0]
    for i, num_tokens in step.items():
        span = range(done[i], done[i] + num_tokens)
        token_ids += prompts[i][span.start : span.stop].tolist()
        positions += span
        slots += [tables[i][p // block_size] * block_size + p % block_size for p in span]
        cu_query_lens.append(len(token_ids))
    context_lens = [done[i] + num_tokens for i, num_tokens in step.items()]
    block_tables, logit_rows = [tables[i] for i in step], range(len(token_ids))
    host = HostBatch.of(token_ids, positions, slots, cu_query_lens, context_lens, block_tables, logit_rows)
    return host.on_device(block_size, device)
