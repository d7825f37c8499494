from pathlib import Path

import pytest

from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.group.protocol import Hello, refusal, terms_of

TERMS = {"config.json": "a1b2", "max_num_seqs": "64"}


def a_hello(**changes: object) -> Hello:
    values = {"group": "g0", "revision": "r1", "pod_index": 1, "num_pods": 2, "ranks_per_pod": 2, "incarnation": "ab"}
    return Hello(**{**values, "terms": TERMS, **changes})  # type: ignore[arg-type]


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
        ({"terms": TERMS | {"max_num_seqs": "32"}}, "pod 1 has max_num_seqs 32, this group's pod 0 has 64"),
        ({"terms": TERMS | {"config.json": "ffff"}}, "pod 1 has config.json ffff, this group's pod 0 has a1b2"),
        ({"terms": {}}, "pod 1 has config.json None, this group's pod 0 has a1b2"),
        ({"pod_index": 0}, "pod_index 0 cannot follow; allowed are 1 to 1"),
        ({"pod_index": 2}, "pod_index 2 cannot follow; allowed are 1 to 1"),
    ],
)
def test_any_other_pod_is_refused_with_what_differs(changes: dict[str, object], reason: str) -> None:
    assert refused(a_hello(**changes)) == reason


def test_the_terms_tell_models_and_limits_apart(tmp_path: Path) -> None:
    def terms(**changes: object) -> dict[str, str]:
        return terms_of(WorkerSettings(**{"model": "builtin://glm-nano", **changes}))  # type: ignore[arg-type]

    (tmp_path / "config.json").write_text("{}")
    assert terms() == terms(pod_index=1, num_pods=2, host="127.0.0.2")
    assert terms()["config.json"] != terms(model=str(tmp_path))["config.json"]
    assert "unreadable" in terms(model=str(tmp_path / "nowhere"))["config.json"]
    for change in ({"tensor_parallel": 2, "ranks_per_pod": 2}, {"dtype": "bfloat16"}, {"kv_cache_bytes": 2**20}):
        assert terms(**change) != terms()
