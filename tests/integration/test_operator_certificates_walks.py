"""Whatever is switched, edited, adopted and undone in whatever order: whoever is asked, answers what it is asked by."""

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glm_operator import names
from integration.certificates_world import a_body, pod_spec, replace_gateway, speaks_tls, volumes
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Rig, a_rig, set_spec
from integration.test_operator_gateway import TO_GROUPS, selector
from long_form import short_of

STEPS = 20
LIMITS = (4, 8, 16)

Step = Callable[[Rig, random.Random], Awaitable[None]]


def limited(max_num_seqs: int) -> dict[str, Any]:
    return {"limits": {"maxNumSeqs": max_num_seqs}}


def ask_for(rig: Rig, revision: str) -> None:
    def change(body: dict[str, Any]) -> None:
        body["metadata"].setdefault("annotations", {})[names.ADOPT_ANNOTATION] = revision

    rig.fake.edit("glmdeployments", "chat", change)


async def switch_gateway(rig: Rig, _: random.Random) -> None:
    spec = rig.fake.get("glmdeployments", "chat")["spec"]
    set_spec(rig, gateway={"enabled": not (spec.get("gateway") or {}).get("enabled", True)})


async def switch_certificates(rig: Rig, _: random.Random) -> None:
    await rig.end()
    rig.certificates = not rig.certificates


async def edit(rig: Rig, chance: random.Random) -> None:
    set_spec(rig, engine=limited(chance.choice(LIMITS)))


async def adopt(rig: Rig, _: random.Random) -> None:
    newer = rig.fake.get("glmdeployments", "chat")["status"].get("newerRevision")
    if newer is not None:
        ask_for(rig, newer)


async def undo(rig: Rig, chance: random.Random) -> None:
    record = rig.fake.get("controllerrevisions", chance.choice(rig.fake.names("controllerrevisions")))
    ask_for(rig, record["metadata"]["labels"][names.REVISION_LABEL])
    set_spec(rig, engine=limited(record["data"]["spec"]["engine"]["limits"]["maxNumSeqs"]))


WALKED: tuple[Step, ...] = (switch_gateway, switch_certificates, edit, adopt, adopt, undo, undo)


def assert_can_be_asked(rig: Rig, trail: list[str]) -> None:
    with_tls = [group for group in rig.fake.names("statefulsets") if speaks_tls(rig, group)]
    if selector(rig) == TO_GROUPS:
        assert with_tls == [], f"clients are led to groups that refuse them, after {trail}"
        return
    assert rig.fake.get("deployments", "chat-gateway")["spec"]["replicas"] > 0, f"nobody is there, after {trail}"
    has_certificate = "workers" in volumes(pod_spec(rig, "deployments", "chat-gateway"))
    assert has_certificate or not with_tls, f"the gateway cannot ask {with_tls}, after {trail}"


async def settle(rig: Rig, trail: list[str]) -> None:
    """Settle; where pods of the gateway are to be made anew, before and after that."""
    await rig.settle()
    assert_can_be_asked(rig, trail)
    pods = [name for name in rig.fake.names("pods") if name == "chat-gateway-0x"]
    wanted = pod_spec(rig, "deployments", "chat-gateway")["volumes"] if pods else []
    if any(rig.fake.get("pods", name)["spec"]["volumes"] != wanted for name in pods):
        replace_gateway(rig)
        await rig.settle()
        assert_can_be_asked(rig, trail)


@pytest.mark.parametrize("seed", short_of(range(8), 2))
async def test_groups_are_asked_by_what_they_speak_whatever_is_switched_and_undone(seed: int) -> None:
    chance = random.Random(seed)

    def prepare(fake: FakeKubernetes) -> None:
        adopts = chance.choice(["Manual", "Automatic"])
        fake.put("glmdeployments", a_body(replicas=2, engine=limited(64), rollout={"adopt": adopts}))

    async with a_rig(prepare) as rig:
        rig.certificates, rig.now = chance.random() < 0.5, datetime.now(UTC)
        trail: list[str] = []
        await settle(rig, trail)
        for _ in range(STEPS):
            step = chance.choice(WALKED)
            trail.append(step.__name__)
            await step(rig, chance)
            if chance.random() < 0.2:  # the next step comes in the middle of this one
                await rig.run_pass()
                rig.fake.step()
            else:
                await settle(rig, trail)
            rig.now += timedelta(minutes=chance.choice([0, 1, 11]))
        await settle(rig, trail)
        writes = rig.writes
        for _ in range(3):
            await rig.run_pass()
        assert rig.writes == writes, f"it writes on and on, after {trail}"
