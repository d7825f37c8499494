"""Errors of the gateway in the words of the API that a client speaks."""

import json
from dataclasses import dataclass
from typing import Any

from glm_edge.errors import anthropic, openai, zai
from glm_edge.errors.failure import Failure
from glm_gateway.surfaces.routes import Api


@dataclass(frozen=True)
class Words:
    """request_id: told where an API has a place for it."""

    api: Api
    request_id: str

    @property
    def id_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that tell the id of a request. Anthropic's clients look for their own."""
        names = (b"x-request-id", b"request-id") if self.api is Api.ANTHROPIC else (b"x-request-id",)
        return [(name, self.request_id.encode()) for name in names]

    def body(self, failure: Failure) -> tuple[int, bytes]:
        """Return status and JSON of a reply that is an error."""
        if self.api is Api.ANTHROPIC:
            return anthropic.status_of(failure), _json(anthropic.error_body(failure, self.request_id))
        return failure.status, _json(self._object(failure))

    def hear(self, told: bytes) -> None:
        """Nothing that a stream has told changes how it ends."""

    def event(self, failure: Failure) -> bytes:
        """Return the last event of a stream that cannot go on."""
        if self.api is Api.ANTHROPIC:
            return b"event: error\ndata: " + _json(anthropic.error_body(failure)) + b"\n\n"
        return b"data: " + _json(self._object(failure)) + b"\n\n"

    def _object(self, failure: Failure) -> dict[str, Any]:
        return zai.error_body(failure) if self.api is Api.ZAI else openai.error_body(failure)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
