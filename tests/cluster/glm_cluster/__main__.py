"""`python -m glm_cluster`: what `make cluster` and its neighbours call."""

import argparse
import json
import os
import shlex
import sys

from glm_cluster.building import build_missing
from glm_cluster.cluster import Cluster
from glm_cluster.errors import ClusterError
from glm_cluster.guests import guests
from glm_cluster.kwok import build_kwok
from glm_cluster.lifecycle import clean, down, up
from glm_cluster.locking import locked
from glm_cluster.packages import PROMETHEUS as DEBIANS_PROMETHEUS
from glm_cluster.packages import install_missing
from glm_cluster.paths import Paths, find_paths
from glm_cluster.processes import Processes
from glm_cluster.programs import MONITORING, PROMETHEUS, PROMETHEUS_OPERATOR, Programs
from glm_cluster.progress import say


def main() -> int:
    """Run one command; a ClusterError becomes its sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="glm_cluster", description="A real Kubernetes on this machine, from source.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the cluster up, or leave it alone when it is up and whole")
    commands.add_parser("down", help="take it down; programs and images stay in the cache")
    commands.add_parser("clean", help="remove programs and images from the cache; the cluster must be down")
    commands.add_parser("images", help="build our images, push them to its registry, print their references")
    commands.add_parser("shell", help='print what makes a shell use it: eval "$(make -s cluster-shell)"')
    commands.add_parser("status", help="print what runs")
    commands.add_parser("programs", help="build kubectl, helm and the others without starting anything")
    commands.add_parser("kwok", help="build kwok, which plays nodes for stories of many deployments")
    commands.add_parser("prometheus", help="build Prometheus and its operator, for stories of autoscaling")
    commands.add_parser("monitoring", help="build and install what tests of monitoring need: Prometheus, KEDA, ...")
    arguments = parser.parse_args()
    paths = find_paths(os.environ)
    try:
        COMMANDS[arguments.command](paths)
    except ClusterError as error:
        say(f"glm_cluster: {error}")
        if arguments.command == "up" and paths.state.exists():  # not so when a check refused to begin
            say(f"glm_cluster: what was started runs on, its logs in {paths.logs}; `make cluster-down` removes it")
        return 1
    except KeyboardInterrupt:
        say("glm_cluster: interrupted; `make cluster-down` removes what was started")
        return 130
    return 0


def bring_up(paths: Paths) -> None:
    cluster = up(paths)
    say(f"The cluster is up: {cluster.api_server}, Kubernetes {cluster.kubernetes_version}, logs in {paths.logs}.")
    say('Use it with: eval "$(make -s cluster-shell)"')


def push_images(_: Paths) -> None:
    images = Cluster.running().push_images()
    print(json.dumps({"operator": images.operator.reference, "worker": images.worker.reference}))


def print_shell(_: Paths) -> None:
    """Print the exports for eval, and for people what to do with them (as comments, which eval ignores)."""
    cluster = Cluster.running()
    print('# Run: eval "$(make -s cluster-shell)"   then: kubectl get nodes, helm list -A')
    print("# Services and pods can be reached by their IPs from this machine.")
    for name, value in cluster.exports().items():
        print(f"export {name}={shlex.quote(value)}")


def print_status(paths: Paths) -> None:
    for processes in (Processes(paths.pids, paths.logs), guests(paths)):
        for name in processes.names():
            pid = processes.pid(name)
            print(f"{name:26}{f'pid {pid}' if pid else f'has ended, see {processes.log(name)}'}")
    print("The cluster is up." if Cluster(paths).is_whole() else "The cluster is not up: run `make cluster`.")


def build_programs(paths: Paths) -> None:
    with locked(paths):
        build_missing(paths)
    for program in ("kubectl", "helm"):
        print(Programs(paths)[program])


def prepare_prometheus(paths: Paths) -> None:
    with locked(paths):
        install_missing(DEBIANS_PROMETHEUS)
        build_missing(paths, [PROMETHEUS, PROMETHEUS_OPERATOR])  # of the latter, the short stories use its CRDs


def prepare_monitoring(paths: Paths) -> None:
    with locked(paths):
        install_missing(DEBIANS_PROMETHEUS)
        build_missing(paths, MONITORING)


COMMANDS = {
    "up": bring_up,
    "down": down,
    "clean": clean,
    "images": push_images,
    "shell": print_shell,
    "status": print_status,
    "programs": build_programs,
    "kwok": build_kwok,
    "prometheus": prepare_prometheus,
    "monitoring": prepare_monitoring,
}

if __name__ == "__main__":
    sys.exit(main())
