"""One settled request, as it is written down: who, which model, how much. Never what was said."""

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from glm_gateway.limits.tokens import Usage

_DAY_S = 86_400


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """id: of this gateway's own making, never used twice. at: of its end, seconds since 1970. key: its name.

    cost: in PICO. outcome: finished, cancelled, failed or refused. ttft_s: to the first byte of an answer.
    is_partial: its gateway died; this is what it had used a second before at most, and any other entry of it counts
    instead. lease: the id of what was reserved for it then, in a store that replicas share.
    """

    id: str
    at: float
    key: str
    model: str
    api: str
    outcome: str
    group_of_keys: str = ""
    prompt: int = 0
    cached: int = 0
    answer: int = 0
    thinking: int = 0
    cost: int = 0
    ttft_s: float | None = None
    e2e_s: float = 0.0
    num_continued: int = 0
    is_partial: bool = False
    lease: str = ""

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt, self.cached, self.answer, self.thinking)

    @property
    def day(self) -> str:
        """The day of its end in UTC, as in 2026-11-29."""
        return _day(int(self.at // _DAY_S))


@lru_cache(maxsize=512)  # asked for several times an entry, of millions of them at a start
def _day(number: int) -> str:
    return f"{datetime.fromtimestamp(number * _DAY_S, UTC):%Y-%m-%d}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def line_of(entry: Entry) -> bytes:
    """Return an entry as a line of JSON."""
    return _encode(entry) + b"\n"


def entry_in(line: bytes) -> Entry | None:
    """Return the entry in a line; None: it is torn, as the last one is when a machine dies, or is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
