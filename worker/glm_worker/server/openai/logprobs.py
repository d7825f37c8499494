"""How likely tokens were, in the two shapes that OpenAI has for it."""

import codecs
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from glm_worker.server.text.deltas import TokenLogprob
from glm_worker.server.text.tokenizer import Tokenizer

Json = dict[str, Any]

LEAST = -9999.0  # what clients know for "never"; JSON has no infinity
_encode = msgspec.json.Encoder().encode


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> Json:
    """Return choices[].logprobs of a chat, for these tokens of its content."""
    return {
        "content": [_in_chat(token, tokenizer) if token.spelled is None else token.spelled for token in tokens],
        "refusal": None,
    }


def spelled_in_chat(token: TokenLogprob, tokenizer: Tokenizer) -> TokenLogprob:
    """Return the token with its place in choices[].logprobs.content of a chat, as JSON."""
    return replace(token, top=(), spelled=msgspec.Raw(_encode(_in_chat(token, tokenizer))))


def _in_chat(token: TokenLogprob, tokenizer: Tokenizer) -> Json:
    return {
        **_entry(token.token_id, token.logprob, tokenizer),
        "top_logprobs": [_entry(token_id, logprob, tokenizer) for token_id, logprob in token.top],
    }


class _InCompletion(msgspec.Struct, frozen=True, gc=False):
    """text: the token as it is written. top: an object of those that were told beside it, or its JSON."""

    text: str
    top: dict[str, float] | msgspec.Raw


def spelled_in_completion(token: TokenLogprob, tokenizer: Tokenizer) -> TokenLogprob:
    """Return the token with what choices[].logprobs of a completion has of it."""
    told = _in_completion(token, tokenizer)
    return replace(token, top=(), spelled=_InCompletion(told.text, msgspec.Raw(_encode(told.top))))


def _in_completion(token: TokenLogprob, tokenizer: Tokenizer) -> _InCompletion:
    """Return the token, and of the likeliest ones in its place how likely they were, and it itself."""
    text = _spelled(token.token_id, tokenizer)
    likeliest = {_spelled(token_id, tokenizer): _bounded(logprob) for token_id, logprob in token.top}
    return _InCompletion(text, likeliest | {text: _bounded(token.logprob)})


def _spelled(token_id: int, tokenizer: Tokenizer) -> str:
    """Return the text of a token; of one that is a part of a character its bytes, as OpenAI writes them."""
    data = tokenizer.bytes_of(token_id)
    try:
        return data.decode() if data else tokenizer.name_of(token_id)
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


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
        told = [
            token.spelled if isinstance(token.spelled, _InCompletion) else _in_completion(token, self._tokenizer)
            for token in tokens
        ]
        return {
            "tokens": [each.text for each in told],
            "token_logprobs": [_bounded(token.logprob) for token in tokens],
            "top_logprobs": [each.top for each in told],
            "text_offset": offsets,
        }


def _entry(token_id: int, logprob: float, tokenizer: Tokenizer) -> Json:
    data = tokenizer.bytes_of(token_id)
    text = data.decode(errors="replace") if data else tokenizer.name_of(token_id)
    return {"token": text, "logprob": _bounded(logprob), "bytes": list(data)}


def _bounded(logprob: float) -> float:
    return max(logprob, LEAST)
