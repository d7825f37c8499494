"""Which requests show what steps cost: prompts of many lengths, then batches of many sizes. Pure."""

from dataclasses import dataclass
from itertools import count, takewhile

from glm_worker.messages import EngineLimits
from glm_worker.scheduler.block_manager import blocks_for

DECODE_STEPS = 16  # of each batch
SHORT_PROMPT = 8


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
        *(
            Experiment(f"batch of {n}", (SHORT_PROMPT,) * n, 1 + DECODE_STEPS)
            for n in _powers_of_two(max_num_seqs, first=1)
        ),
        *(
            Experiment(f"batch of {n} with {context} tokens", (context,) * n, 1 + DECODE_STEPS)
            for n, context in (
                (1, longest - DECODE_STEPS),
                (min(8, max_num_seqs), longest // 4),
                (min(32, max_num_seqs), min(256, longest // 4)),
            )
        ),
        *(
            Experiment(f"prompt of {n} beside a batch of {rows}", (SHORT_PROMPT,) * rows, 1 + DECODE_STEPS, then=n)
            for n in (min(64, chunk // 2), chunk // 2)
            for rows in (min(4, max_num_seqs - 1), min(16, max_num_seqs - 1))
            if rows > 0
        ),
    ]
    return [experiment for experiment in all_of_them if _fits(experiment, limits, max_num_seqs)]


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
    return [*takewhile(lambda n: n < last, (first << i for i in count())), last]
