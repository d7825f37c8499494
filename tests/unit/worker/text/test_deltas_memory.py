"""What an answer keeps for each of a hundred thousand tokens is nothing that the collector of garbage looks at."""

import gc

from glm_worker.server.openai.logprobs import spelled_in_chat, spelled_in_completion
from glm_worker.server.text.deltas import TokenLogprob
from unit.worker.server_builders import tokenizer


def test_the_collector_passes_over_logprobs_that_are_kept() -> None:
    token = TokenLogprob(7, -0.5, ((7, -0.5), (8, -1.5)))
    for told in (spelled_in_chat(token, tokenizer()), spelled_in_completion(token, tokenizer())):
        assert not gc.is_tracked(told)
        assert not gc.is_tracked(told.spelled)
