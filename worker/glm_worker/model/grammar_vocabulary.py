"""The checkpoint's vocabulary as grammars see it: the bytes that each token adds to an answer.

The process that compiles a grammar and the rank that matches tokens against it must see the same vocabulary, so both
make it here. xgrammar imports torch: it is imported by load_xgrammar, which the server's own process never calls.

What a token is to a grammar:
- An ordinary token is its bytes (byte-level BPE).
- An added token that is no special one, such as `<tool_call>`, is a tag, and a tag is its id, never its spelling. Its
  bytes begin with one that no UTF-8 text has: no string, pattern or free text of a grammar matches it, and none of them
  can smuggle it into a value. A grammar names it by id: `{"type": "token", "token": 1015}` in a structural tag,
  `Token(1015)` in EBNF. A tag that a grammar spells as text is generated as text, letter by letter.
- Special tokens (`<|user|>`) and ids past the tokenizer (padding) are nothing: no grammar allows them but as the stop
  tokens of a finished answer.

A compiled grammar travels packed: xgrammar's serialised form repeats the automaton of the whole grammar for each of its
rules (40 MB for a schema of 300 properties, 10 KB), and packs to a thousandth.
"""

import importlib
import lzma
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig

if TYPE_CHECKING:
    import xgrammar

MAX_SERIALISED_BYTES = 64 * 2**20  # 1.3 s of a core beside the steps to read, and one step is held up by 70 ms
_NO_TEXT = b"\xff"  # never in UTF-8


def load_xgrammar() -> None:
    """Import xgrammar without transformers: in 0.2 s and 10 MB in place of 0.7 s and 30 MB. It starts no thread.

    A dirty corner: xgrammar names two classes of transformers in the types of TokenizerInfo.from_huggingface, which
    nobody calls here, and imports it for that. So a module that has only these names stands in its place meanwhile.
    """
    if "xgrammar" in sys.modules or "transformers" in sys.modules:
        importlib.import_module("xgrammar")
        return
    names = ModuleType("transformers")
    names.PreTrainedTokenizerBase = names.PreTrainedTokenizerFast = object  # type: ignore[attr-defined]
    names.LogitsProcessor = object  # type: ignore[attr-defined]
    sys.modules["transformers"] = names
    try:
        importlib.import_module("xgrammar")
    finally:
        del sys.modules["transformers"]


def grammar_vocabulary(folder: Path) -> "xgrammar.TokenizerInfo":
    """Return the vocabulary of the checkpoint in folder. Loads xgrammar, and torch with it.

    vocab_size is that of config.json, the width of the logits; stop tokens are its eos_token_id (a matcher may be given
    others). Raises ConfigError if a file cannot be read.
    """
    load_xgrammar()
    import xgrammar

    config = ModelConfig.read(folder)
    return xgrammar.TokenizerInfo(
        token_bytes(folder, config.vocab_size),
        xgrammar.VocabType.RAW,
        vocab_size=config.vocab_size,
        stop_token_ids=list(config.eos_token_ids),
    )


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    special: bool


class _Bpe(msgspec.Struct):
    vocab: dict[str, int]


class _TokenizerFile(msgspec.Struct):
    """Of tokenizer.json what is needed here: to read all of it takes tokenizers 0.5 s for 151,552 tokens."""

    model: _Bpe
    added_tokens: list[_AddedToken]


def token_bytes(folder: Path, vocab_size: int) -> list[bytes]:
    """Return what each id below vocab_size is to a grammar. Raises ConfigError if tokenizer.json cannot be read."""
    path = folder / "tokenizer.json"
    try:
        tokenizer = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    added = {tag.id: tag for tag in tokenizer.added_tokens}
    found = [b""] * vocab_size
    for token, token_id in tokenizer.model.vocab.items():
        if token_id < vocab_size and token_id not in added:
            found[token_id] = _bytes_of(token)
    for token_id, tag in added.items():
        if token_id < vocab_size and not tag.special:
            found[token_id] = _NO_TEXT + tag.content.encode()
    return found


def pack_grammar(grammar: "xgrammar.CompiledGrammar", most_bytes: int | None = None) -> bytes:
    """Return what AnswerGrammar.compiled holds. most_bytes: of the serialised form; None: what a rank would unpack.

    Raises ValueError for a grammar that has more.
    """
    most_bytes = MAX_SERIALISED_BYTES if most_bytes is None else most_bytes
    serialised = grammar.serialize_json().encode()
    if len(serialised) > most_bytes:
        raise ValueError(f"the compiled grammar has {len(serialised)} bytes; at most {most_bytes} are allowed")
    return lzma.compress(serialised, preset=0)


def unpack_grammar(packed: bytes, vocabulary: "xgrammar.TokenizerInfo") -> tuple["xgrammar.CompiledGrammar", int]:
    """Return the grammar that pack_grammar packed, or one serialised only, and about the bytes of memory that it takes.

    It lets other threads run meanwhile. Raises ValueError with the cause if it is none, is too large, or was compiled
    for another vocabulary.
    """
    load_xgrammar()
    import xgrammar

    try:
        serialised = packed if packed.startswith(b"{") else _unpacked(packed)
        grammar = xgrammar.CompiledGrammar.deserialize_json(serialised.decode(), vocabulary)
    except (lzma.LZMAError, RuntimeError, ValueError) as error:  # those of xgrammar are RuntimeErrors
        raise ValueError(f"the compiled grammar cannot be read: {str(error)[:200]}") from error
    return grammar, len(serialised)  # measured: 38 MiB for 40 MB; its own memory_size_bytes says 1.2 MB of it


def _unpacked(packed: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor()
    serialised = decompressor.decompress(packed, max_length=MAX_SERIALISED_BYTES)
    if not decompressor.eof:
        raise ValueError(f"it is cut off, or has more than {MAX_SERIALISED_BYTES} bytes")
    return serialised


def _bytes_of(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF_CHAR[char] for char in token])
    except KeyError:  # not in the byte-level alphabet, so no text becomes it
        return b""


def _byte_alphabet() -> dict[str, int]:
    """Return the byte each character of a byte-level token stands for (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_alphabet()
