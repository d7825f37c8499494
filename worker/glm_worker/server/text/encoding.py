"""Texts to token ids, long ones in a thread that has less claim on the cores than the one that all streams need.

The library lets go of Python's lock while it encodes. So where cores are short, it is for them alone that an encoder of
100,000 characters, 35 ms of work, and the event loop contend. The threads do nothing else: one that held the lock while
others have the core would hold up the loop all the same.
"""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import tokenizers

LONG_CHARACTERS = 16 * 2**10  # 5 ms of work
NICENESS = 5  # more than the loop's: a third of its share where both want one core. As what compiles grammars
_NICEST = 19


def give_way() -> None:
    """Have this thread give way to the loop's, as one that works on long texts."""
    own = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, own, min(os.getpriority(os.PRIO_PROCESS, own) + NICENESS, _NICEST))


# A long text need not wait for a huge one.
_threads = ThreadPoolExecutor(2, "encodes-long-texts", initializer=give_way)


class TooManyTokens(Exception):
    """A text has more tokens than were asked for; the message is how many."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__(num_tokens)
        self.num_tokens = num_tokens


def token_ids_of(
    inner: tokenizers.Tokenizer, text: str, *, add_special_tokens: bool = False, most: int | None = None
) -> list[int]:
    """Return the token ids of a text. Only the library's batch calls let go of the GIL, so that other threads run.

    Raises TooManyTokens for more than most: a list of millions of ints holds the lock for as long as it is made.
    """
    if len(text) < LONG_CHARACTERS:
        (encoding,) = inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    else:
        encode = _threads.submit(inner.encode_batch_fast, [text], add_special_tokens=add_special_tokens)
        (encoding,) = encode.result()
    if most is not None and len(encoding) > most:
        raise TooManyTokens(len(encoding))
    token_ids: list[int] = encoding.ids  # a list of its own: the library makes it here
    return token_ids
