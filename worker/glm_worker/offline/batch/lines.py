"""The lines of a batch: what is asked, read and checked. Pure but for reading the file."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Literal

import msgspec

from glm_edge.http.heads import MAX_BODY_BYTES
from glm_worker.errors import ConfigError

Url = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
MAX_LINE_BYTES = MAX_BODY_BYTES + 4096  # the rest of a line beside its body
MAX_MISTAKES = 20  # that are told
_NOT_WHOLE = ("stream", "background")
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BatchLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request. body: its JSON as it stands in the file."""

    custom_id: str
    method: Literal["POST"]
    url: Url
    body: msgspec.Raw

    @property
    def key(self) -> bytes:
        return key_of(self.custom_id)


class _Body(msgspec.Struct):
    """What of a body decides whether a batch can have it."""

    stream: bool | None = None
    background: bool | None = None


@dataclass(frozen=True)
class Summary:
    """num_requests: in the file. keys: of all custom_ids."""

    num_requests: int
    keys: frozenset[bytes]


_line = msgspec.json.Decoder(BatchLine)
_body = msgspec.json.Decoder(_Body)


def key_of(custom_id: str) -> bytes:
    """Return what stands for a custom_id: 16 bytes, whatever its length, for there may be millions."""
    return blake2b(custom_id.encode(errors="surrogatepass"), digest_size=16).digest()


def read_lines(path: Path) -> Iterator[BatchLine]:
    """Yield the requests of a file that was checked. Empty lines have none. Raises ConfigError if it is another now."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield _line.decode(line)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} has changed since it was checked: {error}") from error


def checked(path: Path) -> Summary:
    """Read the whole file, before anything is computed. Raises ConfigError, naming each line that is no request.

    It must be a regular file, for it is read again: from a pipe nothing would come then.
    """
    numbers: dict[bytes, int] = {}
    mistakes: list[str] = []
    num_mistakes = 0
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path} is no regular file; requests are read twice, so write them to one first")
        with path.open("rb") as file:
            for number, line in enumerate(_bounded(file), 1):
                if not line.strip():
                    continue
                mistake = _mistake(line, number, numbers)
                if mistake is not None:
                    num_mistakes += 1
                    if num_mistakes <= MAX_MISTAKES:
                        mistakes.append(f"{path}, line {number}: {mistake}")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if num_mistakes > MAX_MISTAKES:
        mistakes.append(f"and {num_mistakes - MAX_MISTAKES} more lines")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    if not numbers:
        raise ConfigError(f"{path} has no requests; one a line is needed")
    return Summary(len(numbers), frozenset(numbers))


def _mistake(line: bytes, number: int, numbers: dict[bytes, int]) -> str | None:
    """Return what is wrong with a line, and note its custom_id."""
    if len(line) > MAX_LINE_BYTES:
        return f"it is longer than {MAX_LINE_BYTES} bytes, the most of a request"
    if line.startswith(_MARKS):
        return "it begins with a byte order mark; the file must be UTF-8 without one"
    try:
        request = _line.decode(line)
        body = _body.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"it is no request: {error}"
    if not request.custom_id:
        return "custom_id is empty; answers are found by it"
    for name in _NOT_WHOLE:
        if getattr(body, name):
            return f"{name} is true; a batch has whole answers"
    before = numbers.setdefault(request.key, number)
    if before != number:
        return f"custom_id {request.custom_id[:64]!r} is that of line {before} as well; each must be its own"
    return None


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long no more than tells so, and the rest is skipped."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)
