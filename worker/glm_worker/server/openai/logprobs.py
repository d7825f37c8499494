"""How likely tokens were, in the two shapes that OpenAI has for it."""

import codecs
from collections.abc import Sequence
from typing import Any

from glm_worker.server.text.deltas import TokenLogprob
from glm_worker.server.text.tokenizer import Tokenizer

Json = dict[str, Any]

LEAST = -9999.0  # what clients know for "never"; JSON has no infinity


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> Json:
    """Return choices[].logprobs of a chat, for these tokens of its content."""
    return {
        "content": [
            {
                **_entry(token.token_id, token.logprob, tokenizer),
                "top_logprobs": [_entry(token_id, logprob, tokenizer) for token_id, logprob in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


class CompletionLogprobs:
    """choices[].logprobs of one answer of a completion, as it grows: offsets count the characters before a token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def add(self, tokens: Sequence[TokenLogprob]) -> Json:
        """Return the shape for the next tokens. Of each the likeliest ones are told, and itself."""
        offsets = []
        for token in tokens:
            offsets.append(self._num_chars)
            self._num_chars += len(self._decoder.decode(self._tokenizer.bytes_of(token.token_id)))
        return {
            "tokens": [self._spelled(token.token_id) for token in tokens],
            "token_logprobs": [_bounded(token.logprob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens],
            "text_offset": offsets,
        }

    def _top(self, token: TokenLogprob) -> dict[str, float]:
        likeliest = {self._spelled(token_id): _bounded(logprob) for token_id, logprob in token.top}
        return likeliest | {self._spelled(token.token_id): _bounded(token.logprob)}

    def _spelled(self, token_id: int) -> str:
        """Return the text of a token; of one that is a part of a character its bytes, as OpenAI writes them."""
        data = self._tokenizer.bytes_of(token_id)
        try:
            return data.decode() if data else self._tokenizer.name_of(token_id)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _entry(token_id: int, logprob: float, tokenizer: Tokenizer) -> Json:
    data = tokenizer.bytes_of(token_id)
    text = data.decode(errors="replace") if data else tokenizer.name_of(token_id)
    return {"token": text, "logprob": _bounded(logprob), "bytes": list(data)}


def _bounded(logprob: float) -> float:
    return max(logprob, LEAST)
