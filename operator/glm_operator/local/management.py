"""What a group's leading supervisor says of itself: GET /readyz and /group on its management port."""

from typing import Any

import httpx
import msgspec

from glm_operator import names

TIMEOUT_S = 5.0


class Load(msgspec.Struct, frozen=True):
    done_bytes: int = 0
    total_bytes: int = 0


class Cause(msgspec.Struct, frozen=True):
    rank: int | None = None
    pod: int | None = None
    reason: str = ""
    message: str | None = None


class Generation(msgspec.Struct, frozen=True):
    id: str
    cause: Cause | None = None


class GroupView(msgspec.Struct, frozen=True):
    """The fields of /group that local mode shows; the worker's others are passed over."""

    state: str
    generation: str | None = None
    load: Load = Load()
    consecutive_start_failures: int = 0
    deaths_while_serving: int = 0
    generations: list[Generation] = []

    @property
    def last_failure(self) -> str:
        """Why the last generation ended, in the worker's words; empty when none has."""
        causes = [generation.cause for generation in self.generations if generation.cause is not None]
        if not causes:
            return ""
        who = "" if causes[-1].rank is None else f"rank {causes[-1].rank} "
        return f"{who}{causes[-1].reason}: {causes[-1].message or 'no message'}"


class Management:
    """A client of management ports. Close it after use."""

    def __init__(self) -> None:
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)  # a proxy has no business on loopback

    def __enter__(self) -> "Management":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self, address: str) -> bool:
        response = self._get(address, "/readyz")
        return response is not None and response.status_code == httpx.codes.OK

    def group(self, address: str) -> GroupView | None:
        """What the group says; None while nobody answers."""
        response = self._get(address, "/group")
        if response is None or response.status_code != httpx.codes.OK:
            return None
        try:
            return msgspec.convert(response.json(), GroupView)
        except (ValueError, msgspec.ValidationError):
            return None  # not a worker's answer

    def _get(self, address: str, path: str) -> Any:
        try:
            return self._http.get(f"http://{address}:{names.MANAGEMENT_PORT}{path}")
        except httpx.TransportError:
            return None
