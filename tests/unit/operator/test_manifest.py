"""What is applied already, and whose an object is."""

from typing import Any

import pytest

from glm_operator.errors import ForeignObject, LeftOver
from glm_operator.manifest import is_applied, is_contained
from glm_operator.observe.ownership import check_ownership, owned
from unit.operator.operator_builders import a_body

MANIFEST = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat"}, "spec": {"ports": [{"port": 80}]}}


def live(**changes: Any) -> dict[str, Any]:
    """Return the manifest as the server has it: with its owner, and with defaults beside what we sent."""
    applied = owned(MANIFEST, a_body())
    return {**applied, "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}, **changes}


def test_defaults_of_the_server_do_not_matter() -> None:
    assert is_applied(owned(MANIFEST, a_body()), live())


def test_what_is_missing_is_not_applied() -> None:
    assert not is_applied(owned(MANIFEST, a_body()), None)


def test_a_field_somebody_changed_is_applied_again() -> None:
    assert not is_applied(owned(MANIFEST, a_body()), live(spec={"ports": [{"port": 81}]}))


def test_a_field_we_no_longer_send_is_applied_again() -> None:
    fewer = {**MANIFEST, "spec": {}}
    assert is_contained(fewer, live())
    assert not is_applied(owned(fewer, a_body()), live())


@pytest.mark.parametrize(
    ("wanted", "found", "result"),
    [
        ({}, {"a": 1}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, True),
        ({"a": None}, {}, False),
        ({"a": {}}, {"a": 1}, False),
    ],
)
def test_containment(wanted: object, found: object, result: bool) -> None:
    assert is_contained(wanted, found) is result


def test_an_owner_is_a_controller_that_blocks_nothing() -> None:
    (reference,) = owned(MANIFEST, a_body())["metadata"]["ownerReferences"]
    assert (reference["uid"], reference["controller"], reference["blockOwnerDeletion"]) == ("uid-1", True, False)


def test_our_own_object_is_ours() -> None:
    check_ownership(live(), a_body())


@pytest.mark.parametrize(
    "owners", [[], [{"controller": True, "kind": "Deployment", "name": "web", "uid": "x"}], [{"uid": "uid-1"}]]
)
def test_an_object_of_somebody_else_is_never_ours(owners: list[dict[str, Any]]) -> None:
    theirs = {**MANIFEST, "metadata": {"name": "chat", "ownerReferences": owners}}
    with pytest.raises(ForeignObject, match=r"Service chat .* is not taken over"):
        check_ownership(theirs, a_body())


def test_an_object_of_an_earlier_deployment_of_the_name_is_waited_for() -> None:
    earlier = {**MANIFEST, "metadata": owned(MANIFEST, a_body(uid="uid-0"))["metadata"]}
    with pytest.raises(LeftOver, match="still being deleted"):
        check_ownership(earlier, a_body(uid="uid-1"))
