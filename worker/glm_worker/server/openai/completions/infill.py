"""Prompts for the text between a prefix and a suffix, for checkpoints that have code tokens."""

from glm_worker.errors import RequestRefused
from glm_worker.server.checkpoint import Checkpoint

PREFIX, SUFFIX, MIDDLE = "<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"


def infill_prompt(prefix: str, suffix: str, checkpoint: Checkpoint) -> list[int]:
    """Return the prompt: prefix, suffix, and where the middle begins, each after its token.

    Raises RequestRefused when the checkpoint has no such tokens, and for a text that cannot fit.
    """
    tokenizer = checkpoint.tokenizer
    marks = [tokenizer.token_id(mark) for mark in (PREFIX, SUFFIX, MIDDLE)]
    if None in marks:
        raise RequestRefused(
            f"suffix needs a model that fills in code; '{checkpoint.name}' has no {PREFIX} among its tokens",
            param="suffix",
            code="unsupported_parameter",
        )
    for param, text in (("prompt", prefix), ("suffix", suffix)):
        checkpoint.check_length(text, param)
    first, second, third = (mark for mark in marks if mark is not None)
    begin = tokenizer.encode("", add_special_tokens=True)
    return [*begin, first, *tokenizer.encode(prefix), second, *tokenizer.encode(suffix), third]
