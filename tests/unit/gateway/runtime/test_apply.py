"""What the file says of names, promises and overload holds from the next request on, and again when it changes."""

import json
from typing import Any

import pytest

from glm_gateway.access.decide import Mode
from glm_gateway.admission.gate import Gate
from glm_gateway.app import Gateway
from glm_gateway.config.file import config_in
from glm_gateway.groups.directory import Directory
from glm_gateway.ladder.ladder import Rung
from glm_gateway.models.model import Model
from glm_gateway.runtime.apply import apply

FAR = {"name": "far", "url": "https://api.example.com/v1", "model": "m"}
SLO = {"classes": [{"name": "all", "thresholds_s": {"ttft": 1.0}}]}
ALIAS = {"name": "chat", "arms": [{"to": "near"}]}


def config(model: dict[str, Any] | None = None, **fields: Any) -> Any:
    models = [{"name": "near", "groups": {"file": "/g"}, **(model or {})}]
    return config_in(json.dumps({"auth": {"mode": "None"}, "models": models, **fields}))


@pytest.fixture
async def gateway() -> Gateway:
    return Gateway({"near": Model("near", Directory())}, "token", Gate(mode=Mode.NONE, tenant_secret=b"0" * 16))


async def test_names_come_and_go(gateway: Gateway) -> None:
    apply(config(names=[ALIAS]), gateway)
    assert gateway.names.known == {"near", "chat"}
    assert gateway.names.target("chat", "k", "/v1/responses") is gateway.models["near"]
    apply(config(), gateway)
    assert gateway.names.known == {"near"}


async def test_an_upstream_that_stays_as_it_was_keeps_what_is_known_of_it(gateway: Gateway) -> None:
    overflow = {"overflow": {"upstream": "far", "afterSeconds": 2}}
    apply(config(overflow, upstreams=[FAR]), gateway)
    far = gateway.names.upstreams["far"]
    assert gateway.models["near"].overflow is not None
    assert (gateway.models["near"].overflow.upstream, gateway.models["near"].overflow.after_s) == (far, 2)
    assert (
        b'glm_gateway_requests_total{api="openai",model="far",outcome="failed"} 0.0' in gateway.telemetry.exposition()
    )
    apply(config(overflow, upstreams=[FAR], names=[ALIAS]), gateway)
    assert gateway.names.upstreams["far"] is far
    apply(config(overflow, upstreams=[{**FAR, "model": "other"}]), gateway)
    assert gateway.models["near"].overflow.upstream is gateway.names.upstreams["far"] is not far
    apply(config(), gateway)
    assert gateway.models["near"].overflow is None
    assert not gateway.names.upstreams


async def test_promises_priorities_and_steps_change(gateway: Gateway) -> None:
    model = gateway.models["near"]
    apply(config({"slo": SLO}, priorities=[{"name": "batch", "priority": 5, "keyGroups": ["jobs"]}]), gateway)
    assert model.slo is not None
    assert gateway.priorities.of_group("jobs").priority == 5
    assert model.overload.num_shed == {"default": 0, "batch": 0}
    model.overload.ladder.rung = Rung.SHED
    apply(config({"slo": SLO}, overload={"shed": 9.0}), gateway)
    assert model.overload.ladder.steps.shed == 9.0
    assert model.overload.rung is Rung.SHED  # left in its time
    assert gateway.priorities.of_group("jobs").priority == 0
    apply(config({"slo": SLO}, overload={"enabled": False}), gateway)
    model.look()
    assert model.overload.rung is Rung.NONE


async def test_traces_are_kept_while_the_file_says_so(gateway: Gateway) -> None:
    apply(config(trace={"enabled": True, "maxRequests": 3}), gateway)
    kept = gateway.traces
    assert kept is not None
    apply(config(trace={"enabled": True, "maxRequests": 4}), gateway)
    assert gateway.traces is gateway.pages.traces is kept
    assert kept.config.max_requests == 4
    apply(config(), gateway)
    assert gateway.traces is gateway.pages.traces is None
