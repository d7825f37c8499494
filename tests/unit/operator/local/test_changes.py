"""Which pods local mode stops, starts and leaves alone."""

from glm_operator.local.changes import changes
from glm_operator.local.pods import LocalPod
from glm_operator.local.state import PodRecord


def a_pod(name: str, print_: str = "same") -> LocalPod:
    group, _, index = name.rpartition("-")
    return LocalPod(name, group, int(index), "127.64.0.1", ("serve",), {"PRINT": print_}, 0, 600.0)


def a_record(pod: LocalPod) -> PodRecord:
    return PodRecord(
        name=pod.name,
        group=pod.group,
        index=pod.index,
        address=pod.address,
        fingerprint=pod.fingerprint,
        token=pod.name,
        pid=1,
    )


def names(wanted: list[LocalPod], running: list[LocalPod], dead: set[str] = frozenset()) -> dict[str, list[str]]:  # type: ignore[assignment]
    result = changes(wanted, [a_record(pod) for pod in running], {pod.name for pod in running} - dead)
    return {key: [pod.name for pod in getattr(result, key)] for key in ("stop", "start", "keep")}


G0, G1 = [a_pod("g0-0"), a_pod("g0-1")], [a_pod("g1-0"), a_pod("g1-1")]


def test_everything_starts_when_nothing_runs() -> None:
    assert names(G0, []) == {"stop": [], "start": ["g0-0", "g0-1"], "keep": []}


def test_the_same_again_changes_nothing() -> None:
    assert names(G0, G0) == {"stop": [], "start": [], "keep": ["g0-0", "g0-1"]}


def test_scaling_up_starts_only_the_new_group() -> None:
    assert names(G0 + G1, G0) == {"stop": [], "start": ["g1-0", "g1-1"], "keep": ["g0-0", "g0-1"]}


def test_scaling_down_stops_only_the_group_that_goes() -> None:
    assert names(G0, G0 + G1) == {"stop": ["g1-0", "g1-1"], "start": [], "keep": ["g0-0", "g0-1"]}


def test_a_group_restarts_as_a_whole_when_one_of_its_pods_changes() -> None:
    changed = [a_pod("g0-0"), a_pod("g0-1", "other")]
    assert names(changed + G1, G0 + G1) == {
        "stop": ["g0-0", "g0-1"],
        "start": ["g0-0", "g0-1"],
        "keep": ["g1-0", "g1-1"],
    }


def test_a_group_with_fewer_pods_restarts_as_a_whole() -> None:
    assert names(G0[:1], G0) == {"stop": ["g0-0", "g0-1"], "start": ["g0-0"], "keep": []}


def test_a_dead_pod_is_started_again_without_its_peers() -> None:
    assert names(G0, G0, dead={"g0-1"}) == {"stop": ["g0-1"], "start": ["g0-1"], "keep": ["g0-0"]}


def test_replicas_zero_stops_everything() -> None:
    assert names([], G0 + G1) == {"stop": ["g0-0", "g0-1", "g1-0", "g1-1"], "start": [], "keep": []}
