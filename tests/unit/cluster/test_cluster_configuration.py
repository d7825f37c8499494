"""The configuration of the cluster's programs: every folder is ours, and the parts agree with each other."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from glm_cluster import control_plane, dns, node, registry
from glm_cluster.addresses import CGROUP, DNS_SERVER, NODE_POD_CIDR, REGISTRY
from glm_cluster.paths import Paths, find_paths

PATHS = Paths(cache=Path("/cache"), state=Path("/state"))
FLAGS = {
    "etcd": control_plane.etcd_flags(PATHS),
    "kube-apiserver": control_plane.apiserver_flags(PATHS),
    "kube-controller-manager": control_plane.controller_manager_flags(PATHS),
    "kube-scheduler": control_plane.scheduler_flags(PATHS),
    "kubelet": node.kubelet_flags(PATHS),
    "kube-proxy": node.kube_proxy_flags(PATHS),
}


@pytest.mark.parametrize("program", FLAGS)
def test_every_file_of_a_program_is_in_the_state(program: str) -> None:
    values = [flag.partition("=")[2] for flag in FLAGS[program]]
    absolute = [value for value in values if value.startswith("/")]
    assert absolute
    assert all(value.startswith("/state/") for value in absolute)


@pytest.mark.parametrize("program", FLAGS)
def test_no_flag_is_given_twice(program: str) -> None:
    names = [flag.partition("=")[0] for flag in FLAGS[program]]
    assert len(names) == len(set(names))


def test_containerd_keeps_images_in_the_cache_and_the_rest_in_the_state() -> None:
    config = tomllib.loads(node.containerd_config(PATHS))
    assert config["root"] == "/cache/containerd"
    assert config["state"].startswith("/state/")
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == node.pause_image()
    assert cri["registry"]["mirrors"][REGISTRY]["endpoint"] == [f"http://{REGISTRY}"]


def test_the_kubelet_asks_the_containerd_that_we_start() -> None:
    endpoint = node.kubelet_configuration(PATHS)["containerRuntimeEndpoint"]
    assert endpoint == "unix://" + tomllib.loads(node.containerd_config(PATHS))["grpc"]["address"]


def test_pods_live_below_our_own_cgroup() -> None:
    assert node.kubelet_configuration(PATHS)["cgroupRoot"] == f"/{CGROUP}"


def test_pods_get_addresses_of_the_node_and_ask_our_dns() -> None:
    bridge, portmap = cast_plugins(node.cni_conflist(PATHS))
    assert bridge["ipam"]["ranges"] == [[{"subnet": NODE_POD_CIDR}]]
    assert bridge["ipam"]["dataDir"].startswith("/state/")
    assert portmap["type"] == "portmap"
    assert node.kubelet_configuration(PATHS)["clusterDNS"] == [DNS_SERVER]
    assert f"bind {DNS_SERVER}" in dns.corefile(PATHS)


def cast_plugins(conflist: dict[str, object]) -> list[dict[str, Any]]:
    plugins: list[dict[str, Any]] = json.loads(json.dumps(conflist))["plugins"]
    return plugins


def test_names_that_do_not_exist_yet_are_not_remembered() -> None:
    assert "disable denial" in dns.corefile(PATHS)


def test_the_audit_covers_service_accounts_but_kubernetes_own() -> None:
    rules: list[dict[str, Any]] = json.loads(json.dumps(control_plane.audit_policy()["rules"]))
    assert rules[0] == {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]}
    assert rules[1] == {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}
    assert rules[2] == {"level": "None"}


def test_the_registry_stores_in_the_cache() -> None:
    config = json.loads(json.dumps(registry.registry_config(PATHS)))
    assert config["storage"]["filesystem"]["rootdirectory"] == "/cache/registry"
    assert config["http"]["addr"] == REGISTRY


def test_folders_follow_the_environment() -> None:
    assert find_paths({"HOME": "/home/a"}).cache == Path("/home/a/.cache/glm-operator")
    assert find_paths({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}).cache == Path("/c/glm-operator")
    assert find_paths({"HOME": "/home/a", "GLM_CACHE_DIR": "/big"}).cache == Path("/big")
    assert find_paths({"HOME": "/home/a"}).state == Path("/home/a/.local/state/glm-operator/cluster")


def test_the_state_is_never_the_cache_nor_around_it() -> None:
    for environ in ({"HOME": "/h"}, {"HOME": "/h", "GLM_STATE_DIR": "/x", "GLM_CACHE_DIR": "/x"}):
        paths = find_paths(environ)
        assert not paths.cache.is_relative_to(paths.state)
