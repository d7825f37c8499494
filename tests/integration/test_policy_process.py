"""A policy put to a running group: the real supervisor and its management port, and what its servers are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from glm_operator.api.policy import Policy
from glm_operator.observe.report import policy_digest
from integration.pods import LIMIT_S, Group, PodProcess, eventually, running_group

TOKEN = "s3cret"
IDENTITY = {"namespace": "models", "deployment": "chat", "group": "chat-g0", "revision": "abc"}
FAKES = {"rank_target": "integration.fake_ranks:rest", "server_target": "integration.fake_server:notes_words"}
HIDDEN: dict[str, Any] = {"reasoning": {"visibility": "Hidden", "effortTokens": {"low": 64}}}
VISIBLE: dict[str, Any] = {"reasoning": {"visibility": "Visible", "autoThreshold": 0.7}}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(tmp_path_factory.mktemp("group"), management_token=TOKEN, **FAKES, **IDENTITY) as group:
        group.serving()
        yield group


def put(pod: PodProcess, content: Any, token: str = TOKEN) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.put(f"http://{pod.host}:9090/policy", json=content, headers=headers, timeout=10.0)


def tell(group: Group, spec: dict[str, Any]) -> str:
    """Put what the operator puts for this spec; return its digest."""
    body = Policy.model_validate(spec).for_workers()
    response = put(group.leader, body)
    assert (response.status_code, response.json()) == (200, {"digest": policy_digest(body)})
    return str(response.json()["digest"])


def words(group: Group) -> list[str]:
    """Return what the server that runs was told, in order; questions left out."""
    file = group.run_dir / f"words-{group.leader.child('server').pid}"
    said = file.read_text().splitlines() if file.exists() else []
    return [each for each in said if not each.endswith("Request")]


def policies(group: Group) -> list[str]:
    return [each for each in words(group) if each.startswith("SetPolicy")]


def test_a_group_that_was_never_told_has_no_digest_and_its_server_the_defaults(tmp_path: Path) -> None:
    with running_group(tmp_path, management_token=TOKEN, **FAKES, **IDENTITY) as group:
        assert group.serving()["policy_digest"] is None
        assert words(group)[0] == "SetPolicy visible"


def test_a_policy_reaches_the_server_that_runs_and_ends_nothing(group: Group) -> None:
    generation = group.serving()["generation"]
    digest = tell(group, HIDDEN)
    eventually(lambda: policies(group)[-1] == "SetPolicy hidden")
    tell(group, VISIBLE)
    eventually(lambda: policies(group)[-1] == "SetPolicy visible")
    assert tell(group, HIDDEN) == digest == group.leader.group()["policy_digest"]
    assert group.serving()["generation"] == generation


def test_who_lacks_the_token_or_sends_nonsense_changes_nothing(group: Group) -> None:
    digest, before = tell(group, HIDDEN), len(policies(group))
    assert put(group.leader, Policy().for_workers(), token="wrong").status_code == 401
    refused = put(group.leader, {"reasoning": {"visibility": "hidden", "visible_to": ["dev"]}})
    sentence = "reasoning.visible_to names roles and reasoning.visibility is hidden; it must be by_role"
    assert (refused.status_code, refused.text) == (422, sentence + "\n")
    assert group.leader.group()["policy_digest"] == digest
    assert set(policies(group)[before:]) <= {"SetPolicy hidden"}


def test_a_server_that_starts_again_has_the_policy_before_anything_else(group: Group) -> None:
    digest = tell(group, HIDDEN)
    group.serving()
    server = group.leader.child("server")
    server.kill()
    assert group.served_again(server)["policy_digest"] == digest
    assert words(group)[0] == "SetPolicy hidden"
    assert policies(group) == ["SetPolicy hidden"]


def test_a_supervisor_that_starts_again_in_its_pod_has_the_policy(group: Group) -> None:
    digest = tell(group, HIDDEN)
    before = group.serving()["generation"]
    assert group.leader.stop() == 0
    group.leader.start()
    assert group.serving(after=before)["policy_digest"] == digest
    assert policies(group) == ["SetPolicy hidden"]


def test_settings_hold_until_another_policy_is_put(tmp_path: Path) -> None:
    said = {"reasoning_visibility": "hidden", "reasoning_effort_tokens": "low=64"}
    with running_group(tmp_path, management_token=TOKEN, **FAKES, **IDENTITY, **said) as group:
        report = group.serving()
        assert report["policy_digest"] == policy_digest(Policy.model_validate(HIDDEN).for_workers())
        assert policies(group) == ["SetPolicy hidden"]
        tell(group, {})
        eventually(lambda: policies(group)[-1] == "SetPolicy visible")


def test_settings_that_cannot_be_end_the_pod_at_once_with_the_name(tmp_path: Path) -> None:
    with running_group(tmp_path, reasoning_visible_to="dev", **FAKES) as group:
        assert group.leader.process.wait(60) == 78
        assert "GLM_REASONING_VISIBLE_TO names roles and GLM_REASONING_VISIBILITY" in group.leader.log.read_text()


def test_a_pod_that_follows_takes_no_policy(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, management_token=TOKEN, **FAKES, **IDENTITY) as group:
        group.serving()
        response = put(group.pods[1], Policy().for_workers())
        sentence = f"a policy is put to the leading pod, {group.leader.host}; this is pod 1"
        assert (response.status_code, response.text) == (404, sentence + "\n")


def thinking(group: Group) -> str:
    """Return how a chat that says nothing of thinking is answered, and who decided."""
    request = {"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    url = f"http://{group.leader.host}:8000/v1/chat/completions"
    response = httpx.post(url, json=request, timeout=LIMIT_S)
    assert response.status_code == 200, response.text
    mode, by, *_ = response.headers["x-glm-thinking"].split("; ")
    return f"{mode} {by}"


def test_the_real_server_answers_by_the_policy_at_once_and_after_it_was_killed(tmp_path: Path) -> None:
    real = {"rank_target": "integration.fake_ranks:answer", "management_token": TOKEN}
    with running_group(tmp_path, **real, **IDENTITY) as group:
        before = group.serving()["generation"]
        assert thinking(group).endswith("by=template")
        for mode, said in (("Enabled", "enabled by=policy"), ("Disabled", "disabled by=policy")):
            tell(group, {"reasoning": {"default": mode}})
            eventually(lambda said=said: thinking(group) == said)  # type: ignore[misc]
        assert group.leader.group()["generation"] == before
        server = group.leader.child("server")
        server.kill()
        group.served_again(server)
        assert thinking(group) == "disabled by=policy", "the first answer of the new server is by it"


def readiness(group: Group) -> tuple[int, str]:
    response = group.leader.get("/readyz")
    return response.status_code, response.text.strip()


def test_a_group_says_which_of_its_variables_are_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a later version, which an operator of that version renders."""
    monkeypatch.setenv("GLM_DTIPE", "float32")
    with running_group(tmp_path, **FAKES, **IDENTITY) as group:
        assert "GLM_DTIPE" in group.serving()["unknown_settings"]
        assert "GLM_DTIPE is no setting of this worker" in group.leader.log.read_text()


def test_a_group_that_waits_for_its_policy_is_not_ready_before_and_at_once_then(tmp_path: Path) -> None:
    with running_group(tmp_path, management_token=TOKEN, awaits_policy=True, **FAKES, **IDENTITY) as group:
        report = group.serving()
        assert readiness(group) == (503, "serving, not ready: its policy has not been put yet")
        assert (report["policy_digest"], report["awaits_policy"]) == (None, True)
        assert policies(group) == ["SetPolicy hidden"]
        digest = tell(group, {})
        assert readiness(group) == (200, "serving")
        report = group.leader.group()
        assert (report["policy_digest"], report["awaits_policy"]) == (digest, False)
        eventually(lambda: policies(group)[-1] == "SetPolicy visible")
        before = report["generation"]
        assert group.leader.stop() == 0
        group.leader.start()
        assert group.serving(after=before)["awaits_policy"] is False, "the pod keeps it"
        assert (readiness(group), policies(group)) == ((200, "serving"), ["SetPolicy visible"])


@pytest.mark.long
def test_a_group_that_nobody_tells_is_ready_all_the_same_and_shows_reasoning_to_nobody(tmp_path: Path) -> None:
    with running_group(tmp_path, management_token=TOKEN, awaits_policy=True, **FAKES, **IDENTITY) as group:
        group.serving()
        eventually(lambda: readiness(group) == (200, "serving"))
        assert group.leader.group()["awaits_policy"] is True
        assert policies(group) == ["SetPolicy hidden"]
        eventually(lambda: "nobody has put a policy for 10 s" in group.leader.log.read_text())
        server = group.leader.child("server")
        server.kill()
        group.served_again(server)
        assert readiness(group) == (200, "serving"), "it waits once"
        assert policies(group) == ["SetPolicy hidden"]
