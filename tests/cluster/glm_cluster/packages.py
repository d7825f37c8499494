"""The Debian packages that the cluster and some stories stand on, installed when they are missing."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from glm_cluster.commands import run, with_sbin
from glm_cluster.errors import ClusterError, CommandFailed
from glm_cluster.progress import say, step
from glm_cluster.waiting import GaveUp, wait_for

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "docker-registry": "docker-registry",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "modprobe": "kmod",
    "sysctl": "procps",
}
"""A program that we or the kubelet call, and the Debian package it comes in."""

PROMETHEUS = {"prometheus": "prometheus", "promtool": "prometheus"}
"""What only tests of monitoring need: installed by the first of them."""

APT_LIMIT_S = 1800.0
APT_LOCK_S = 600.0
LOCKED = "Could not get lock"
"""What apt-get says, in English only, when another program holds its locks."""

POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages(programs: Mapping[str, str] = PROGRAMS) -> list[str]:
    """Return the packages whose programs are not there."""
    path = with_sbin(os.environ.get("PATH"))
    return sorted({package for program, package in programs.items() if shutil.which(program, path=path) is None})


def require_packages(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Raise ClusterError when something is missing and cannot be installed."""
    packages = missing_packages(programs)
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise ClusterError(f"these programs are missing and there is no apt-get to install them with: {names}")
    if os.geteuid() != 0:
        raise ClusterError(f"only root can install what is missing: run `apt-get install {names}` as root")


def install_missing(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Install what is missing with apt-get, without starting a service; without apt-get, say what is missing."""
    require_packages(programs)
    packages = missing_packages(programs)
    if not packages:
        return
    say(f"Installing Debian packages: {' '.join(packages)}")
    with step("apt-get install"), services_stay_off():
        apt_get("update", "-qq")
        apt_get("install", "-qq", "--yes", "--no-install-recommends", *packages)
    if still := missing_packages(programs):
        raise ClusterError(f"apt-get installed {' '.join(still)}, and their programs are still not there")


def apt_get(*args: str) -> None:
    """Run apt-get. Another one that holds its locks is waited for: a fresh machine updates itself after its boot."""

    def run_it() -> bool:
        try:
            run(
                "apt-get",
                *args,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
                timeout_s=APT_LIMIT_S,
            )
        except CommandFailed as error:
            if LOCKED not in str(error):
                raise GaveUp(str(error)) from error
            raise
        return True

    wait_for(f"the end of another apt-get, before `apt-get {args[0]}`", run_it, timeout_s=APT_LOCK_S, interval_s=2)


@contextmanager
def services_stay_off() -> Iterator[None]:
    """Keep Debian from starting containerd, docker-registry, ... as services of the machine: we run our own."""
    if POLICY.exists():  # the machine's owner has a rule already
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
