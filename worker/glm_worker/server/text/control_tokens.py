"""Control tokens in what clients send, disarmed: the model reads them as text, so nobody forges a turn or a call.

Disarmed text has, after the first character of each token, one that no text of a request has: half of a surrogate pair.
Templates pass it through, the tokenizer takes it out (Tokenizer.encode_prompt).
"""

import re
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import Any

NO_THINKING = "/nothink"  # the switch that users write themselves
_DISARMED = "\udc00"
_WINDOW = 2**17  # characters: other threads run between two searches of a long text


def disarmer(
    tokens: Collection[str], *, keep: Collection[str] = (), normalized: Callable[[str], str] = str
) -> Callable[[str], str]:
    """Return what disarms these tokens in a text. Those to keep, and `/nothink`, stay what they are.

    normalized: what the tokenizer makes of a text before it looks for tokens. A text that has one only then is
    normalized here, to be taken apart.
    """
    rests_of: dict[str, list[str]] = {}
    for token in {form for each in tokens if each not in {NO_THINKING, *keep} for form in (each, normalized(each))}:
        if len(token) > 1:  # one character cannot be taken apart
            rests_of.setdefault(token[0], []).append(re.escape(token[1:]))
    if not rests_of:
        return lambda text: text
    longest = max(len(rest) for rests in rests_of.values() for rest in rests) + 1
    # Of a token that matches only the first character is taken, so that those that overlap are found as well.
    found = re.compile("|".join(f"{re.escape(first)}(?={'|'.join(rests)})" for first, rests in rests_of.items()))

    def disarm(text: str) -> str:
        as_read = normalized(text)
        if as_read != text and next(_matches(found, as_read, longest), None):
            text = as_read
        at = 0
        parts: list[str] = []
        for first in _matches(found, text, longest):
            parts += (text[at : first.end()], _DISARMED)
            at = first.end()
        return "".join((*parts, text[at:])) if parts else text

    return disarm


def _matches(found: re.Pattern[str], text: str, longest: int) -> Iterator[re.Match[str]]:
    """Yield the matches in a text. longest: characters of one, with what it looks ahead to.

    One search of megabytes would hold up all threads, for a search does not let go of the GIL.
    """
    begin = 0
    while begin < len(text):
        end = next_begin = begin + _WINDOW
        for match in found.finditer(text, begin, min(end + longest, len(text))):
            if match.start() >= end:
                break
            yield match
            next_begin = max(end, match.end())
        begin = next_begin


def without_switch(text: str) -> str:
    """Return a text with a `/nothink` at its end disarmed."""
    end = len(text.rstrip())
    at = end - len(NO_THINKING) + 1
    return f"{text[:at]}{_DISARMED}{text[at:]}" if text.endswith(NO_THINKING, 0, end) else text


def disarmed(value: Any, disarm: Callable[[str], str]) -> Any:
    """Return a JSON value with every text in it disarmed."""
    match value:
        case str():
            return disarm(value)
        case dict():
            return {disarm(key): disarmed(each, disarm) for key, each in value.items()}
        case list():
            return [disarmed(each, disarm) for each in value]
        case _:
            return value


def as_sent(text: str) -> str:
    """Return disarmed text as the client sent it."""
    return text.replace(_DISARMED, "")


def ascii_only(text: str) -> str:
    """Return JSON text in ASCII, as json.dumps writes it, but for what disarms."""
    return re.sub(rf"[^\x00-\x7f{_DISARMED}]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def runs(prompt: str, tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Cut a prompt into runs: the text, and whether it has none of these tokens, though it may look as if it had.

    Cuts only at tokens, where tokenizers cut as well.
    """
    if _DISARMED not in prompt:
        yield prompt, False
        return
    longest_first = sorted(tokens, key=len, reverse=True)
    found = re.compile("|".join(map(re.escape, longest_first)))
    at = 0
    parts: list[str] = []
    for token in _matches(found, prompt, len(longest_first[0])):
        parts += (prompt[at : token.start()], token[0])
        at = token.end()
    parts.append(prompt[at:])
    for is_plain, run in groupby(parts, lambda part: _DISARMED in part):
        yield as_sent("".join(run)), is_plain
