"""Turn samples into the arrays of a training step: a pure function of (seed, step, shard).

A batch holds its conversations end to end, without padding, each from position 0 and attending to itself alone.
Shape suffix T: positions of all conversations.
"""

from dataclasses import dataclass
from random import Random

import torch
from tasks import Sample, draw_sample
from tokenizers import Tokenizer
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Token ids, and which of them the model must learn to write: only those are worth computing logits for.

    target_ids are indices into ids_T; a row starts with a prompt, so a target has two tokens of its row before it.
    """

    lengths: list[int]
    ids_T: Tensor
    position_ids_T: Tensor
    target_ids: Tensor


class Encoder:
    """Sample -> token ids, and for each whether the assistant wrote it in a way to learn from."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self.assistant = vocabulary["<|assistant|>"]
        self.others = {vocabulary[f"<|{role}|>"] for role in ("system", "user", "observation")}
        self.thoughts = vocabulary["<think>"], vocabulary["</think>"]

    def encode(self, sample: Sample) -> tuple[list[int], list[bool]]:
        prompt = self.tokenizer.encode(sample.prompt()).ids
        completion = self.tokenizer.encode(sample.completion()).ids
        return prompt + completion, self._prompt_targets(prompt, sample) + [True] * len(completion)

    def _prompt_targets(self, prompt: list[int], sample: Sample) -> list[bool]:
        """Take earlier assistant turns along, with the token that ends them.

        Not so where the model is to think and the thoughts were taken out of the history: a bad example.
        """
        targets = [False] * len(prompt)
        if not sample.learns_history:
            return targets
        turn: int | None = None
        for position, token_id in enumerate(prompt):
            if token_id == self.assistant:
                turn = position + 1
            elif token_id in self.others and turn is not None:
                opening, closing = prompt.index(self.thoughts[0], turn), prompt.index(self.thoughts[1], turn)
                targets[turn : position + 1] = [not sample.thinking or closing > opening + 1] * (position + 1 - turn)
                turn = None
        return targets


def shard_batch(encoder: Encoder, seed: int, step: int, shard: int, num_tokens: int) -> Batch:
    """Return num_tokens tokens of fresh samples, or a few more."""
    rng = Random(f"{seed} {step} {shard}")
    rows: list[tuple[list[int], list[bool]]] = []
    while sum(len(ids) for ids, _ in rows) < num_tokens:
        rows.append(encoder.encode(draw_sample(rng, step=step)))
    is_target_T = torch.tensor([is_target for _, targets in rows for is_target in targets])
    return Batch(
        [len(ids) for ids, _ in rows],
        torch.tensor([token_id for ids, _ in rows for token_id in ids]),
        torch.tensor([position for ids, _ in rows for position in range(len(ids))]),
        is_target_T.nonzero().flatten(),
    )
