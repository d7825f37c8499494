"""The scale subresource, what a person changes, and metrics through the API server's proxy, as the clients use them."""

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from glm_operator.cli.rollout import what_undo_rests_on, what_was_asked_for
from glm_operator.cluster.user import UserKube
from glm_operator.errors import Conflict, Denied, Missing, Unavailable
from glm_operator.names import ADOPT_ANNOTATION
from integration.fake_kubernetes import Manifest
from integration.operator_rig import Rig, a_deployment_body, a_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(replicas=1))) as found:
        await found.run_pass()
        yield found


@pytest.fixture
async def person(rig: Rig) -> AsyncIterator[UserKube]:
    async with client.ApiClient(rig.configuration) as api:
        yield UserKube(api)


async def test_a_scale_sets_the_number_of_groups_and_answers_with_the_new_version(rig: Rig) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    version = await rig.kube.scale(body, 3)
    live = rig.fake.get("glmdeployments", "chat")
    assert (live["spec"]["replicas"], live["metadata"]["resourceVersion"]) == (3, version)
    assert rig.fake.writes[-1] == "PATCH glmdeployments/chat/scale"


async def test_a_scale_of_what_has_changed_meanwhile_is_a_conflict(rig: Rig) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    rig.fake.edit("glmdeployments", "chat", lambda found: found["spec"].update(replicas=5))
    with pytest.raises(Conflict):
        await rig.kube.scale(body, 3)
    assert rig.fake.get("glmdeployments", "chat")["spec"]["replicas"] == 5


async def test_a_scale_of_what_is_gone_says_so(rig: Rig) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    rig.fake.delete(("glmdeployments", "models", "chat"))
    with pytest.raises(Missing):
        await rig.kube.scale(body, 3)


PAUSE = {"spec": {"rollout": {"paused": True}}}


def edit_before_writes(rig: Rig, edits: list[Callable[[Manifest], None]]) -> None:
    """Let somebody be faster than each of the next writes, with these edits."""

    def edit(_: str) -> None:
        if edits:
            rig.fake.edit("glmdeployments", "chat", edits.pop(0))

    rig.fake.before_write = edit


async def test_a_change_goes_in_though_the_operator_writes_a_status_meanwhile(rig: Rig, person: UserKube) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    statuses = [lambda found, n=number: found.update(status={"ready": n}) for number in range(3)]  # type: ignore[misc]
    edit_before_writes(rig, [*statuses])
    await person.change(body, PAUSE, rests_on=what_was_asked_for)
    live = rig.fake.get("glmdeployments", "chat")
    assert live["spec"]["rollout"] == {**body["spec"].get("rollout", {}), "paused": True}
    assert (live["spec"]["replicas"], live["status"]) == (1, {"ready": 2})


@pytest.mark.parametrize("rests_on_spec", [False, True])
async def test_a_change_of_what_somebody_else_edited_goes_in_unless_it_rests_on_it(
    rig: Rig, person: UserKube, rests_on_spec: bool
) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    edit_before_writes(rig, [lambda found: found["spec"].update(replicas=5)])
    with pytest.raises(Conflict, match="nothing was done") if rests_on_spec else nullcontext():
        await person.change(body, PAUSE, **({"rests_on": what_was_asked_for} if rests_on_spec else {}))
    live = rig.fake.get("glmdeployments", "chat")["spec"]
    assert (live["replicas"], live.get("rollout", {}).get("paused", False)) == (5, not rests_on_spec)


@pytest.mark.parametrize(
    "status", [{"revision": "another"}, {"conditions": [{"type": "Planned", "status": "False", "reason": "x"}]}]
)
async def test_an_undo_is_refused_where_which_one_is_before_has_changed(
    rig: Rig, person: UserKube, status: Manifest
) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    edit_before_writes(rig, [lambda found: found["status"].update(status)])
    with pytest.raises(Conflict, match="nothing was done"):
        await person.change(body, PAUSE, rests_on=what_undo_rests_on)


async def test_an_adoption_is_refused_where_somebody_asked_for_another_revision_meanwhile(
    rig: Rig, person: UserKube
) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    edit_before_writes(rig, [lambda found: found["metadata"].update(annotations={ADOPT_ANNOTATION: "theirs"})])
    with pytest.raises(Conflict, match="nothing was done"):
        await person.change(
            body, {"metadata": {"annotations": {ADOPT_ANNOTATION: "ours"}}}, rests_on=what_was_asked_for
        )
    assert rig.fake.get("glmdeployments", "chat")["metadata"]["annotations"][ADOPT_ANNOTATION] == "theirs"


async def test_a_change_of_what_was_made_anew_under_its_name_is_a_conflict(rig: Rig, person: UserKube) -> None:
    body = rig.fake.get("glmdeployments", "chat")
    edit_before_writes(rig, [lambda found: found["metadata"].update(uid="another")])
    with pytest.raises(Conflict, match="nothing was done"):
        await person.change(body, PAUSE)
    assert "paused" not in rig.fake.get("glmdeployments", "chat")["spec"].get("rollout", {})


@pytest.mark.parametrize(("status", "error"), [(403, Denied), (404, Missing), (503, Unavailable)])
async def test_what_the_proxy_answers_is_one_of_our_errors(status: int, error: type[Exception]) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/models/pods/chat-g0-0:9090/proxy/metrics"
        body = {"kind": "Status", "message": "no", "code": status}
        return web.json_response(body, status=status)

    async with a_proxy(answer) as kube:
        with pytest.raises(error):
            await kube.pod_metrics("models", "chat-g0-0", timeout_s=5)


async def test_metrics_come_through_the_proxy_as_text() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text='glm_num_requests_running{group="chat-g0"} 3\n')

    async with a_proxy(answer) as kube:
        text = await kube.pod_metrics("models", "chat-g0-0", timeout_s=5)
    assert text == 'glm_num_requests_running{group="chat-g0"} 3\n'


class a_proxy:  # noqa: N801 - read as a phrase
    """An API server that answers every GET in one way, and a person's client of it."""

    def __init__(self, answer: object) -> None:
        app = web.Application()
        app.add_routes([web.get("/{path:.*}", answer)])  # type: ignore[arg-type]
        self._server = TestServer(app)

    async def __aenter__(self) -> UserKube:
        await self._server.start_server()
        configuration = client.Configuration()
        configuration.host = str(self._server.make_url("")).rstrip("/")
        self._api = client.ApiClient(configuration)
        return UserKube(self._api)

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()
        await self._server.close()
