"""The programs of the cluster: which there are, from which Go module, and where they lie once they are built.

Each tool has a Go module of its own beside this package, because their dependencies' versions clash. Versions are
read from the go.mod files, which are their only place. Pure but for reading those files.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glm_cluster.paths import SOURCES, Paths

KUBERNETES = "k8s.io/kubernetes"


@dataclass(frozen=True)
class Tool:
    """One Go module and the programs built from it."""

    name: str
    module: str  # whose version is the tool's; empty: it has no dependency and its own files are its version
    packages: tuple[str, ...]  # what is given to `go build`
    minutes: float  # on 2 cores with empty caches, to tell a person what to expect
    folder: Path = SOURCES
    manifests: str = ""  # files of the module, as a pattern, that are kept beside the programs: its CRDs
    tags: str = ""  # build tags, with commas

    @property
    def source(self) -> Path:
        return self.folder / self.name

    @property
    def version(self) -> str:
        """Return the version in go.mod, without its v."""
        return required_version((self.source / "go.mod").read_text(), self.module) if self.module else "1"

    @property
    def oldest_go(self) -> tuple[int, int]:
        """Return the Go version that go.mod asks for."""
        return required_go((self.source / "go.mod").read_text())

    @property
    def key(self) -> str:
        """Return the name of the folder in the cache. Other modules, flags or Go lines of ours: another one."""
        files = [self.source / "go.mod", self.source / "go.sum", *sorted(self.source.glob("*.go"))]
        parts = [file.read_bytes() for file in files if file.exists()]
        parts += [
            text.encode() for text in (*self.packages, *filter(None, (self.manifests, self.tags)), self.ldflags())
        ]
        digests = b"".join(hashlib.sha256(part).digest() for part in parts)
        return f"{self.name}-{self.version}-{hashlib.sha256(digests).hexdigest()[:8]}"

    def ldflags(self) -> str:
        """Return the linker's flags: no symbol tables, and the version, which source builds do not know otherwise."""
        values: dict[str, str] = {}
        if self.name == "kubernetes":
            values = kubernetes_version_values(self.version)
        elif self.name == "helm":
            values = helm_version_values(self.version, KUBERNETES_TOOL.version)
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def required_version(go_mod: str, module: str) -> str:
    """Return the version of a module that a go.mod requires, without its v."""
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} v(\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod does not require {module}")
    return found[1]


def required_go(go_mod: str) -> tuple[int, int]:
    """Return (1, 24) for a go.mod with the line `go 1.24.0`."""
    found = re.search(r"^go (\d+)\.(\d+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError("go.mod does not say which Go it needs")
    return int(found[1]), int(found[2])


def kubernetes_version_values(version: str) -> dict[str, str]:
    """Return what makes the programs report their version: without it they say v0.0.0 and Helm refuses charts."""
    major, minor = version.split(".")[:2]
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def helm_version_values(version: str, kubernetes: str) -> dict[str, str]:
    """Return Helm's version, and the Kubernetes version that `helm template` and `helm lint` assume."""
    major, minor = kubernetes.split(".")[:2]
    values = {"internal/version.version": f"v{version}"}
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        values |= {f"{package}.k8sVersionMajor": major, f"{package}.k8sVersionMinor": minor}
    return {f"helm.sh/helm/v3/{name}": value for name, value in values.items()}


KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "kubeadm",
)
KUBERNETES_TOOL = Tool("kubernetes", KUBERNETES, tuple(f"{KUBERNETES}/cmd/{p}" for p in KUBERNETES_PROGRAMS), 12)
PAUSE = Tool("pause", "", (".",), 0.1)
ETCD = Tool("etcd", "go.etcd.io/etcd/server/v3", ("go.etcd.io/etcd/server/v3",), 1)
COREDNS = Tool("coredns", "github.com/coredns/coredns", (".",), 2)
HELM = Tool("helm", "helm.sh/helm/v3", ("helm.sh/helm/v3/cmd/helm",), 2)
KWOK = Tool("kwok", "sigs.k8s.io/kwok", ("sigs.k8s.io/kwok/cmd/kwok",), 3)
PROMETHEUS_MODULE = "github.com/prometheus/prometheus"
PROMETHEUS = Tool(
    "prometheus",
    PROMETHEUS_MODULE,
    (f"{PROMETHEUS_MODULE}/cmd/prometheus",),
    4,
    tags="remove_all_sd,enable_kubernetes_sd",  # those of twenty clouds are most of its code
)
"""Debian's knows every service discovery but that of Kubernetes, and Kubernetes' is what clusters use."""

PROMETHEUS_OPERATOR_MODULE = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_OPERATOR = Tool(
    "prometheus-operator",
    PROMETHEUS_OPERATOR_MODULE,
    (f"{PROMETHEUS_OPERATOR_MODULE}/cmd/operator",),
    3,
    manifests="example/prometheus-operator-crd/*.yaml",
)
METRICS_SERVER = Tool(
    "metrics-server", "sigs.k8s.io/metrics-server", ("sigs.k8s.io/metrics-server/cmd/metrics-server",), 3
)
KEDA_MODULE = "github.com/kedacore/keda/v2"
KEDA = Tool(
    "keda",
    KEDA_MODULE,
    (f"{KEDA_MODULE}/cmd/operator", f"{KEDA_MODULE}/cmd/adapter"),
    12,
    manifests="config/crd/bases/*.yaml",
)

TOOLS = (PAUSE, ETCD, COREDNS, HELM, KUBERNETES_TOOL)
"""What every cluster needs. Fast ones first: what is wrong with Go or the network shows up within a minute."""

MONITORING = (PROMETHEUS, PROMETHEUS_OPERATOR, METRICS_SERVER, KEDA)
"""What tests of monitoring and autoscaling need."""

ON_DEMAND = (KWOK, *MONITORING)
"""What only some stories need: built by the first of them."""


@dataclass(frozen=True)
class Programs:
    """Where each program lies."""

    paths: Paths

    def folder(self, tool: Tool) -> Path:
        return self.paths.programs / tool.key

    def manifests(self, tool: Tool) -> Path:
        """Return the folder of a built tool's manifests."""
        return self.folder(tool) / "manifests"

    def __getitem__(self, program: str) -> Path:
        """Return the path of a program by its name: kubectl, etcd, helm, ..."""
        tool = KUBERNETES_TOOL if program in KUBERNETES_PROGRAMS else {t.name: t for t in (*TOOLS, *ON_DEMAND)}[program]
        return self.folder(tool) / program

    def missing(self, tools: Iterable[Tool] = TOOLS) -> list[Tool]:
        return [tool for tool in tools if not self.folder(tool).is_dir()]
