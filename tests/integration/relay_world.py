"""Groups that do as a test says, the relay of one request to them, and its client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from glm_edge.errors.failure import Failure
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.proxy.client import Added
from glm_gateway.proxy.pool import Pool
from glm_gateway.proxy.relay.outgoing import Outgoing
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.routing.pick import Choice, Group, Request
from glm_gateway.routing.router import Router
from integration.scripted_groups import ScriptedGroup, serving

DEADLINE_S = 20.0
BODY = b'{"model": "m"}'
NO_GROUP = Failure(503, "no group", "service_unavailable", code="no_group", retry_after_s=9)


@dataclass
class Places:
    """The groups of a test in order of their names, placed by the router with nothing known of any prompt."""

    groups: list[ScriptedGroup]
    retries: int = 3
    router: Router = field(default_factory=Router)
    directory: Directory = field(default_factory=Directory)
    failed: list[tuple[str, str]] = field(default_factory=list)
    eased: Easing = NO_EASING
    late: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.ports = {each.name: each.port for each in self.groups}
        self._tell()

    def move(self, name: str, port: int) -> None:
        """Let a group be expected at another port."""
        self.ports[name] = port
        self._tell()

    def _tell(self) -> None:
        self.directory.replace([Member(Group(name=name), "127.0.0.1", port) for name, port in self.ports.items()])

    async def place(self, avoid: frozenset[str]) -> Choice | Failure:
        groups = sorted(self.directory.groups, key=lambda group: group.name)
        free = [group for group in groups if group.name not in avoid][:1] or groups[:1]
        request = Request(key="k", prompt_tokens=5, avoid=avoid)
        return self.router.route(request, free, asyncio.get_running_loop().time()) or NO_GROUP

    @property
    def easing(self) -> Easing:
        return self.eased

    def pool(self, group: str) -> Pool:
        return self.directory.pool(group)

    def told(self, group: str) -> Added:
        return []

    def answers_late(self, group: str) -> bool:
        return group in self.late

    def succeed(self, choice: Choice, prompt_tokens: int | None) -> None:
        self.router.succeed(choice, asyncio.get_running_loop().time(), prompt_tokens)

    def grow(self, choice: Choice, num_tokens: int) -> None:
        self.router.grow(choice, num_tokens, asyncio.get_running_loop().time())

    def fail(self, choice: Choice, reason: str) -> None:
        self.failed.append((choice.group, reason))
        self.router.fail(choice, asyncio.get_running_loop().time())

    def end(self, choice: Choice) -> None:
        self.router.end(choice)

    def may_retry(self) -> bool:
        self.retries -= 1
        return self.retries >= 0


class Words:
    """Errors in the words of this test."""

    def body(self, failure: Failure) -> tuple[int, bytes]:
        return failure.status, b'{"error": "%s"}' % (failure.code or "").encode()

    def hear(self, told: bytes) -> None: ...

    def event(self, failure: Failure) -> bytes:
        return b"data: error %s\n\n" % (failure.code or "").encode()


@dataclass
class Client:
    """What a client has read."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_over: bool = False
    got_some: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status, self.headers = message["status"], message["headers"]
        else:
            assert self.status
            assert not self.is_over
            self.body += message["body"]
            self.is_over = not message["more_body"]
            self.got_some.set()


@contextlib.asynccontextmanager
async def world(*groups: ScriptedGroup, **fields: Any) -> AsyncIterator[tuple[Relay, Client, Places]]:
    async with serving(*groups):
        places, client = (
            Places(list(groups), **({"retries": fields.pop("retries")} if "retries" in fields else {})),
            Client(),
        )
        outgoing = Outgoing(
            method="POST",
            target="/v1/chat/completions",
            headers=[(b"content-type", b"application/json")],
            body=BODY,
            added=[(b"x-glm-gateway", b"token")],
            streams=fields.pop("streams", True),
        )
        relay = Relay(outgoing, places, Words(), client.send, **fields)
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield relay, client, places
        finally:
            places.directory.close()
        places.router.book.check()
        assert places.router.book.num_charges == 0
