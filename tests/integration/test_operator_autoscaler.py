"""The autoscaler with real passes: what it writes, what it tells, and when it keeps quiet."""

import asyncio
import random
from typing import Any

import pytest

from glm_operator.api.trouble import Trouble
from glm_operator.cluster.workers import NotTaken, PutRefused
from glm_operator.errors import Unavailable
from integration.autoscaler_world import NAME, SCALING, SLO, a_world
from integration.fake_kubernetes import Refused
from integration.operator_rig import a_deployment_body, uids

AWAY = Trouble("metrics", "MetricsUnreachable", "http://prometheus:9090 does not answer")
ON_GPUS: dict[str, Any] = {
    "hardware": {"device": "cuda", "gpu": {"resourceName": "nvidia.com/gpu", "perNode": 8}},
    "parallelism": {"tensor": 1, "expert": 2},
}


def air_on(product: str) -> dict[str, Any]:
    """Return the spec of GLM-4.5-Air on four GPUs of a product, with a promise that no H100 can keep."""
    gpu = {"resourceName": "nvidia.com/gpu", "perNode": 8}
    return {
        "model": {"name": "GLM-4.5-Air", "source": "pvc://models/GLM-4.5-Air"},
        "hardware": {"device": "cuda", "gpu": gpu, "nodeSelector": {"nvidia.com/gpu.product": product}},
        "parallelism": {"tensor": 4, "expert": 4},
        "slo": {"classes": [{"name": "chat", "itl": "1ms"}]},
    }


def scales(writes: list[str]) -> int:
    return sum(write.startswith("PATCH") and write.endswith("/scale") for write in writes)


async def test_a_burst_adds_groups_and_its_end_removes_them() -> None:
    async with a_world() as world:
        await world.run(60, requests_per_s=1)
        assert world.replicas == 1
        assert world.condition("SLOMet") == ("True", "SLOKept")
        await world.run(60, requests_per_s=8)
        assert 3 <= world.replicas <= 4
        assert world.condition("SLOMet") == ("False", "SLOMissed")
        await world.run(600, requests_per_s=1)
        assert world.replicas == 1
        assert world.condition("SLOMet") == ("True", "SLOKept")
        steps = [after - before for before, after, _ in world.history()]
        assert steps == sorted(steps, reverse=True), "up, then down, and never back"
        told = world.events("ScaledUp", "ScaledDown", "SLOMissed", "SLOKept")
        assert [reason for reason, _ in told].count("SLOMissed") == 1
        assert [reason for reason, _ in told].count("SLOKept") == 1
        assert len(told) == len(steps) + 2
        assert told[0][1].startswith("1 -> ")
        assert world.status["scaling"]["lastScale"].startswith("2 -> 1: ")
        assert world.condition("Ready") == ("True", "AllGroupsReady")


async def test_a_settled_deployment_is_written_by_nobody_and_asks_the_api_server_nothing() -> None:
    async with a_world() as world:
        await world.run(300, requests_per_s=1)
        writes, reads, noise = len(world.fake.writes), world.rig.reads, random.Random(1)
        for _ in range(60):
            await world.run(10, requests_per_s=1 + noise.uniform(-0.045, 0.045))
        assert world.fake.writes[writes:] == []
        assert world.rig.reads == reads


async def test_with_prometheus_away_the_workers_are_asked_and_scaling_goes_on() -> None:
    async with a_world() as world:
        await world.run(60, requests_per_s=1)
        world.fleet.trouble = AWAY
        await world.run(60, requests_per_s=7)
        assert world.replicas > 1
        assert world.condition("MetricsAvailable") == ("True", "MetricsFallback")
        assert world.condition("ScalingActive") == ("True", "ScalingByLoad")
        assert world.status["scaling"]["source"] == "Workers"
        world.fleet.trouble = None
        await world.run(60)
        assert world.condition("MetricsAvailable") == ("True", "MetricsRead")
        told = world.events("MetricsFallback", "MetricsRead")
        assert [reason for reason, _ in told] == ["MetricsFallback", "MetricsRead"]
        assert told[0][1] == f"{AWAY.message}; the operator asks the workers itself"


async def test_with_prometheus_away_and_hold_nothing_is_scaled_until_it_is_back() -> None:
    async with a_world(replicas=3, scaling={**SCALING, "onMissingMetrics": "Hold"}) as world:
        await world.run(20, requests_per_s=8)
        before, world.fleet.trouble = world.replicas, AWAY
        await world.run(600, requests_per_s=0)
        assert world.replicas == before >= 3
        assert world.condition("MetricsAvailable") == ("False", "MetricsUnreachable")
        assert world.condition("ScalingActive") == ("False", "MetricsUnreachable")
        assert world.condition("SLOMet") == ("Unknown", "MetricsUnreachable")
        assert world.condition("Ready")[0] == "True"
        assert "latency" not in world.status or world.status["latency"] == {}
        world.fleet.trouble = None
        await world.run(600)
        assert world.replicas == 1
        told = [reason for reason, _ in world.events("MetricsUnreachable", "MetricsRead")]
        assert told == ["MetricsUnreachable", "MetricsRead"]


async def test_a_source_that_hangs_delays_no_pass() -> None:
    async with a_world() as world:
        world.autoscaler.measured()
        world.fleet.hangs = asyncio.Event()
        look = asyncio.create_task(world.autoscaler.look(NAME))
        async with asyncio.timeout(20):
            world.edit(replicas=2)
            await world.rig.settle()
            assert world.status["readyReplicas"] == 2
            assert not look.done()
            world.fleet.hangs.set()
            await look


async def test_one_query_that_fails_is_no_news() -> None:
    async with a_world() as world:
        await world.run(60, requests_per_s=1)
        for _ in range(10):
            world.fleet.trouble = AWAY
            await world.run(5)
            world.fleet.trouble = None
            await world.run(25)
        assert world.events("MetricsFallback", "MetricsRead") == []


async def test_series_that_are_missing_are_a_condition_and_never_a_zero() -> None:
    async with a_world(replicas=3) as world:
        await world.run(20, requests_per_s=8)
        world.fleet.hidden = {"chat-g0", "chat-g1", "chat-g2", "chat-g3"}
        before = world.replicas
        await world.run(900, requests_per_s=0)
        assert world.replicas == before
        assert world.condition("MetricsAvailable") == ("False", "NoSeries")
        assert 'deployment="chat"' in world.rig.condition("MetricsAvailable")[2]
        assert world.condition("ScalingActive") == ("False", "NoSeries")
        assert len(world.events("NoSeries")) == 1


async def test_one_group_without_series_holds_all_and_is_named() -> None:
    async with a_world(replicas=2) as world:
        await world.run(20, requests_per_s=1)
        world.fleet.hidden = {"chat-g1"}
        await world.run(300, requests_per_s=1)
        assert world.replicas == 2
        assert world.condition("MetricsAvailable") == ("False", "NoSeries")
        assert "chat-g1" in world.rig.condition("MetricsAvailable")[2]


async def test_a_clock_that_is_ahead_holds_and_is_named_as_what_it_is() -> None:
    async with a_world(replicas=2) as world:
        await world.run(60, requests_per_s=1)
        before, world.fleet.ahead_s = world.replicas, 20.0
        await world.run(300, requests_per_s=0)
        assert world.replicas == before
        assert world.condition("MetricsAvailable") == ("False", "MetricsStale")
        message = "Prometheus: samples of chat-g0, chat-g1 are 20 s ahead of the operator's clock; set the clocks"
        assert world.rig.condition("MetricsAvailable")[2] == message


async def test_workers_of_an_older_version_are_no_zero_either() -> None:
    async with a_world(replicas=2) as world:
        world.hear("chat-g0", slo_digest=None)
        world.hear("chat-g1")
        await world.run(600, requests_per_s=0)
        assert world.replicas == 2
        assert world.condition("MetricsAvailable") == ("False", "OlderWorkers")
        assert world.condition("ScalingActive") == ("False", "OlderWorkers")
        assert world.condition("SLOMet") == ("Unknown", "OlderWorkers")
        world.hear("chat-g1", slo_digest=None)
        await world.run(600, requests_per_s=0)
        assert world.replicas == 1


async def test_an_operator_that_has_just_started_asks_workers_before_it_says_that_they_measure() -> None:
    async with a_world(replicas=2) as world:
        world.hear("chat-g0")
        world.hear("chat-g1", slo_digest=None)
        world.rig.workers.unheard = {"chat-g0", "chat-g1"}  # no poll was yet
        await world.run(5, requests_per_s=0)
        assert world.condition("MetricsAvailable") == ("False", "OlderWorkers")
        assert world.condition("SLOMet") == ("Unknown", "OlderWorkers")


async def test_a_group_that_only_starts_is_no_trouble_of_prometheus() -> None:
    def starts(pod: dict[str, Any]) -> None:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]

    async with a_world() as world:
        world.fake.edit("pods", "chat-g0-0", starts)
        world.fleet.trouble = Trouble("metrics", "MetricsMissing", "not scraped yet: no series for this query: {...}")
        await world.run(60)
        assert world.condition("MetricsAvailable") == ("Unknown", "MetricsMissing")
        assert world.events("MetricsFallback") == []


async def test_a_number_set_by_hand_is_the_new_start_and_told() -> None:
    async with a_world(scaling={**SCALING, "down": {"stabilizationSeconds": 120}}) as world:
        await world.run(60, requests_per_s=1)
        world.edit(replicas=3)
        await world.run(60)
        assert world.replicas == 3
        message = "somebody else set spec.replicas from 1 to 3"
        assert world.events("ScaledByHand") == [("ScaledByHand", message)]
        assert world.history() == [(1, 3, "ScaledByHand")]
        await world.run(600)
        assert world.replicas == 1, "then fewer are enough"


async def test_a_number_outside_of_the_bounds_is_brought_back() -> None:
    async with a_world() as world:
        await world.run(60, requests_per_s=1)
        world.edit(replicas=9)
        await world.run(600)
        assert world.replicas <= 4


@pytest.mark.parametrize("mode", ["External", "Disabled"])
async def test_what_others_scale_is_measured_and_never_written(mode: str) -> None:
    async with a_world(scaling={**SCALING, "mode": mode}) as world:
        await world.run(120, requests_per_s=9)
        world.edit(replicas=2)
        await world.run(120, requests_per_s=9)
        assert scales(world.fake.writes) == 0
        assert world.replicas == 2
        assert world.condition("MetricsAvailable") == ("True", "MetricsRead")
        assert world.condition("ScalingActive") == ("False", f"Scaling{mode}")
        assert world.condition("SLOMet") == ("False", "SLOMissed")
        assert world.events("ScaledByHand") == []


async def test_an_observer_decides_and_says_so_and_writes_nothing() -> None:
    async with a_world(scaling={**SCALING, "mode": "Observe"}) as world:
        await world.run(120, requests_per_s=9)
        assert scales(world.fake.writes) == 0
        assert world.condition("ScalingActive") == ("False", "ScalingObserving")
        assert world.status["scaling"]["desired"] > world.status["scaling"]["current"] == 1
        assert world.history()[0][:2] == (1, world.status["scaling"]["history"][-1]["to"])
        assert "lastScale" not in world.status["scaling"]


async def test_nobody_is_asked_about_a_deployment_that_wants_nothing_measured() -> None:
    async with a_world(slo={}, scaling=None) as world:
        await world.run(120, requests_per_s=9)
        assert world.fleet.num_reads == 0
        assert world.condition("MetricsAvailable") == ("Unknown", "NotMeasured")
        world.edit(scaling=SCALING)
        await world.run(60)
        assert world.fleet.num_reads > 0


async def test_zero_groups_switch_it_off_and_one_switches_it_on() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=0)
        world.edit(replicas=0)
        await world.run(30)
        reads = world.fleet.num_reads
        await world.run(300)
        assert world.replicas == 0
        assert world.fleet.num_reads == reads
        assert world.condition("ScalingActive") == ("False", "ScaledToZero")
        world.edit(replicas=1)
        await world.run(120, requests_per_s=8)
        assert world.replicas > 1


async def test_max_is_named_where_it_limits() -> None:
    async with a_world(scaling={**SCALING, "max": 2}) as world:
        await world.run(30, requests_per_s=1)
        await world.run(120, requests_per_s=12)
        assert world.replicas == 2
        assert world.status["scaling"]["limitedBy"] == "Max"
        assert "limited by Max" in world.rig.condition("SLOMet")[2]


async def test_gpu_budgets_are_named_where_they_limit() -> None:
    async with a_world(scaling={**SCALING, "gpuBudget": 5}, **ON_GPUS) as world:
        await world.run(30, requests_per_s=1)
        await world.run(120, requests_per_s=12)
        assert world.replicas == 2
        assert world.status["scaling"]["limitedBy"] == "GPUBudget"


async def test_deployments_of_a_namespace_share_its_gpus() -> None:
    async with a_world(**ON_GPUS) as world:
        world.gpu_budgets["models"] = 8
        world.fake.put("glmdeployments", a_deployment_body("other", replicas=1, **ON_GPUS))
        await world.start()
        await world.run(30, requests_per_s=1)
        await world.run(120, requests_per_s=16)
        assert world.replicas == 3, "of 8 GPUs the other deployment has 2"
        assert world.status["scaling"]["limitedBy"] == "NamespaceGPUBudget"


async def test_a_stale_cache_overwrites_no_number_that_a_person_has_set() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        world.is_behind = True
        world.edit(replicas=4)
        await world.run(60, requests_per_s=8)
        assert world.replicas == 4
        assert scales(world.fake.writes) == 0
        assert world.events("ScaledUp") == []
        world.is_behind = False
        await world.run(30)
        assert world.events("ScaledByHand") != []


async def test_a_write_that_no_watch_has_told_of_yet_is_not_repeated() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        world.is_behind = True
        await world.run(60, requests_per_s=7)
        assert scales(world.fake.writes) <= 2
        assert world.events("ScaledByHand") == []


async def test_a_write_whose_answer_is_lost_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        scale = world.rig.kube.scale

        async def deaf(body: dict[str, Any], groups: int) -> str:
            await scale(body, groups)
            raise Unavailable("the answer was lost")

        monkeypatch.setattr(world.rig.kube, "scale", deaf)
        await world.run(120, requests_per_s=7)
        assert world.replicas > 1
        assert world.events("ScaledByHand") == []
        assert [reason for reason, _ in world.events("ScaledUp")] == ["ScaledUp"] * len(world.history())
        assert sum(after - before for before, after, _ in world.history()) == world.replicas - 1


async def test_a_refused_scale_is_told_once_and_tried_more_and_more_rarely() -> None:
    async with a_world() as world:
        tries = []

        def refuse(write: str) -> None:
            if write.endswith("/scale"):
                tries.append(world.rig.now)
                raise Refused(403, "Forbidden", "glmdeployments/scale is forbidden")

        world.fake.before_write = refuse
        await world.run(30, requests_per_s=1)
        await world.run(300, requests_per_s=9)
        assert world.condition("ScalingActive") == ("False", "ScaleRefused")
        assert world.events("ScaleRefused") == [("ScaleRefused", "glmdeployments/scale is forbidden")]
        assert 2 <= len(tries) <= 5
        assert tries[-1] - tries[-2] > tries[1] - tries[0]
        world.fake.before_write = lambda _: None
        await world.run(300)
        assert world.replicas > 1
        assert world.condition("ScalingActive") == ("True", "ScalingByLoad")


async def test_another_operator_keeps_the_history_and_repeats_no_event() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        await world.run(60, requests_per_s=7)
        before, events = world.status, len(world.fake.names("events"))
        await world.start()
        assert world.status == before, "nothing was measured yet"
        await world.run(30)
        assert world.history()[: len(before["scaling"]["history"])] == [
            (each["from"], each["to"], each["reason"]) for each in reversed(before["scaling"]["history"])
        ]
        assert len(world.fake.names("events")) == events
        await world.run(600, requests_per_s=1)
        assert world.replicas == 1
        assert len(world.history()) > len(before["scaling"]["history"])


async def test_of_a_deployment_that_is_gone_nothing_is_kept() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        assert world.rig.board.latest
        world.fake.delete(("glmdeployments", *NAME))
        world.rig.bring()
        world.autoscaler.drop(NAME)
        assert world.autoscaler.measured() == set()
        assert world.rig.board.latest == {}
        assert world.fleet.forgotten == ["models/chat"]


async def test_another_deployment_of_the_same_name_inherits_nothing() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)
        await world.run(60, requests_per_s=8)
        assert world.history()
        world.fake.delete(("glmdeployments", *NAME))
        world.fake.put("glmdeployments", a_deployment_body(replicas=1, slo=SLO, scaling=SCALING))
        await world.rig.settle()
        assert world.history() == []
        await world.run(30, requests_per_s=1)
        assert (world.history(), world.fleet.forgotten) == ([], ["models/chat"])
        assert world.events("ScaledByHand") == []


async def test_one_that_is_being_deleted_is_left_alone() -> None:
    async with a_world() as world:
        await world.run(30, requests_per_s=1)

        def mark(body: dict[str, Any]) -> None:
            body["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"

        world.fake.edit("glmdeployments", "chat", mark)
        await world.run(120, requests_per_s=9)
        assert scales(world.fake.writes) == 0


async def test_a_quota_that_refuses_pods_ends_the_asking_for_more() -> None:
    async with a_world(scaling={**SCALING, "max": 20, "up": {"groups": 1, "periodSeconds": 30}}) as world:
        world.fake.pod_quota = 2
        await world.run(600, requests_per_s=40)
        assert len(world.fake.names("pods")) == 2
        assert world.replicas <= 4, "at most what was asked for before the answer was known"
        assert world.status["scaling"]["limitedBy"] == "ResourceQuota"


async def test_a_promise_below_the_floor_is_told_without_traffic_and_adds_no_group() -> None:
    async with a_world(**air_on("NVIDIA-H100-80GB-HBM3")) as world:
        assert world.condition("SLOMet") == ("False", "SLOInfeasible"), "before any look, and without a request"
        _, _, message = world.rig.condition("SLOMet")
        assert message == (
            "class chat: itl of 0.001 s is promised, and one request alone takes at least 0.00223 s "
            "on 4 x H100 SXM in bf16"
        )
        assert [reason for reason, _ in world.events("SLOInfeasible")] == ["SLOInfeasible"]
        await world.run(120, requests_per_s=0)
        assert world.condition("SLOMet") == ("False", "SLOInfeasible")
        assert "at least 0.00223 s" in world.status["slo"]["classes"][0]["infeasible"]
        assert world.condition("Ready") == ("True", "AllGroupsReady"), "no pod is held back"
        assert world.condition("Planned") == ("True", "LayoutFound")
        measured = world.rig.board.latest[NAME]
        assert measured.decision is not None
        assert set(measured.decision.infeasible) == {"chat"}, "the law knows it, too"
        await world.run(300, requests_per_s=1)
        assert (world.replicas, scales(world.fake.writes)) == (1, 0)
        world.edit(slo={"classes": [{"name": "chat", "itl": "80ms"}]})
        await world.run(30)
        assert world.condition("SLOMet")[1] != "SLOInfeasible"


async def test_a_gpu_that_nobody_knows_has_no_floor() -> None:
    async with a_world(**air_on("NVIDIA-H900")) as world:
        await world.run(60, requests_per_s=0)
        assert world.condition("SLOMet")[0] == "Unknown"
        assert world.rig.board.latest[NAME].situation.floor_s == {}


async def test_a_refused_edit_leaves_the_floor_of_the_hardware_that_groups_run_on() -> None:
    async with a_world(**air_on("NVIDIA-H100-80GB-HBM3")) as world:
        world.edit(parallelism={"tensor": 4, "expert": 5}, hardware=air_on("NVIDIA-L40S")["hardware"])
        await world.run(30, requests_per_s=0)
        assert world.condition("Planned")[0] == "False"
        assert world.condition("SLOMet") == ("False", "SLOInfeasible")
        assert world.rig.board.latest[NAME].situation.floor_on == "4 x H100 SXM in bf16"


async def test_a_watch_that_is_silent_is_told_while_it_holds_the_groups_and_not_for_a_moment() -> None:
    async with a_world() as world:
        await world.run(60, requests_per_s=1)
        world.is_behind = True
        world.rig.cache.unlist("Pod", None)
        await world.run(5, requests_per_s=8)
        assert world.condition("ScalingActive") == ("True", "ScalingByLoad"), "a list on its way is no silence"
        world.rig.watches_bring = False
        await world.run(30)
        assert world.replicas == 1
        assert world.condition("MetricsAvailable") == ("False", "WatchSilent")
        status, reason, message = world.rig.condition("ScalingActive")
        assert (status, reason) == ("False", "WatchSilent")
        assert message.startswith("the number of groups is held: what runs is not known: a watch of the API server")
        world.is_behind, world.rig.watches_bring = False, True
        await world.run(60)
        assert world.condition("ScalingActive") == ("True", "ScalingByLoad")
        assert world.replicas > 1
        assert [reason for reason, _ in world.events("WatchSilent", "MetricsRead")] == ["WatchSilent", "MetricsRead"]


# -- promises to workers


async def test_promises_reach_workers_when_they_are_edited_and_no_pod_restarts() -> None:
    async with a_world() as world:
        world.hear("chat-g0", slo_digest=None)
        await world.rig.settle()
        pods, puts = uids(world.rig), world.rig.workers.puts
        assert [(group, body["classes"][0]["thresholds_s"]) for group, _, body in puts] == [("chat-g0", {"ttft": 0.5})]
        await world.rig.settle()
        assert len(puts) == 1, "once is enough"
        world.edit(slo={"classes": [{"name": "chat", "ttft": "2s"}]})
        await world.rig.run_pass()
        assert puts[-1][2]["classes"][0]["thresholds_s"] == {"ttft": 2.0}
        await world.rig.settle()
        assert (len(puts), uids(world.rig)) == (2, pods)


async def test_a_worker_that_was_restarted_is_told_again() -> None:
    async with a_world() as world:
        world.hear("chat-g0", slo_digest=None)
        await world.rig.settle()
        world.hear("chat-g0", slo_digest=None)
        await world.rig.settle()
        assert len(world.rig.workers.puts) == 2


async def test_promises_that_are_taken_away_are_taken_from_workers() -> None:
    async with a_world() as world:
        world.hear("chat-g0", slo_digest=None)
        await world.rig.settle()
        world.edit(slo={})
        await world.rig.settle()
        assert world.rig.workers.puts[-1][2] == {"classes": []}
        world.hear("chat-g0", slo_digest=None)
        await world.rig.settle()
        assert len(world.rig.workers.puts) == 2, "of one that has none nothing is taken"


async def test_a_worker_that_does_not_take_promises_is_asked_again_and_holds_up_nothing() -> None:
    async with a_world() as world:
        world.rig.workers.puts_fail = NotTaken("pod chat-g0-0 did not answer")
        world.hear("chat-g0", slo_digest=None)
        assert not (await world.rig.run_pass()).settled
        assert world.condition("Ready")[0] == "True"
        assert "did not answer" not in world.rig.condition("SLOMet")[2], "a moment of silence is no refusal"
        world.rig.workers.puts_fail = None
        await world.rig.run_pass()
        assert len(world.rig.workers.puts) == 1
        assert (await world.rig.run_pass()).settled


REFUSAL = PutRefused("pod chat-g0-0 refused the promises with 422: there are 9 classes")


@pytest.mark.parametrize(
    ("fails", "says"),
    [(REFUSAL, "chat-g0: pod chat-g0-0 refused the promises with 422"), (None, "chat-g0: its worker has no page /slo")],
)
async def test_a_refusal_of_promises_is_a_condition_and_a_metric_until_they_are_taken(
    fails: Exception | None, says: str
) -> None:
    async with a_world() as world:
        world.rig.workers.puts_fail, world.rig.workers.has_slo_page = fails, False
        world.hear("chat-g0", slo_digest=None)
        await world.run(30, requests_per_s=4)
        assert not (await world.rig.run_pass()).settled
        status, reason, message = world.rig.condition("SLOMet")
        assert (status, reason, message.startswith(says)) == ("Unknown", "PromisesRefused", True)
        assert world.rig.board.latest[NAME].unpromised == {"chat-g0"}
        assert world.condition("ScalingActive")[0] == "True", "load alone still scales"
        world.rig.workers.puts_fail, world.rig.workers.has_slo_page = None, True
        await world.rig.settle()
        await world.run(30, requests_per_s=4)
        assert world.condition("SLOMet")[:2] == ("True", "SLOKept")
        assert world.rig.board.latest[NAME].unpromised == set()


async def test_workers_of_the_version_before_are_counted_as_without_promises() -> None:
    async with a_world() as world:
        world.hear("chat-g0")
        await world.run(10, requests_per_s=4)
        assert world.rig.board.latest[NAME].unpromised == {"chat-g0"}
        world.edit(slo={})
        await world.run(10, requests_per_s=4)
        assert world.rig.board.latest[NAME].unpromised == set(), (
            "who promises nothing needs no worker that knows promises"
        )


async def test_a_worker_of_an_older_version_is_told_nothing() -> None:
    async with a_world() as world:
        world.hear("chat-g0")
        await world.rig.settle()
        assert world.rig.workers.puts == []
