"""Wherever the operator dies, and whatever the API server answers, the end is that of a run without faults."""

from collections.abc import Callable
from typing import Any

import pytest

from integration.fake_kubernetes import Refused
from integration.operator_rig import Rig, a_deployment_body, a_rig
from long_form import short_of

Story = Callable[[Rig], None]


def _edit(**spec: Any) -> Story:
    return lambda rig: rig.fake.edit("glmdeployments", "chat", lambda body: body["spec"].update(spec))


STORIES: dict[str, Story] = {
    "create": lambda rig: None,
    "edit": _edit(engine={"image": "worker:2"}),
    "scale up": _edit(replicas=3),
    "scale down": _edit(replicas=1),
    "scale down and edit": _edit(replicas=1, engine={"image": "worker:2"}),
    "bad edit": _edit(parallelism={"tensor": 1, "expert": 3}),
    "lost group": lambda rig: rig.fake.delete(("statefulsets", "models", "chat-g1")),
    "lost service": lambda rig: rig.fake.delete(("services", "models", "chat-ranks")),
}


async def tell(
    name: str, *, dies_after: int | None = None, fault: Refused | None = None, fails_at: int = 0
) -> tuple[dict[str, Any], int]:
    """Play a story to its end, with one fault in it; return the end and how many writes the story itself took."""
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(replicas=2))) as rig:
        if name != "create":
            await rig.settle()
        STORIES[name](rig)
        rig.writes, rig.dies_after = 0, dies_after
        attempts = [0]

        def fail_once(_: str) -> None:
            attempts[0] += 1
            if fault is not None and attempts[0] == fails_at:
                raise fault

        rig.fake.before_write = fail_once
        await rig.settle()
        return rig.end_state(), rig.writes


@pytest.mark.parametrize("name", short_of(STORIES, lambda name: name in ("create", "scale down and edit")))
async def test_an_operator_killed_after_any_write_is_continued_by_the_next(name: str) -> None:
    expected, num_writes = await tell(name)
    assert num_writes > 0
    for dies_after in range(1, num_writes + 1):
        ended, _ = await tell(name, dies_after=dies_after)
        assert ended == expected, f"killed after write {dies_after} of {num_writes}"


@pytest.mark.parametrize(
    "status", [403, *(pytest.param(code, marks=pytest.mark.long) for code in (409, 429, 500, 503))]
)
@pytest.mark.parametrize("name", short_of(["create", "scale down and edit"], 1))
async def test_a_write_that_fails_once_is_made_up_for(name: str, status: int) -> None:
    expected, num_writes = await tell(name)
    for fails_at in range(1, num_writes + 1):
        ended, _ = await tell(name, fault=Refused(status, "Fault"), fails_at=fails_at)
        assert ended == expected, f"{status} at write {fails_at} of {num_writes}"


async def test_a_story_told_in_steps_ends_like_the_last_step_alone() -> None:
    """The differential oracle: the way there leaves no trace."""
    last = {"replicas": 2, "engine": {"image": "worker:3", "limits": {"maxNumSeqs": 4}}}
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(**last))) as rig:
        await rig.settle()
        expected = rig.end_state()
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(replicas=3))) as rig:
        for step in ({"engine": {"image": "missing:1"}}, {"replicas": 0}, {"parallelism": {"expert": 4}}):
            _edit(**step)(rig)
            await rig.settle()
        _edit(**last, parallelism={"tensor": 1, "expert": 2})(rig)
        await rig.settle()
        assert rig.end_state() == expected
