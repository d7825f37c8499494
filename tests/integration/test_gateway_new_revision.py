"""While groups of two revisions serve, the newest gets the part of the callers that was said, and each caller stays."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glm_gateway.access.keys import item_of, new_key
from integration.gateway_process import GatewayProcess, a_gateway_process, model_of, write_groups
from integration.scripted_groups import FRAMES_HEAD, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S

CALLERS = [f"caller-{number}" for number in range(60)]


def served_by(group: str) -> list[Any]:
    return [FRAMES_HEAD, opened(), said(group, 1), closed()]


def a_model(folder: Path, **canary: Any) -> dict[str, Any]:
    return model_of("chat", folder / "groups.json", deployment="air", **({"canary": canary} if canary else {}))


def write(folder: Path, *groups: ScriptedGroup) -> None:
    """Write the groups that there are: each is of the revision that it is called by."""
    path = folder / "groups.json"
    write_groups(path, {group.name: group.port for group in groups}, deployment="air")
    text = path.read_text()
    for group in groups:
        text = text.replace(f'"name": "{group.name}"', f'"name": "{group.name}", "revision": "{group.name}"')
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


@contextlib.asynccontextmanager
async def a_rollout(folder: Path, **canary: Any) -> AsyncIterator[tuple[GatewayProcess, ScriptedGroup, ScriptedGroup]]:
    """Run a gateway before a group of each revision, with a key for each caller."""
    (folder / "keys").mkdir()
    for caller in CALLERS:
        key = new_key(f"glm-{caller}", datetime.now(UTC), group=None, role=None, expires=None)
        (folder / "keys" / caller).write_bytes(item_of(key))
    old, new = (ScriptedGroup(name, [served_by(name)] * 10_000) for name in ("old", "new"))
    auth = {"mode": "Keys", "keysFolder": str(folder / "keys")}
    async with serving(old, new):
        write(folder, old, new)
        async with a_gateway_process(folder, auth=auth, models=[a_model(folder, **canary)]) as gateway:
            await gateway.until_state(lambda told: len(told["models"]["chat"]["groups"]) == 2)
            yield gateway, old, new


async def asked(gateway: GatewayProcess) -> dict[str, str]:
    """Let each caller ask once; return the revision that answered, by caller."""

    async def ask(caller: str) -> str:
        headers = {"authorization": f"Bearer glm-{caller}"}
        body = {"model": "chat", "prompt": caller, "stream": True}
        answer = await gateway.http.post(f"{gateway.url}/v1/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return "new" if "data: new" in answer.text else "old"

    return dict(zip(CALLERS, await asyncio.gather(*map(ask, CALLERS)), strict=True))


async def taken(gateway: GatewayProcess) -> None:
    digest = hashlib.sha256((gateway.folder / "gateway.json").read_bytes()).hexdigest()
    await gateway.until_state(lambda told: told["config_digest"] == digest and told["config_fault"] is None)


async def test_a_part_of_the_callers_goes_to_the_newest_revision_and_stays_there(tmp_path: Path) -> None:
    async with a_rollout(tmp_path, revision="new", weight=25) as (gateway, old, new):
        first = await asked(gateway)
        num_new = list(first.values()).count("new")
        assert 6 <= num_new <= 25, f"a quarter of {len(CALLERS)} is 15, and which callers these are is given by chance"
        assert await asked(gateway) == first
        assert (len(new.asked), len(old.asked)) == (2 * num_new, 2 * (len(CALLERS) - num_new))

        gateway.write(models=[a_model(tmp_path, revision="new", weight=60)])  # while it serves
        await taken(gateway)
        wider = await asked(gateway)
        assert {caller for caller in CALLERS if first[caller] == "new"} < {
            caller for caller in CALLERS if wider[caller] == "new"
        }

        gateway.write(models=[a_model(tmp_path, revision="new", weight=0)])
        await taken(gateway)
        assert set((await asked(gateway)).values()) == {"old"}


async def test_the_revision_that_is_left_answers_everybody(tmp_path: Path) -> None:
    async with a_rollout(tmp_path, revision="new", weight=0, mayFall=False) as (gateway, _, new):
        assert set((await asked(gateway)).values()) == {"old"}
        write(tmp_path, new)
        await gateway.until_state(lambda told: set(told["models"]["chat"]["groups"]) == {"new"})
        async with asyncio.timeout(DEADLINE_S):
            assert set((await asked(gateway)).values()) == {"new"}
