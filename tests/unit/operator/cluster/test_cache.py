"""What the watches brought, whatever order it came in."""

from typing import Any

import pytest

from glm_operator import names
from glm_operator.cluster.cache import KINDS, MAX_REMOVED, OWNED_KINDS, Cache
from unit.operator.live_builders import NOW, a_live_pod, a_stateful_set
from unit.operator.operator_builders import a_body

CHAT = ("models", "chat")


def a_set(index: int = 0, *, version: int = 1, uid: str = "", namespace: str = "models") -> dict[str, Any]:
    """Return the StatefulSet of a group, as a watch brings it."""
    name = f"chat-g{index}"
    metadata = {
        "namespace": namespace,
        "uid": uid or f"uid-{namespace}-{name}",
        "resourceVersion": str(version),
        "labels": {names.DEPLOYMENT_LABEL: "chat", names.GROUP_LABEL: name},
    }
    return a_stateful_set(name, **metadata)


def a_watched_pod(index: int = 0) -> dict[str, Any]:
    pod = a_live_pod(f"chat-g{index}")
    labels = {**pod["metadata"]["labels"], names.DEPLOYMENT_LABEL: "chat"}
    metadata = {**pod["metadata"], "namespace": "models", "resourceVersion": "1", "labels": labels}
    return {**pod, "kind": "Pod", "metadata": metadata}


def a_deployment(*, version: int = 1, **metadata: Any) -> dict[str, Any]:
    body = a_body()
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def a_cache(*items: dict[str, Any]) -> Cache:
    """Return a cache whose watches have listed all of the cluster: a deployment, and these."""
    cache = Cache()
    cache.replace(names.KIND, None, [a_deployment()])
    for kind in OWNED_KINDS:
        cache.replace(kind, None, [item for item in items if item["kind"] == kind])
    return cache


def versions(cache: Cache) -> dict[str, str]:
    """Return the version of every StatefulSet that is known."""
    seen = cache.seen(*CHAT, NOW)
    assert seen is not None
    live = seen.observed.live
    return {name: item["metadata"]["resourceVersion"] for (_, kind, name), item in live.items() if kind[0] == "S"}


def test_a_deployment_is_seen_with_what_exists_of_it() -> None:
    seen = a_cache(a_set(), a_watched_pod()).seen(*CHAT, NOW)
    assert seen is not None
    assert seen.body["metadata"]["name"] == "chat"
    assert [group.is_available for group in seen.observed.groups.values()] == [True]


@pytest.mark.parametrize("missing", KINDS)
def test_a_deployment_is_not_seen_until_every_kind_was_listed(missing: str) -> None:
    cache = Cache()
    cache.put(a_deployment())
    for kind in KINDS:
        assert cache.seen(*CHAT, NOW) is None
        if kind != missing:
            cache.replace(kind, "models", [a_deployment()] if kind == names.KIND else [])
    assert cache.seen(*CHAT, NOW) is None
    cache.replace(missing, "models", [a_deployment()] if missing == names.KIND else [])
    assert cache.seen(*CHAT, NOW) is not None


def test_a_deployment_that_nobody_told_of_is_not_seen() -> None:
    assert a_cache().seen("models", "other", NOW) is None


def test_each_namespace_is_listed_by_itself() -> None:
    cache = Cache()
    for kind in KINDS:
        cache.replace(kind, "models", [])
    assert (cache.is_complete("models"), cache.is_complete("others")) == (True, False)


def test_the_same_name_in_two_namespaces_is_two_deployments() -> None:
    cache = a_cache(a_set(0), a_set(1, namespace="others"))
    cache.put(a_deployment(namespace="others"))
    assert versions(cache).keys() == {"chat-g0"}
    assert cache.replace("StatefulSet", "others", []) == {("others", "chat")}
    assert versions(cache).keys() == {"chat-g0"}, "a list of one namespace says nothing of another"


def test_an_older_version_is_passed_over() -> None:
    cache = a_cache(a_set(version=9))
    assert cache.put(a_set(version=8)) is None
    assert versions(cache) == {"chat-g0": "9"}
    assert cache.put(a_set(version=10)) == CHAT
    assert versions(cache) == {"chat-g0": "10"}


def test_an_older_version_of_a_deployment_is_passed_over() -> None:
    cache = a_cache()
    assert cache.put(a_deployment(version=5)) == CHAT
    assert cache.put(a_deployment(version=4)) is None
    seen = cache.seen(*CHAT, NOW)
    assert seen is not None
    assert seen.body["metadata"]["resourceVersion"] == "5"


def test_a_deployment_that_vanished_while_no_watch_ran_is_dropped_and_named() -> None:
    cache = a_cache()
    assert cache.replace(names.KIND, "others", []) == set()
    assert cache.replace(names.KIND, "models", []) == {CHAT}
    assert cache.deployments() == []


def test_what_our_own_write_made_of_a_deployment_is_no_news() -> None:
    cache = a_cache()
    cache.put(a_deployment(version=5))
    assert cache.put(a_deployment(version=5)) is None
    assert cache.replace(names.KIND, None, [a_deployment(version=4)]) == set()


def test_of_storage_that_was_put_back_what_is_older_counts() -> None:
    cache = a_cache(a_set(version=9))
    assert cache.clear(names.KIND, None) == cache.clear("StatefulSet", "models") == {CHAT}
    cache.replace(names.KIND, None, [a_deployment(version=0)])
    cache.replace("StatefulSet", None, [a_set(version=2)])
    assert versions(cache) == {"chat-g0": "2"}


def test_a_list_that_is_older_than_our_own_write_does_not_undo_it() -> None:
    cache = a_cache(a_set(version=1))
    cache.put(a_set(version=3))
    cache.replace("StatefulSet", None, [a_set(version=2)])
    assert versions(cache) == {"chat-g0": "3"}


def test_what_we_deleted_does_not_come_back_by_a_late_event() -> None:
    cache = a_cache(a_set(version=1, uid="uid-first"))
    cache.remove("StatefulSet", "models", "chat-g0", "uid-first")
    assert versions(cache) == {}
    assert cache.put(a_set(version=2, uid="uid-first")) is None
    cache.replace("StatefulSet", None, [a_set(version=2, uid="uid-first")])
    assert versions(cache) == {}
    assert cache.put(a_set(version=3, uid="uid-second")) == CHAT, "another one of its name is not it"
    assert versions(cache) == {"chat-g0": "3"}


def test_what_lost_the_label_that_is_watched_for_is_known_again_when_it_has_it_back() -> None:
    cache = a_cache(a_set(version=4))
    assert cache.drop(a_set(version=5)) == CHAT
    assert cache.put(a_set(version=5)) is None
    assert cache.put(a_set(version=6)) == CHAT
    assert versions(cache) == {"chat-g0": "6"}


def test_what_lost_the_label_of_its_deployment_belongs_to_it_no_more() -> None:
    cache = a_cache(a_set(version=4))
    other = a_set(version=5)
    other["metadata"]["labels"] = {}
    assert cache.put(other) == CHAT
    assert versions(cache) == {}
    assert cache.put(a_set(version=6)) == CHAT


def test_a_delete_of_an_earlier_object_of_the_name_takes_no_later_one_away() -> None:
    cache = a_cache(a_set(uid="uid-second"))
    cache.remove("StatefulSet", "models", "chat-g0", "uid-first")
    assert cache.drop(a_set(uid="uid-first")) == CHAT
    assert versions(cache).keys() == {"chat-g0"}


def test_what_is_gone_is_forgotten_and_its_deployment_named() -> None:
    cache = a_cache(a_set())
    assert cache.drop(a_set()) == CHAT
    assert versions(cache) == {}


def test_what_vanished_while_no_watch_ran_is_dropped_and_its_deployment_named() -> None:
    cache = a_cache(a_set(0), a_set(1))
    assert cache.replace("StatefulSet", None, [a_set(1)]) == {CHAT}
    assert versions(cache).keys() == {"chat-g1"}


def test_a_list_that_brings_nothing_new_names_no_deployment() -> None:
    assert a_cache(a_set()).replace("StatefulSet", None, [a_set()]) == set()


def test_a_list_names_what_changed_and_what_is_new() -> None:
    assert a_cache(a_set()).replace("StatefulSet", None, [a_set(version=2)]) == {CHAT}
    assert a_cache().replace("StatefulSet", None, [a_set()]) == {CHAT}


def test_a_list_of_one_kind_drops_no_other() -> None:
    cache = a_cache(a_set(), a_watched_pod())
    cache.replace("Pod", None, [])
    assert versions(cache).keys() == {"chat-g0"}


def test_what_has_no_deployments_label_belongs_to_none() -> None:
    other = a_set()
    other["metadata"]["labels"] = {}
    assert a_cache().put(other) is None


def test_a_deployment_that_is_gone_is_forgotten() -> None:
    for go in (lambda cache: cache.drop(a_deployment()), lambda cache: cache.forget(CHAT)):
        cache = a_cache()
        go(cache)
        assert (cache.seen(*CHAT, NOW), cache.deployments()) == (None, [])


def test_a_deployment_made_anew_stays_though_the_one_before_is_told_to_be_gone() -> None:
    cache = a_cache()
    cache.put(a_deployment(version=2, uid="uid-second"))
    assert cache.drop(a_deployment(uid="uid-1")) == CHAT
    assert cache.deployments() == [CHAT]


def test_no_more_deletes_are_remembered_than_a_watch_may_be_late_for() -> None:
    cache = a_cache()
    for number in range(MAX_REMOVED + 1):
        uid = f"uid-{number}"
        cache.put(a_set(version=number + 1, uid=uid))
        cache.remove("StatefulSet", "models", "chat-g0", uid)
    assert cache.put(a_set(version=MAX_REMOVED + 2, uid=f"uid-{MAX_REMOVED}")) is None
    assert cache.put(a_set(version=MAX_REMOVED + 2, uid="uid-0")) == CHAT, "the oldest is forgotten"
