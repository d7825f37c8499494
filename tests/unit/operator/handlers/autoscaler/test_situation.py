"""What the cluster says of a deployment, read from the cache alone."""

from dataclasses import replace
from typing import Any

import pytest

from glm_operator.handlers.autoscaler.situation import Floors, gpus_per_group, groups_taken, serving, situation, targets
from glm_operator.layout import Floor
from glm_operator.observe.observed import Observed, Record, Seen
from unit.operator.operator_builders import a_body, a_group, a_pod, a_target, observed


def a_status(kind: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def a_seen(*groups: Any, status: dict[str, Any] | None = None, **spec: Any) -> Seen:
    return Seen({**a_body(**spec), "status": status or {}}, observed(*groups))


def test_groups_that_are_wanted_and_do_not_serve_are_starting() -> None:
    seen = a_seen(a_group(0), a_group(1, ready=False))
    found = situation(seen, spec_groups=4, gpus=8, namespace_gpus_left=None)
    assert (found.spec_groups, found.serving, found.starting, found.gpus_per_group) == (4, 1, 3, 8)


def test_a_group_that_goes_serves_nobody_and_starts_nothing() -> None:
    seen = a_seen(a_group(0), a_group(1), a_group(2, leaving="scaled down"))
    assert serving(seen.observed) == {"chat-g0", "chat-g1"}
    assert situation(seen, 2, 0, None).starting == 0


def test_only_groups_with_an_address_are_asked_and_those_that_start_are_not_missed() -> None:
    nowhere = replace(a_group(2), pods=(a_pod("chat-g2", ip=None),))
    found = targets(observed(a_group(0), a_group(1, ready=False), nowhere))
    assert [(each.group, each.url, each.serves) for each in found] == [
        ("chat-g0", "http://10.0.0.1:9090/metrics", True),
        ("chat-g1", "http://10.0.0.1:9090/metrics", False),
    ]


@pytest.mark.parametrize(("reason", "is_moving"), [("RollingOut", True), ("RolloutStuck", True), ("Settled", False)])
def test_a_rollout_is_seen_in_the_status(reason: str, is_moving: bool) -> None:
    assert situation(a_seen(a_group(0), status=a_status("Progressing", reason)), 1, 0, None).is_moving is is_moving


def test_while_a_quota_refuses_pods_no_more_groups_are_asked_for() -> None:
    full = a_status("GroupsReady", "WriteDenied", 'pods "x" is forbidden: exceeded quota: q, requested: pods=1')
    assert situation(a_seen(a_group(0), status=full), 3, 0, None).quota_groups == 3
    denied = a_status("GroupsReady", "WriteDenied", "admission webhook said no")
    assert situation(a_seen(a_group(0), status=denied), 3, 0, None).quota_groups is None


def test_gpus_of_a_group_are_those_of_the_newest_spec_or_of_the_last_that_was_accepted() -> None:
    gpu = {"resourceName": "nvidia.com/gpu", "perNode": 8}
    on_gpus = a_body(hardware={"device": "cuda", "gpu": gpu})
    assert gpus_per_group(a_body()) == 0
    assert gpus_per_group(on_gpus) == 2
    assert gpus_per_group({**on_gpus, "spec": {"nonsense": 1}, "status": {"plan": {"gpusPerGroup": 16}}}) == 16


def test_a_floor_is_told_with_the_hardware_it_is_of() -> None:
    found = situation(a_seen(a_group(0)), 1, 4, None, Floor(0.002, 0.003, "4 x H100 SXM in bf16"))
    assert found.floor_s == {"itl": 0.002, "ttft": 0.003, "ttfa": 0.003, "e2e": 0.003}
    assert found.floor_on == "4 x H100 SXM in bf16"
    assert dict(situation(a_seen(a_group(0)), 1, 4, None).floor_s) == {}


def on(product: str) -> dict[str, Any]:
    return {
        "model": {"name": "GLM-4.5-Air", "source": "pvc://models/air"},
        "hardware": {"device": "cuda", "gpu": {"perNode": 8}, "nodeSelector": {"nvidia.com/gpu.product": product}},
        "parallelism": {"tensor": 4, "expert": 4},
    }


def accepted(number: int, **spec: Any) -> Record:
    target = a_target(**spec)
    template = target.templates[target.revision]
    return Record(f"r{number}", number, target.spec, target.revision, replicas=1, template=template)


def test_the_floor_is_that_of_the_spec_accepted_last() -> None:
    body, first, second = (
        a_body(**on("NVIDIA-B200")),
        accepted(1, **on("NVIDIA-H200")),
        accepted(2, **on("NVIDIA-B200")),
    )
    floors = Floors()
    refused = floors.of(Seen(body, Observed(records=(first,))))
    taken = floors.of(Seen(body, Observed(records=(first, second))))
    assert refused is not None
    assert taken is not None
    assert (refused.hardware, taken.hardware) == ("4 x H200 SXM in bf16", "4 x B200 in bf16")
    assert taken.step_s < refused.step_s


def test_without_a_record_or_with_one_of_unknown_hardware_there_is_no_floor() -> None:
    floors, body = Floors(), a_body(**on("NVIDIA-H200"))
    assert floors.of(Seen(body, Observed())) is None
    assert floors.of(Seen(body, Observed(records=(accepted(1, **on("NVIDIA-H900")),)))) is None
    assert floors.of(Seen(body, Observed(records=(accepted(2),)))) is None, "on CPUs"


def test_a_spec_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    floors, seen = Floors(), Seen(a_body(), Observed(records=(accepted(1, **on("NVIDIA-H200")),)))
    found = floors.of(seen)
    monkeypatch.setattr("glm_operator.rollout.records.restore", None)
    assert floors.of(seen) is found


def test_groups_that_still_drain_hold_their_hardware() -> None:
    assert groups_taken({**a_body(replicas=1), "status": {"replicas": 2}}) == 2
    assert groups_taken({**a_body(replicas=3), "status": {"replicas": 1}}) == 3
    assert groups_taken(a_body()) == 1
