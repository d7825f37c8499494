"""Which requests show what steps cost: prompts of many lengths, then batches of many sizes and lengths. Pure."""

import itertools
from dataclasses import dataclass, replace

from glm_worker.messages import EngineLimits
from glm_worker.scheduler.block_manager import blocks_for

DECODE_STEPS = 16  # of each batch
SHORT_PROMPT = 8
SPREAD = 16  # the longest prompt of a batch against the shortest
GOLDEN = 0.618034  # steps of this share of a circle visit its parts evenly


@dataclass(frozen=True)
class Experiment:
    """Requests that are submitted together to an idle engine. then: a prompt that comes when all of them decode."""

    name: str
    prompts: tuple[int, ...]  # tokens of each
    max_tokens: int
    then: int | None = None


def experiments(limits: EngineLimits, max_batch_tokens: int, max_num_seqs: int) -> list[Experiment]:
    """Return experiments that this group can run without preempting anybody."""
    longest = limits.max_model_len - 1
    chunk = min(max_batch_tokens, longest)
    all_of_them = [
        *(Experiment(f"prompt of {n}", (n,), 1) for n in _powers_of_two(chunk, first=16)),
        Experiment("eight prompts at once", (max(1, chunk // 8),) * 8, 1),
        Experiment("prompt of four chunks", (min(longest, 4 * max_batch_tokens),), 1),
        *(Experiment(f"one that decodes after {n}", (n,), 1 + DECODE_STEPS) for n in (SHORT_PROMPT, longest // 4)),
        Experiment("one at the end of its context", (longest - DECODE_STEPS,), 1 + DECODE_STEPS),
        *(
            _ragged(f"{kind} requests, {n} at once", n, top, limits, max_batch_tokens)
            for kind, top in (("short", longest // 8), ("middling", longest // 2), ("long", longest))
            for n in _powers_of_two(max_num_seqs, first=2)
        ),
        *(
            replace(_ragged(f"prompt of {n} beside {rows}", rows, longest // 4, limits, max_batch_tokens), then=n)
            for n in (min(64, chunk // 2), chunk // 2)
            for rows in (min(4, max_num_seqs - 1), min(16, max_num_seqs - 1))
            if rows > 0
        ),
    ]
    return [experiment for experiment in all_of_them if _fits(experiment, limits, max_num_seqs)]


def _ragged(name: str, count: int, top: int, limits: EngineLimits, max_batch_tokens: int) -> Experiment:
    """Return requests of all lengths up to top, which is less where the KV cache does not hold so many.

    Requests under load have all lengths, and that costs: a batch is padded to its longest request, or computed in
    parts. A batch of equals would look cheaper than any that a server ever sees.
    """
    fair_share = limits.num_blocks * limits.block_size // (2 * count)
    mixed = ragged_lengths(count, max(1, min(top, 2 * fair_share)))
    prefill_steps = -(-sum(mixed) // max_batch_tokens)
    longest_answer = limits.max_model_len - max(mixed)
    return Experiment(name, tuple(mixed), min(1 + DECODE_STEPS + prefill_steps, longest_answer))


def ragged_lengths(count: int, top: int) -> list[int]:
    """Return so many lengths up to top, as many short ones as long ones, well mixed."""
    least = max(1, top // SPREAD)
    lengths = [round(least * (top / least) ** ((i + 0.5) / count)) for i in range(count)]
    return [lengths[i] for i in sorted(range(count), key=lambda i: i * GOLDEN % 1)]


def _fits(experiment: Experiment, limits: EngineLimits, max_num_seqs: int) -> bool:
    prompts = [*experiment.prompts, *([experiment.then] if experiment.then else [])]
    lengths = [prompt + experiment.max_tokens for prompt in prompts]
    blocks = sum(blocks_for(length, limits.block_size) for length in lengths) + len(lengths)  # admission keeps one each
    return (
        min(prompts) >= 1
        and max(lengths) <= limits.max_model_len
        and len(prompts) <= max_num_seqs
        and blocks <= limits.num_blocks
    )


def _powers_of_two(last: int, first: int) -> list[int]:
    """Return first, twice that and so on below last, and last itself."""
    return [*itertools.takewhile(lambda n: n < last, (first << i for i in itertools.count())), last]
