"""The file of groups: what local mode writes is what a gateway reads."""

from glm_gateway.groups.file import groups_in
from glm_operator.local.gateway.groups import groups_file
from glm_operator.local.state import PodRecord


def a_leader(group: str, address: str) -> PodRecord:
    return PodRecord(name=f"{group}-0", group=group, index=0, address=address, fingerprint="f", token="t")


def test_a_gateway_reads_who_is_where_who_serves_and_who_leaves() -> None:
    leaders = [a_leader("nano-g0", "127.64.0.1"), a_leader("nano-g1", "127.64.1.1")]
    stays, goes = groups_in(groups_file(leaders, ready=["nano-g0"], leaving=["nano-g1"], deployment="nano"))
    assert (stays.name, stays.host, stays.port, stays.management_port) == ("nano-g0", "127.64.0.1", 8000, 9090)
    assert (stays.is_ready, stays.is_leaving, stays.deployment) == (True, False, "nano")
    assert (goes.is_ready, goes.is_leaving) == (False, True)


def test_no_group_is_a_file_with_none() -> None:
    assert groups_in(groups_file([], ready=[], leaving=[], deployment="nano")) == []
