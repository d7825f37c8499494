"""Text to token ids, and token ids to bytes.

GLM tokenizers are byte-level BPE: every token stands for a fixed string of bytes. Decoding is therefore a table and a
join, and streaming needs no re-decoding: the bytes go through an incremental UTF-8 decoder (lexer.py).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from glm_worker.errors import ConfigError
from glm_worker.server.text.control_tokens import runs
from glm_worker.server.text.encoding import TooManyTokens, token_ids_of

_PART_CHARS = 64 * 2**10
_CUT_TOKENS = 64  # more than a cut through a word can add
_CHARS_A_TOKEN = 6  # more than prose and code have
# One text is one thread's work, ours. The library's own pool would let a long text hold up the short ones behind it.
os.environ["TOKENIZERS_PARALLELISM"] = "false"


class Tokenizer:
    """One checkpoint's tokenizer. Safe to use from several threads at once."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self._plain = _without_added_tokens(inner)
        self.added_tokens = tuple(token.content for token in inner.get_added_tokens_decoder().values())
        self._special_ids = {id_ for id_, token in inner.get_added_tokens_decoder().items() if token.special}
        self._bytes_of: dict[int, bytes] = {}
        self._text_of: dict[int, str | None] = {}
        self.size = inner.get_vocab_size(with_added_tokens=True)
        self.longest_token_bytes = _longest_token_bytes(inner)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read tokenizer.json. Raises ConfigError when it is missing, broken or not byte-level."""
        path = folder / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
            decoder = json.loads(text).get("decoder") or {}
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises plain Exception
            raise ConfigError(f"{path} cannot be read: {error}") from error
        if decoder.get("type") != "ByteLevel":
            raise ConfigError(f"{path}: decoder {decoder.get('type')} is not supported; GLM tokenizers use ByteLevel")
        return cls(inner)

    def encode(self, text: str, *, add_special_tokens: bool = False, most: int | None = None) -> list[int]:
        """Return the token ids of text. Takes seconds for megabytes: encode long texts in a thread.

        Raises TooManyTokens for more than most.
        """
        return token_ids_of(self._inner, text, add_special_tokens=add_special_tokens, most=most)

    def encode_prompt(self, text: str, *, most: int | None = None) -> list[int]:
        """Return the token ids of a rendered prompt. What was disarmed in it is encoded as the text that it is.

        Raises TooManyTokens as soon as there are more than most.
        """
        token_ids: list[int] = []
        for run, is_plain in runs(text, self.added_tokens):
            token_ids += token_ids_of(self._plain if is_plain else self._inner, run, most=most)
            if most is not None and len(token_ids) > most:
                raise TooManyTokens(len(token_ids))
        return token_ids

    def normalized(self, text: str) -> str:
        """Return text as it is when tokens are looked for. GLM tokenizers change nothing."""
        normalizer = self._inner.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def min_tokens(self, text: str, enough: int | None = None) -> int:
        """Return a number of tokens that text has at least, without encoding it; 0 when nothing can be said.

        enough: whether it has as many is to be known. Of a text so long that it surely seems so, parts are encoded
        until they have as many: what is far too long costs no more than what is just too long.
        """
        longest = self.longest_token_bytes
        known = 0 if longest is None else -(-len(text.encode()) // longest)
        if enough is None or known >= enough or len(text) <= _CHARS_A_TOKEN * enough + _PART_CHARS:
            return known
        num = 0
        for at in range(0, len(text), _PART_CHARS):
            num += len(token_ids_of(self._inner, text[at : at + _PART_CHARS])) - _CUT_TOKENS
            if num >= enough:
                return num
        return max(known, num)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token given by its text, or None when the vocabulary has none."""
        return self._inner.token_to_id(token)

    def bytes_of(self, token_id: int) -> bytes:
        """Return what a token adds to the text: nothing for special tokens and ids past the vocabulary (padding)."""
        known = self._bytes_of.get(token_id)
        if known is None:
            known = self._bytes_of[token_id] = self._look_up(token_id)
        return known

    def text_of(self, token_id: int) -> str | None:
        """Return what a token adds to the text, where it is whole characters; None where it has a part of one."""
        try:
            return self._text_of[token_id]
        except KeyError:
            pass
        try:
            text = self._text_of[token_id] = self.bytes_of(token_id).decode()
        except UnicodeDecodeError:
            self._text_of[token_id] = None
            return None
        return text

    def name_of(self, token_id: int) -> str:
        """Return a token as people read it: its text, and what special tokens are written as."""
        data = self.bytes_of(token_id)
        return data.decode(errors="replace") if data else self._inner.id_to_token(token_id) or ""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones as they are written."""
        parts = (self.bytes_of(token_id) or self.name_of(token_id).encode() for token_id in token_ids)
        return b"".join(parts).decode(errors="replace")

    def _look_up(self, token_id: int) -> bytes:
        token = self._inner.id_to_token(token_id)
        if token is None or token_id in self._special_ids:
            return b""
        try:
            return bytes(_BYTE_OF_CHAR[char] for char in token)
        except KeyError:  # an added token is stored as plain text
            return token.encode()


def _without_added_tokens(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer that finds no added tokens in a text. It shares the model: the vocabulary is there once."""
    plain = tokenizers.Tokenizer(inner.model)
    if inner.normalizer is not None:
        plain.normalizer = inner.normalizer
    if inner.pre_tokenizer is not None:
        plain.pre_tokenizer = inner.pre_tokenizer
    return plain


def _longest_token_bytes(inner: tokenizers.Tokenizer) -> int | None:
    """Return how much text one token can stand for; None when there is no bound, as text is changed or stripped."""
    added = inner.get_added_tokens_decoder().values()
    if inner.normalizer is not None or any(token.lstrip or token.rstrip for token in added):
        return None
    # A character of a byte-level token is one byte of text; added tokens are stored as plain text.
    lengths = [len(token) for token in inner.get_vocab(with_added_tokens=False)]
    return max(lengths + [len(token.content.encode()) for token in added], default=None)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte each character of a byte-level token stands for (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_alphabet()
