"""How a stream of /v1/responses ends that cannot go on: as its workers end one, an `error` and `response.failed`.

Both have numbers that follow those of the events before, and the second one the response as it was when it began. Both
are known from what the client was told, and looked for only when they are needed. Where no response has begun there is
no second one, and the first has the error as clients of chats know it as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from glm_edge.errors import openai
from glm_edge.errors.failure import Failure
from glm_gateway.surfaces.words import Words

Json = dict[str, Any]

PATH = "/v1/responses"

_CREATED, _NUMBER = b"response.created", "sequence_number"
_NUMBER_SIGN, _END = _NUMBER.encode(), b"\n\n"
_encode = msgspec.json.encode


@dataclass
class ResponseWords:
    """What is told of one stream, in any pieces. words: of what is no stream."""

    words: Words
    _created: bytes = b""
    _last: bytes = b""  # what came last of whole events with numbers
    _torn: bytes = b""  # the beginning of an event

    def body(self, failure: Failure) -> tuple[int, bytes]:
        return self.words.body(failure)

    def hear(self, told: bytes) -> None:
        """Remember what the client was told."""
        if self._torn or not told.endswith(_END):  # of a worker without frames
            told = self._torn + told
            end = told.rfind(_END) + len(_END) if _END in told else 0
            told, self._torn = told[:end], told[end:]
        if not self._created and _CREATED in told:
            self._created = told
        if _NUMBER_SIGN in told:  # comments have none, and may come with events
            self._last = told

    def event(self, failure: Failure) -> bytes:
        """Return the last events of a stream that cannot go on."""
        number = max((_number(event) for event in _events(self._last)), default=-1) + 1
        error: Json = {"type": "error", "code": failure.code or failure.type, "message": failure.message}
        ends = [{**error, "param": failure.param, _NUMBER: number}]
        response = self._response()
        if response is None:  # clients raise what has an error in it, and nothing else tells them that all is over
            ends[0] |= openai.error_body(failure)
        else:
            code = "invalid_prompt" if failure.status < 500 else "server_error"
            failed = {**response, "status": "failed", "error": {"code": code, "message": failure.message}}
            ends.append({"type": "response.failed", "response": failed, _NUMBER: number + 1})
        return b"".join(b"event: %s\ndata: %s\n\n" % (end["type"].encode(), _encode(end)) for end in ends)

    def _response(self) -> Json | None:
        """Return the response as it began; None: the client knows of none."""
        for event in _events(self._created):
            response = event.get("response")
            if event.get("type") == _CREATED.decode() and isinstance(response, dict):
                return response
        return None


def _events(told: bytes) -> Iterator[Json]:
    for line in told.splitlines():
        if line.startswith(b"data: {"):
            try:
                event = msgspec.json.decode(line[6:])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def _number(event: Json) -> int:
    number = event.get(_NUMBER)
    return number if isinstance(number, int) else -1
