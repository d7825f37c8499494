"""Build the programs that are not in the cache yet."""

import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glm_cluster.commands import log_to, run
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths
from glm_cluster.programs import KUBERNETES_TOOL, TOOLS, Programs, Tool
from glm_cluster.progress import say, step

COLD_BUILD_BYTES = 9 * 10**9
"""What building Kubernetes leaves on the disk: 0.7 GB of programs, the rest Go's caches. The others need little."""
CORES_A_BUILD = 2
"""A build alternates between many compilers and one linker; two builds at a time fill four cores better than one."""


def parse_go_version(text: str) -> tuple[int, int] | None:
    """Return (1, 24) for what `go env GOVERSION` prints, or None for a development version."""
    found = re.match(r"go(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def require_go(tools: Iterable[Tool] = TOOLS) -> None:
    """Raise ClusterError unless a Go that can build the tools is there."""
    oldest = max(tool.oldest_go for tool in tools)
    wanted = f"Go {oldest[0]}.{oldest[1]} or newer is needed to build the cluster's programs (once)"
    if shutil.which("go") is None:
        raise ClusterError(f"{wanted}, and there is no `go` on the PATH; see https://go.dev/doc/install")
    version = parse_go_version(said := run("go", "env", "GOVERSION", env=go_environment()))
    if version is not None and version < oldest:
        raise ClusterError(f"{wanted}, and `go` on the PATH is {said.strip()}; see https://go.dev/doc/install")


def missing_bytes(paths: Paths) -> int:
    """Return the disk space that building what is not in the cache takes."""
    return COLD_BUILD_BYTES if KUBERNETES_TOOL in Programs(paths).missing() else 0


def require_programs(paths: Paths) -> None:
    """Raise ClusterError unless every program is in the cache, or there is a Go that can build it."""
    if missing := Programs(paths).missing():
        require_go(missing)


def build_missing(paths: Paths, wanted: Iterable[Tool] = TOOLS) -> None:
    """Build every wanted tool whose folder is not in the cache."""
    tools = Programs(paths).missing(wanted)
    if not tools:
        return
    require_go(tools)
    cores = len(os.sched_getaffinity(0))
    minutes = sum(tool.minutes for tool in tools) * 2 / max(cores, 1)
    names = ", ".join(tool.name for tool in tools)
    say(f"Building {names} from source, once (about {minutes:.0f} min on {cores} cores, into {paths.programs}):")
    with ThreadPoolExecutor(max_workers=max(1, cores // CORES_A_BUILD)) as pool:
        for built in [pool.submit(build, tool, paths) for tool in tools]:
            built.result()


def build(tool: Tool, paths: Paths) -> None:
    """Build one tool. Its folder appears under its final name only when it is whole."""
    target = Programs(paths).folder(tool)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    command = ["go", "build", "-p", str(CORES_A_BUILD), "-trimpath", "-tags", tool.tags, "-ldflags", tool.ldflags()]
    # A folder as the target of several packages, a file for one: the last part of etcd's import path is "v3".
    output = f"{unfinished}/" if len(tool.packages) > 1 else str(unfinished / tool.name)
    log = paths.programs / f"{tool.key}.log"
    try:
        with step(f"{tool.name} {tool.version}"):
            log_to(log, *command, "-o", output, *tool.packages, env=go_environment(), cwd=tool.source)
            keep_manifests(tool, unfinished / "manifests")
        rename_over(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.unlink()


def keep_manifests(tool: Tool, folder: Path) -> None:
    """Copy a tool's manifests out of its module, which Go's own cache may lose before ours does."""
    if not tool.manifests:
        return
    module = run("go", "list", "-m", "-f", "{{.Dir}}", tool.module, env=go_environment(), cwd=tool.source).strip()
    folder.mkdir()
    for file in Path(module).glob(tool.manifests):
        (folder / file.name).write_bytes(file.read_bytes())
    if not any(folder.iterdir()):
        raise ClusterError(f"{tool.module} {tool.version} has no {tool.manifests}")


def rename_over(source: Path, target: Path) -> None:
    """Move a folder to its name unless another build was faster; both are the same then."""
    if not target.is_dir():
        source.rename(target)


def go_environment() -> dict[str, str]:
    """Return the environment of a build: exactly the locked modules, with exactly the Go that is installed."""
    return {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
