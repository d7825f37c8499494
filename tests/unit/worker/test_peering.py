import pytest

from glm_worker.supervisor.protocol import Hello, refusal


def a_hello(**changes: object) -> Hello:
    values = {"group": "g0", "revision": "r1", "pod_index": 1, "num_pods": 2, "ranks_per_pod": 2, "tensor_parallel": 1}
    return Hello(**{**values, "incarnation": "ab", **changes})  # type: ignore[arg-type]


def refused(hello: Hello) -> str | None:
    return refusal(hello, a_hello(pod_index=0))


def test_a_pod_of_the_same_group_and_revision_is_welcome() -> None:
    assert refused(a_hello()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revision": "r2"}, "pod 1 is of revision 'r2', this group's is 'r1'"),
        ({"group": "g1"}, "pod 1 is of group 'g1', this group's is 'g0'"),
        ({"num_pods": 3}, "pod 1 is of num_pods 3, this group's is 2"),
        ({"ranks_per_pod": 4}, "pod 1 is of ranks_per_pod 4, this group's is 2"),
        ({"tensor_parallel": 2}, "pod 1 is of tensor_parallel 2, this group's is 1"),
        ({"pod_index": 0}, "pod_index 0 cannot follow; allowed are 1 to 1"),
        ({"pod_index": 2}, "pod_index 2 cannot follow; allowed are 1 to 1"),
    ],
)
def test_any_other_pod_is_refused_with_what_differs(changes: dict[str, object], reason: str) -> None:
    assert refused(a_hello(**changes)) == reason
