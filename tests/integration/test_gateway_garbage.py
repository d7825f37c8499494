"""What a request was made of is gone with it: nothing waits for the garbage collector, whose pauses hold streams up."""

import gc
from typing import Any

import httpx
import pytest

from glm_gateway.exchange.exchange import Exchange
from glm_gateway.proxy.relay.relay import Relay
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import FRAMES_HEAD, ScriptedGroup, closed, opened, said, serving

WHOLE = [FRAMES_HEAD, opened(), said("one", 1), closed()]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_request_that_is_over_leaves_no_garbage(streams: bool) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": streams}
    group = ScriptedGroup("g0", [WHOLE] * 6)
    async with (
        serving(group),
        a_gateway("m", [member("g0", group.port)]) as (url, _),
        httpx.AsyncClient(base_url=url, verify=NO_TLS) as client,
    ):
        await client.post("/v1/chat/completions", json=body)
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
            # Not isinstance: it asks objects for their __class__, and modules of others warn that they are old.
            left = [each for each in gc.get_objects() if type(each) in (Exchange, Relay)]
        finally:
            gc.enable()
    assert len(left) <= 2  # of the last one, which may not be quite over
