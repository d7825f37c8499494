"""The management port answers what it has, and refuses the rest with a sentence."""

import asyncio
import json
from typing import Any

import pytest

from glm_gateway.access.decide import Mode
from glm_gateway.admission.gate import Gate
from glm_gateway.app import Gateway
from glm_gateway.groups.directory import Directory
from glm_gateway.management import port
from glm_gateway.management.demand import Demands
from glm_gateway.management.port import Management
from glm_gateway.management.pulse import Pulse
from glm_gateway.management.standing import Standing
from glm_gateway.models.model import Model

DEADLINE_S = 10.0


def management() -> Management:
    model = Model("chat", Directory())
    gateway = Gateway({"chat": model}, "token", Gate(mode=Mode.NONE, tenant_secret=b"0" * 16))
    demands = Demands(lambda: [model], Pulse(), began_s=0.0)
    return Management(gateway, lambda: [model], demands, Standing("d"))


class Client:
    """Asks once. left: set it, and the client goes away."""

    def __init__(self, path: str, method: str = "GET", query: bytes = b"") -> None:
        self.scope = {"type": "http", "method": method, "path": path, "query_string": query}
        self.left = asyncio.Event()
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.told.put_nowait(message)

    async def ask(self, found: Management) -> tuple[int, str]:
        await found(self.scope, self.receive, self.send)
        head, body = self.told.get_nowait(), self.told.get_nowait()
        return head["status"], body["body"].decode()


@pytest.mark.parametrize("pause", ["often", "-1", "nan", "inf"])
async def test_a_pause_that_is_none_is_refused_and_named(pause: str) -> None:
    told = await Client("/demand", query=f"stream=1&least_s={pause}".encode()).ask(management())
    assert told == (400, f"least_s is '{pause}'; it is seconds, 0 or more\n")


@pytest.mark.parametrize(
    ("path", "method", "status", "sign"),
    [
        ("/livez", "GET", 200, "ok"),
        ("/readyz", "GET", 200, "ok"),
        ("/readyz", "HEAD", 200, ""),
        ("/metrics", "GET", 200, "# TYPE glm_gateway_config_is_current gauge"),
        ("/metrics", "GET", 200, "# TYPE glm_gateway_requests_cut_total counter"),
        ("/state", "GET", 200, '"config_digest": "d"'),
        ("/demand", "GET", 200, '"held":0'),
        ("/demand", "POST", 405, "allowed is GET"),
        ("/v1/models", "GET", 404, "there is /livez"),
        ("/\n", "GET", 404, "'/\\n' is not here"),
    ],
)
async def test_each_page_is_answered(path: str, method: str, status: int, sign: str) -> None:
    told, body = await Client(path, method).ask(management())
    assert told == status
    assert sign in body


async def test_it_is_not_ready_while_it_stops_and_while_it_is_full() -> None:
    found = management()
    found.full("all connections are taken")
    assert await Client("/readyz").ask(found) == (503, "all connections are taken\n")
    found.full(None)
    found.is_open = lambda: False
    assert await Client("/readyz").ask(found) == (503, "it starts: the port of clients is not open yet\n")
    found.is_open = lambda: True
    found.gateway.is_stopping = True
    assert await Client("/readyz").ask(found) == (503, "it stops: it serves what is under way (requests: 0)\n")
    assert (await Client("/livez").ask(found))[0] == 200


async def test_a_stream_goes_on_until_its_client_is_gone_and_there_are_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(port, "MAX_STREAMS", 1)
    found, client = management(), Client("/demand", query=b"stream=1")
    serving = asyncio.create_task(found(client.scope, client.receive, client.send))
    async with asyncio.timeout(DEADLINE_S):
        assert (await client.told.get())["status"] == 200
        line = await client.told.get()
        assert json.loads(line["body"])["models"]["chat"]["held"] == 0
        assert line["more_body"]
        status, body = await Client("/demand", query=b"stream=1").ask(found)
        assert (status, body) == (503, "1 streams of demand are open, which is what is allowed\n")
        client.left.set()
        await serving
    other = Client("/demand", query=b"stream=1")
    other.left.set()
    async with asyncio.timeout(DEADLINE_S):
        await found(other.scope, other.receive, other.send)
