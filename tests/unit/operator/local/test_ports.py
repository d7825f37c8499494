"""Choosing loopback networks."""

import socket
import subprocess
import sys

import pytest

from glm_operator.local.errors import LocalError
from glm_operator.local.ports import NETWORKS, free_network, is_block_free, reserve
from glm_operator.local.rendezvous import BLOCK_SIZE


def test_the_first_network_is_taken_when_nothing_is_in_the_way() -> None:
    assert free_network([], lambda _: [], lambda _: True) == NETWORKS[0]


def test_networks_of_other_deployments_are_passed_over() -> None:
    assert free_network([NETWORKS[0], NETWORKS[2]], lambda _: [], lambda _: True) == NETWORKS[1]


def test_a_network_whose_ports_somebody_holds_is_passed_over() -> None:
    busy = {f"127.{NETWORKS[0]}.0.1": [8000]}
    assert free_network([], lambda address: busy.get(address, []), lambda _: True) == NETWORKS[1]


def test_a_port_held_on_every_address_is_named_with_how_to_find_its_holder() -> None:
    with pytest.raises(LocalError, match=r"9090.*ss -ltnp 'sport = :9090'"):
        free_network([], lambda _: [9090], lambda _: True)


def test_a_block_with_a_listener_on_any_address_is_not_free() -> None:
    with socket.create_server(("127.201.7.7", 0)) as server:
        port = server.getsockname()[1]
        assert not is_block_free(port)
        assert not is_block_free(port - BLOCK_SIZE + 1)


def test_a_network_that_another_process_has_chosen_is_passed_over() -> None:
    assert free_network([], lambda _: [], lambda network: network != NETWORKS[0]) == NETWORKS[1]


def test_a_reservation_is_of_one_process_and_goes_with_it() -> None:
    network = 1_000  # none that anybody chooses
    take = f"from glm_operator.local.ports import reserve; print(reserve({network}), reserve({network}), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{take}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True True\n"
        assert not reserve(network)
        other.communicate("\n", timeout=30)
    assert reserve(network)
