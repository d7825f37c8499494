import json

import pytest

from glm_cluster.preflight import cgroup_controllers, conflicting_route, missing_capabilities


@pytest.mark.parametrize(
    ("effective", "lacking"),
    [
        ("000001ffffffffff", []),
        ("000001fffeffffff", []),  # without SYS_RESOURCE, which is not needed
        ("00000000a80425fb", ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),  # an ordinary container
        ("0000000000000000", ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),
    ],
)
def test_root_without_its_powers_is_told_which_are_missing(effective: str, lacking: list[str]) -> None:
    assert missing_capabilities(f"Name:\tx\nCapPrm:\t0\nCapEff:\t{effective}\n") == lacking


def test_disabled_cgroup_controllers_do_not_count() -> None:
    text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t0\t1\t0\n"
    assert cgroup_controllers(text) == {"cpu"}


@pytest.mark.parametrize(
    ("route", "conflict"),
    [
        ({"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}, None),
        ({"dst": "192.0.2.0/24", "dev": "eth0"}, None),
        ({"dst": "10.244.0.0/16", "dev": "glm-h"}, None),  # our own, from a run that died
        ({"dst": "10.244.0.0/24", "dev": "flannel.1"}, "10.244.0.0/24 (flannel.1)"),
        ({"dst": "10.0.0.0/8", "dev": "tun0"}, "10.0.0.0/8 (tun0)"),
        ({"dst": "10.201.0.2", "dev": "eth1"}, "10.201.0.2 (eth1)"),
        ({"type": "blackhole", "dst": "10.96.0.0/12"}, "10.96.0.0/12 (blackhole)"),
    ],
)
def test_a_route_of_the_machine_into_our_addresses_is_named(route: dict[str, str], conflict: str | None) -> None:
    assert conflicting_route(json.dumps([{"dst": "127.0.0.0/8", "dev": "lo"}, route])) == conflict
