"""The Debian packages that the cluster stands on, installed when they are missing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_cluster.commands import run
from glm_cluster.errors import ClusterError
from glm_cluster.progress import say, step

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

POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages() -> list[str]:
    """Return the packages whose programs are not there."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None})


def require_packages() -> None:
    """Raise ClusterError when something is missing and cannot be installed."""
    packages = missing_packages()
    if packages and shutil.which("apt-get") is None:
        names = " ".join(packages)
        raise ClusterError(f"these programs are missing and there is no apt-get to install them with: {names}")


def install_missing() -> None:
    """Install what is missing with apt-get, without starting a service; without apt-get, say what is missing."""
    require_packages()
    packages = missing_packages()
    if not packages:
        return
    say(f"Installing Debian packages: {' '.join(packages)}")
    with step("apt-get install"), services_stay_off():
        noninteractive = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-qq", env=noninteractive, timeout_s=600)
        command = ("apt-get", "install", "-qq", "--yes", "--no-install-recommends")
        run(*command, *packages, env=noninteractive, timeout_s=1800)
    if still := missing_packages():
        raise ClusterError(f"apt-get installed {' '.join(still)}, and their programs are still not there")


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
