import shutil
import sys
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest

from glm_cluster import lifecycle, preflight
from glm_cluster.cgroups import delegate, withheld
from glm_cluster.errors import ClusterError
from glm_cluster.images import COLD_BUILD_BYTES, missing_bytes, packages_digest, packages_note
from glm_cluster.paths import CHECKOUT, Paths
from glm_cluster.preflight import (
    cgroup_controllers,
    check_kernel,
    conflicting_route,
    loadable_modules,
    missing_capabilities,
)
from glm_cluster.programs import TOOLS, Programs


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
    assert cgroup_controllers(text, "") == {"cpu"}


def test_a_controller_that_only_version_2_has_counts() -> None:
    """As with CONFIG_MEMCG_V1=n, where /proc/cgroups has no line for memory."""
    proc_cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\npids\t0\t1\t1\n"
    assert cgroup_controllers(proc_cgroups, "cpuset cpu io memory pids\n") >= {"cpu", "memory", "pids"}
    assert cgroup_controllers(proc_cgroups, "cpuset cpu io pids\n") == {"cpuset", "cpu", "io", "pids"}


def routes(*lines: tuple[str, str, str]) -> str:
    """Return /proc/net/route with these routes: device, network, gateway."""
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
    rows = []
    for device, network, gateway in lines:
        route = ip_network(network)
        destination, via, mask = (
            f"{int.from_bytes(address.packed, sys.byteorder):08X}"
            for address in (route.network_address, IPv4Address(gateway), route.netmask)
        )
        rows.append(f"{device}\t{destination}\t{via}\t0001\t0\t0\t0\t{mask}\t0\t0\t0" + " " * 20)
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize(
    ("device", "network", "conflict"),
    [
        ("eth0", "0.0.0.0/0", None),
        ("eth0", "192.0.2.0/24", None),
        ("glm-h", "10.244.0.0/16", None),  # our own, from a run that died
        ("flannel.1", "10.244.0.0/24", "10.244.0.0/24 (flannel.1)"),
        ("tun0", "10.0.0.0/8", "10.0.0.0/8 (tun0)"),
        ("eth1", "10.201.0.2/32", "10.201.0.2/32 (eth1)"),
        ("*", "10.96.0.0/12", "10.96.0.0/12 (no device)"),  # a blackhole
    ],
)
def test_a_route_of_the_machine_into_our_addresses_is_named(device: str, network: str, conflict: str | None) -> None:
    table = routes(("eth0", "0.0.0.0/0", "192.0.2.1"), (device, network, "0.0.0.0"))
    assert conflicting_route(table) == conflict


def test_a_table_as_the_kernel_writes_it_is_read() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                        \n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0                                             \n"
        "docker0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0                                          \n"
    )
    assert sys.byteorder != "little" or conflicting_route(table) == "10.244.1.0/24 (docker0)"


def test_modules_are_found_whatever_they_are_packed_with() -> None:
    lines = ("kernel/fs/overlayfs/overlay.ko.xz:", "net/br_netfilter.ko: net/bridge.ko", "drivers/net/b-c.ko.zst:")
    assert loadable_modules("\n".join(lines)) == {"overlay", "br_netfilter", "b_c"}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The /proc of a kernel with what the cluster needs built in."""
    (tmp_path / "sys/net/bridge").mkdir(parents=True)
    (tmp_path / "sys/net/bridge/bridge-nf-call-iptables").touch()
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\toverlay\n\text4\n")
    (tmp_path / "cgroups").write_text("".join(f"{name}\t0\t1\t1\n" for name in ("cpu", "memory", "pids")))
    return tmp_path


def test_a_kernel_with_everything_passes(proc: Path) -> None:
    check_kernel(proc=proc, cgroup=proc)


@pytest.mark.parametrize(
    ("module", "file"), [("overlay", "filesystems"), ("br_netfilter", "sys/net/bridge/bridge-nf-call-iptables")]
)
def test_what_the_kernel_lacks_is_named_unless_it_is_a_module_to_load(proc: Path, module: str, file: str) -> None:
    (proc / file).unlink()
    if file == "filesystems":
        (proc / file).write_text("nodev\tsysfs\n")
    with pytest.raises(ClusterError, match=rf"\(module {module}\)"):
        check_kernel(proc=proc, cgroup=proc)
    check_kernel({module}, proc, proc)


def test_cgroup_controllers_are_no_module_to_load(proc: Path) -> None:
    (proc / "cgroups").write_text("cpu\t0\t1\t1\npids\t0\t1\t1\n")
    with pytest.raises(ClusterError, match="no cgroup controller memory, which the kubelet needs"):
        check_kernel({"overlay", "br_netfilter"}, proc, proc)
    (proc / "cgroup.controllers").write_text("cpu memory pids\n")
    check_kernel({"overlay", "br_netfilter"}, proc, proc)


@pytest.fixture
def version_2(proc: Path) -> Path:
    """A version 2 root that keeps hugetlb to itself, as systemd's does."""
    (proc / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    (proc / "cgroup.subtree_control").write_text("cpuset cpu io memory pids\n")
    (proc / "cgroup.procs").write_text("1\n")
    return proc


def test_a_machines_root_hands_on_what_it_keeps(version_2: Path) -> None:
    check_kernel(proc=version_2, cgroup=version_2)
    assert withheld(version_2) == {"hugetlb"}
    delegate(version_2, "hugetlb")
    assert (version_2 / "cgroup.subtree_control").read_text() == "+hugetlb"  # as the kernel reads it


def test_the_root_of_a_containers_namespace_cannot_while_processes_live_in_it(version_2: Path) -> None:
    (version_2 / "cgroup.type").write_text("domain\n")
    with pytest.raises(ClusterError, match=r"is the cgroup of a container, .* would not get its controllers hugetlb;"):
        check_kernel(proc=version_2, cgroup=version_2)
    (version_2 / "cgroup.procs").write_text("")
    check_kernel(proc=version_2, cgroup=version_2)


def test_a_root_that_the_kernel_shuts_is_told(version_2: Path) -> None:
    (version_2 / "cgroup.subtree_control").unlink()
    (version_2 / "cgroup.subtree_control").mkdir()
    with pytest.raises(ClusterError, match="cannot hand controller hugetlb on to pods"):
        delegate(version_2, "hugetlb")


def test_version_1_has_nothing_to_hand_on(proc: Path) -> None:
    assert withheld(proc) == set()


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A machine that could run the cluster, with an empty cache that is not even a folder yet, and nothing on PATH."""
    for name in ("check_caller", "require_packages", "check_kernel", "check_addresses"):
        monkeypatch.setattr(preflight, name, lambda *_: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=30 * 10**9))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


def install_go(tmp_path: Path, version: str) -> None:
    go = tmp_path / "bin/go"
    go.write_text(f"#!/bin/sh\necho {version}\n")
    go.chmod(0o755)


def build_programs(paths: Paths) -> None:
    for tool in TOOLS:
        Programs(paths).folder(tool).mkdir(parents=True)


def test_without_go_the_programs_cannot_be_built(cold: Paths) -> None:
    with pytest.raises(ClusterError, match=r"^Go 1\.24 or newer is needed .* there is no `go` on the PATH"):
        preflight.check(cold)


def test_the_go_of_debian_12_is_too_old(cold: Paths, tmp_path: Path) -> None:
    install_go(tmp_path, "go1.19.8")
    with pytest.raises(ClusterError, match=r"^Go 1\.24 or newer is needed .* is go1\.19\.8"):
        preflight.check(cold)


def test_with_every_program_in_the_cache_no_go_is_needed(cold: Paths) -> None:
    build_programs(cold)
    preflight.check(cold)


def test_a_disk_too_small_for_the_images_is_told_before_anything_is_built(cold: Paths, tmp_path: Path) -> None:
    install_go(tmp_path, "go1.24.1")
    preflight.check(cold)
    with pytest.raises(
        ClusterError, match=f"^the first build needs 34 GB of disk, and 30 GB are free in {cold.cache};"
    ):
        preflight.check(cold, with_images=True)


def test_images_that_are_built_need_no_room_until_their_packages_change(cold: Paths) -> None:
    build_programs(cold)
    index = cold.buildah_root / "overlay-images/images.json"
    index.parent.mkdir(parents=True)
    index.write_text('[{"id": "1"}, {"id": "2", "names": ["localhost/glm-worker:dev"]}]')
    assert missing_bytes(cold) == COLD_BUILD_BYTES
    packages_note(cold, "worker").write_text(packages_digest("worker", CHECKOUT))
    preflight.check(cold, with_images=True)
    assert missing_bytes(cold) == 0
    packages_note(cold, "worker").write_text("others")
    assert missing_bytes(cold) == COLD_BUILD_BYTES


def test_the_question_leaves_nothing_behind(cold: Paths, tmp_path: Path) -> None:
    install_go(tmp_path, "go1.24.1")
    preflight.check(cold)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "bin"]


def test_up_asks_before_it_changes_anything(cold: Paths) -> None:
    with pytest.raises(ClusterError, match="no `go` on the PATH"):
        lifecycle.up(cold)
    assert not cold.cache.exists()
