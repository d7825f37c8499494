"""What a group says of itself: a line of its GET /load. Pure."""

import msgspec

from glm_gateway.routing.book import Load

MAX_LINE_BYTES = 2**16


class BadLine(Exception):
    """A line that is no report."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """None: the group does not know it, or is of a version that does not say it. It is never 0.

    Fields of a later version are passed over.
    """

    ready: bool | None = None
    leaving: bool | None = None
    in_flight_tokens: int | None = None
    tokens_to_prefill: int | None = None
    oldest_waiting_s: float | None = None
    kv_usage: float | None = None
    kv_tokens: int | None = None
    max_running: int | None = None
    max_model_len: int | None = None
    num_running: int | None = None
    num_waiting: int | None = None
    prefill_tokens_per_s: float | None = None
    fingerprint: str | None = None
    model: str | None = None
    revision: str | None = None
    incarnation: str | None = None
    start_s: float | None = None

    @property
    def load(self) -> Load:
        return Load(
            in_flight_tokens=self.in_flight_tokens,
            tokens_to_prefill=self.tokens_to_prefill,
            oldest_wait_s=self.oldest_waiting_s,
            prefill_tokens_per_s=self.prefill_tokens_per_s,
            kv_tokens=self.kv_tokens,
        )


_decoder = msgspec.json.Decoder(Report)


class LineReader:
    """Takes a stream apart."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Report]:
        """Return the reports that are whole now. Raises BadLine for what is none, or does not end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise BadLine(f"a line has more than {MAX_LINE_BYTES} bytes")
        try:
            return [_decoder.decode(line) for line in lines if line]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadLine(str(error)) from error
