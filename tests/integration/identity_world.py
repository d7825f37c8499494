"""An OIDC issuer and a judge of callers, small and real: HTTP servers of this process."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from integration.free_ports import free_port

Json = dict[str, Any]
Answer = tuple[int, Any]


@dataclass
class SmallServer:
    """Answers each request by `answer(method, path, body)` with a status and a JSON value; keeps what it was asked."""

    answer: Callable[[str, str, Json], Answer]
    port: int = field(default_factory=free_port)
    asked: list[tuple[str, str, Json]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    def __post_init__(self) -> None:
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            method, path, _ = head[0].split(" ")
            said: Json = json.loads(body) if body else {}
            self.asked.append((method, path, said))
            await self.may_answer.wait()
            status, value = self.answer(method, path, said)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(data)) + data
            )
            await writer.drain()
        writer.close()


class OidcIssuer(SmallServer):
    """keys: by kid, of which all are published."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.keys = {"k1": new_key()}
        self.fields: Json = {}  # of its own description, instead of what is true
        self.breaks: Answer | None = None

    def _answer(self, method: str, path: str, body: Json) -> Answer:
        if self.breaks is not None:
            return self.breaks
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.fields}
        if path == "/keys":
            return 200, {"keys": [public(kid, key) for kid, key in self.keys.items()]}
        return 404, {}

    @property
    def num_fetched(self) -> int:
        return sum(path == "/keys" for _, path, _ in self.asked)

    def token(self, kid: str = "k1", key: Any = None, **fields: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": "glm", "exp": now + 60, "sub": "me@example.com", **fields}
        return jwt.encode(claims, key or self.keys[kid], algorithm="RS256", headers={"kid": kid})


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(kid: str, key: rsa.RSAPrivateKey) -> Json:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}


def _number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode().rstrip("=")


@contextlib.asynccontextmanager
async def running(server: SmallServer) -> AsyncIterator[SmallServer]:
    await server.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        await server.stop()
