"""EndpointSlices become groups, each once, whatever state their pods are in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.groups.found import MANAGEMENT_PORT, BadSource, Found
from glm_gateway.groups.slices import groups_of

PORTS = [{"name": "http", "port": 8000, "protocol": "TCP"}]


def an_endpoint(name: str, address: str = "10.0.0.1", **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}}


def a_slice(*endpoints: dict[str, Any], family: str = "IPv4", **fields: Any) -> dict[str, Any]:
    metadata = {"name": "nano-x", "labels": {"glm-operator.io/deployment": "nano"}}
    return {"metadata": metadata, "addressType": family, "endpoints": list(endpoints), "ports": PORTS, **fields}


def test_an_endpoint_is_a_group_of_the_name_that_its_first_pod_has() -> None:
    (found,) = groups_of([a_slice(an_endpoint("nano-g0-0", ready=True, serving=True, terminating=False))])
    assert found == Found(
        name="nano-g0", host="10.0.0.1", port=8000, management_port=MANAGEMENT_PORT, deployment="nano"
    )


def test_the_hostname_comes_before_the_pod_and_the_management_port_is_taken_by_its_name() -> None:
    ports = [*PORTS, {"name": "management", "port": 19090}]
    (found,) = groups_of([a_slice({**an_endpoint("pod"), "hostname": "nano-g3-0"}, ports=ports)])
    assert (found.name, found.management_port) == ("nano-g3", 19090)


def test_a_port_named_https_says_that_its_groups_speak_tls() -> None:
    secure = [{"name": "https", "port": 8443}, {"name": "management", "port": 9090}]
    slices = [a_slice(an_endpoint("new-0"), ports=secure), a_slice(an_endpoint("old-0"))]
    new, old = groups_of(slices)
    assert (new.port, new.speaks_tls) == (8443, True)
    assert (old.port, old.speaks_tls) == (8000, False)


def test_a_slice_says_which_name_a_certificate_must_have_and_only_of_groups_that_speak_tls() -> None:
    secure = [{"name": "https", "port": 8000}]
    metadata = {"namespace": "models", "labels": {"glm-operator.io/deployment": "nano"}}
    of_whom = {"metadata": {"name": "nano-worker-x", **metadata}}
    (new,) = groups_of([{**a_slice(an_endpoint("new-0"), ports=secure), **of_whom}])
    (old,) = groups_of([{**a_slice(an_endpoint("old-0")), **of_whom}])
    (unknown,) = groups_of([{**a_slice(an_endpoint("new-0"), ports=secure), "metadata": {"name": "x"}}])
    assert new.server_name == "nano-worker.models.svc"
    assert old.server_name == unknown.server_name == ""


@pytest.mark.parametrize(
    ("conditions", "is_ready", "is_leaving"),
    [
        ({}, True, False),
        ({"ready": None, "terminating": None}, True, False),
        ({"ready": False}, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"ready": True, "terminating": True}, False, True),  # publishNotReadyAddresses
    ],
)
def test_unknown_conditions_mean_what_the_api_says(
    conditions: dict[str, Any], is_ready: bool, is_leaving: bool
) -> None:
    (found,) = groups_of([a_slice(an_endpoint("g-0", **conditions))])
    assert (found.is_ready, found.is_leaving) == (is_ready, is_leaving)


@pytest.mark.parametrize("missing", [{"endpoints": None}, {"ports": None}, {"ports": []}, {"addressType": "FQDN"}])
def test_a_slice_without_what_is_needed_has_no_groups(missing: dict[str, Any]) -> None:
    assert groups_of([{**a_slice(an_endpoint("g-0")), **missing}]) == []


def test_an_endpoint_without_a_name_is_none() -> None:
    assert groups_of([a_slice({"addresses": ["10.0.0.1"]})]) == []


ENDPOINTS = st.builds(
    lambda name, address, ready, terminating: an_endpoint(name, address, ready=ready, terminating=terminating),
    st.sampled_from(["g0-0", "g1-0"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(st.builds(lambda ends, family: a_slice(*ends, family=family), st.lists(ENDPOINTS, max_size=3),
                          st.sampled_from(["IPv4", "IPv6"])), max_size=3))  # fmt: skip
def test_each_group_is_there_once_and_as_ready_as_its_readiest_endpoint(slices: list[dict[str, Any]]) -> None:
    found = groups_of(slices)
    assert [each.name for each in found] == sorted({each.name for each in found})
    for each in found:
        mine = [end for one in slices for end in one["endpoints"] if end["targetRef"]["name"] == f"{each.name}-0"]
        states = [(end["conditions"]["ready"], end["conditions"]["terminating"]) for end in mine]
        assert each.is_ready == ((True, False) in states)
        assert each.is_leaving == all(terminating for _, terminating in states)


@pytest.mark.parametrize("broken", [{}, {**a_slice(), "endpoints": 3}, a_slice({"addresses": "10.0.0.1"})])
def test_what_is_no_slice_is_said_to_be_none(broken: dict[str, Any]) -> None:
    with pytest.raises(BadSource, match="EndpointSlice"):
        groups_of([broken])
