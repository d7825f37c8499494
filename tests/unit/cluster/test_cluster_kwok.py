"""Fake nodes: which pods land on them, and what kwok plays for them."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from glm_cluster.addresses import NODE_POD_CIDR, POD_CIDR
from glm_cluster.kwok import FAKE_POD_CIDR, MARK, NODE_SELECTOR, STAGES, TOLERATIONS, fake_node, kwok_flags, listed
from glm_cluster.paths import Paths
from glm_cluster.programs import KWOK, TOOLS, Programs

PATHS = Paths(cache=Path("/cache"), state=Path("/state"))


def stages() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(STAGES.read_text()))


def stages_of(kind: str) -> list[str]:
    return [stage["metadata"]["name"] for stage in stages() if stage["spec"]["resourceRef"]["kind"] == kind]


def test_only_pods_that_select_and_tolerate_a_fake_node_land_there() -> None:
    node: Any = fake_node("kwok-0")
    (taint,) = node["spec"]["taints"]
    (toleration,) = TOLERATIONS
    assert {key: toleration[key] for key in taint} == taint
    assert NODE_SELECTOR.items() <= node["metadata"]["labels"].items()


def test_kwok_manages_fake_nodes_only() -> None:
    node: Any = fake_node("kwok-0")
    assert node["metadata"]["annotations"] == dict([MARK])
    assert f"--manage-nodes-with-annotation-selector={'='.join(MARK)}" in kwok_flags(PATHS)


def test_a_fake_nodes_room_is_free() -> None:
    node: Any = fake_node("kwok-0")
    assert node["status"]["capacity"] == node["status"]["allocatable"]
    assert int(node["status"]["allocatable"]["pods"]) >= 110


def test_fake_pods_have_addresses_of_the_cluster_that_no_real_pod_has() -> None:
    assert IPv4Network(FAKE_POD_CIDR).subnet_of(IPv4Network(POD_CIDR))
    assert not IPv4Network(FAKE_POD_CIDR).overlaps(IPv4Network(NODE_POD_CIDR))


def test_nodes_and_pods_have_stages_of_ours_or_kwok_would_take_its_own() -> None:
    assert stages_of("Node") == ["node-ready"]
    assert stages_of("Pod") == ["pod-ready", "pod-gone"]


def test_a_pod_that_is_deleted_is_not_made_ready() -> None:
    ready, gone = (stage["spec"]["selector"]["matchExpressions"][0] for stage in stages()[1:])
    assert (ready["key"], ready["operator"]) == (".metadata.deletionTimestamp", "DoesNotExist")
    assert (gone["key"], gone["operator"]) == (".metadata.deletionTimestamp", "Exists")


def test_many_manifests_are_applied_as_one() -> None:
    assert listed([fake_node("a"), fake_node("b")])["kind"] == "List"


def test_kwok_is_no_part_of_every_cluster(tmp_path: Path) -> None:
    built = Programs(Paths(cache=tmp_path, state=tmp_path))
    assert KWOK not in TOOLS
    assert KWOK not in built.missing()
    assert built.missing([KWOK]) == [KWOK]
    assert built["kwok"].parent.name == KWOK.key


@pytest.mark.parametrize("flag", kwok_flags(PATHS))
def test_every_file_of_kwok_is_in_the_state_or_beside_the_code(flag: str) -> None:
    value = flag.partition("=")[2]
    assert not value.startswith("/") or value.startswith("/state/") or Path(value) == STAGES
