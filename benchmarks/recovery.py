"""How long a group is out of service when one of its ranks, or its HTTP server, is killed.

Measured, for the server and each rank of 1 pod x 2 ranks and of 2 pods x 1 rank, all on this machine, glm-nano, on CPU;
with --device cuda for those of one pod with a rank a GPU, on two GPUs or the only one:
- ours: `glm-worker serve`. From SIGKILL of the process to the first right answer of a POST /v1/chat/completions sent
  after it, retried at once on any error. The server is killed when another process stands by, as in a group that has
  served for some seconds; its death must end no generation. A hung one (SIGSTOP) the group kills by itself, after
  GLM_HEARTBEAT_LIMIT_S without a sign of life, 3 s here; what counts begins with that.
- peer: the same model code under torchrun (torch's elastic agent, one agent a pod; peers/elastic_worker.py), monitor
  interval 0.1 s, c10d rendezvous, a fresh store for each attempt. From SIGKILL of the rank to the first right answer on
  rank 0's socket, retried likewise. It has no server to kill.
An answer counts when it contains --expect. Both are warm: the kill falls into an idle group that has answered before.
A group that does not answer within 120 s counts with 120 s, and is started anew for the next kill.

Ends with a JSON line for each case: seconds as p95 over the kills (with fewer than 20, the largest), and how many kills
each side did not recover from (lost).
"""

import argparse
import contextlib
import json
import math
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil

ELASTIC_WORKER = Path(__file__).resolve().parent / "peers/elastic_worker.py"
CUDA_GOAL_S = 3.0
CPU_GOALS_S = {1: 1.0, 2: 1.5}  # by pods
SERVER_GOAL_S = 1.5
MOST_LOAD = 0.7
SERVER, STAND_BY = "glm-server", "glm-stand-by"  # names of processes
START_LIMIT_S = 300.0
GIVE_UP_S = 120.0


HUNG_AFTER_S = 3.0

Victim = int | Literal["server", "hung server"]
"""Who is killed: a rank by its number, the HTTP server, or one that stands still, by its group."""


@dataclass(frozen=True)
class Question:
    """What is asked of what, and what a right answer contains."""

    model: str
    device: str
    text: str
    expect: str


class Group:
    """A running group: ask it, find its ranks."""

    def __init__(
        self,
        roots: list[subprocess.Popen[bytes]],
        ask: Callable[[], str],
        rank_of: Callable[[psutil.Process], int | None],
    ) -> None:
        self._roots = roots
        self._ask = ask
        self._rank_of = rank_of

    def answers(self, expect: str) -> bool:
        """Ask once; return whether the answer came and is right."""
        try:
            return expect in self._ask()
        except (httpx.HTTPError, OSError):
            return False

    def wait_for_answer(self, expect: str, limit_s: float) -> float | None:
        """Ask until the answer is right; return the seconds it took, None past limit_s."""
        began = time.monotonic()
        while not self.answers(expect):
            if time.monotonic() - began > limit_s:
                return None
            time.sleep(0.005)
        return time.monotonic() - began

    def victim(self, victim: Victim) -> psutil.Process:
        """Return the process of a rank, or the server once another stands by."""
        if not isinstance(victim, int):
            self._found(lambda process: process.name() == STAND_BY, STAND_BY)
            return self._found(lambda process: process.name() == SERVER, SERVER)
        return self._found(lambda process: self._rank_of(process) == victim, f"rank {victim}")

    def ranks(self) -> set[int]:
        """Return the processes of the ranks."""
        found = set()
        for root in self._roots:
            for process in psutil.Process(root.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if self._rank_of(process) is not None:
                        found.add(process.pid)
        return found

    def _found(self, is_it: Callable[[psutil.Process], bool], what: str) -> psutil.Process:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            for root in self._roots:
                for process in psutil.Process(root.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if is_it(process):
                            return process
            time.sleep(0.05)
        raise SystemExit(f"there is no {what}")


@contextlib.contextmanager
def our_group(
    question: Question, hosts: list[str], ranks_per_pod: int, folder: Path, *, heartbeat_limit_s: float = 30.0
) -> Iterator[Group]:
    """`glm-worker serve`, a pod on each of these loopback addresses."""
    shape = {"num_pods": len(hosts), "ranks_per_pod": ranks_per_pod, "leader_host": hosts[0]}
    shared = {"model": question.model, "device": question.device, "heartbeat_limit_s": heartbeat_limit_s, **shape}
    environments = [
        {f"GLM_{name.upper()}": str(value) for name, value in own.items()}
        for own in ({**shared, "pod_index": pod, "host": host, "run_dir": folder} for pod, host in enumerate(hosts))
    ]

    def ask() -> str:
        body = {
            "model": Path(question.model.rpartition("/")[2]).name,
            "messages": [{"role": "user", "content": question.text}],
            "temperature": 0,
            "max_tokens": 256,
        }
        url = f"http://{hosts[0]}:8000/v1/chat/completions"
        response = httpx.post(url, json=body, timeout=GIVE_UP_S, trust_env=False)  # no proxy knows 127.x.y.z
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])

    def rank_of(process: psutil.Process) -> int | None:
        name = process.name()
        return int(name.removeprefix("glm-rank-")) if name.startswith("glm-rank-") else None

    command = [sys.executable, "-m", "glm_worker.main", "serve"]
    with _running([(command, environment) for environment in environments], folder) as roots:
        yield Group(roots, ask, rank_of)


@contextlib.contextmanager
def elastic_group(question: Question, pods: int, ranks_per_pod: int, folder: Path) -> Iterator[Group]:
    """torchrun, an agent for each pod."""
    rendezvous, answers = _free_port(), _free_port()
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={pods}", f"--nproc-per-node={ranks_per_pod}"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{rendezvous}", "--rdzv-id=recovery"]
    command += ["--max-restarts=1000", "--monitor-interval=0.1", "--local-addr=127.0.0.1"]
    command += [str(ELASTIC_WORKER), "--model", question.model]
    command += ["--device", question.device, "--question", question.text, "--port", str(answers)]

    def ask() -> str:
        with socket.create_connection(("127.0.0.1", answers), timeout=GIVE_UP_S) as connection:
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")

    def rank_of(process: psutil.Process) -> int | None:
        is_worker = any(part == str(ELASTIC_WORKER) for part in process.cmdline()[:3])
        return int(process.environ()["RANK"]) if is_worker else None

    # Without the second, an attempt shares the agent's store with the attempts before it and can meet what they left.
    environment = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with _running([(command, environment)] * pods, folder) as roots:
        yield Group(roots, ask, rank_of)


@dataclass
class Result:
    """What the kills of one process took; those that were not recovered from count with GIVE_UP_S."""

    seconds: list[float]
    num_lost: int
    undisturbed: list[float]  # of the same answer, before each kill


def measure(
    name: str,
    start: Callable[[Path], contextlib.AbstractContextManager[Group]],
    expect: str,
    victims: list[Victim],
    num_kills: int,
) -> dict[Victim, Result]:
    """Kill each of these num_kills times; return what came of it."""
    results: dict[Victim, Result] = {}
    with contextlib.ExitStack() as stack:
        group = _started(name, start, stack, expect)
        for victim in victims:
            result = results[victim] = Result([], 0, [])
            while len(result.seconds) < num_kills:
                group.wait_for_answer(expect, GIVE_UP_S)  # the first one after a death may wait for what is left of it
                undisturbed_s = group.wait_for_answer(expect, GIVE_UP_S)
                if undisturbed_s is None:
                    raise SystemExit(f"{name}: a group that was answering does not any more")
                result.undisturbed.append(undisturbed_s)
                process = group.victim(victim)
                ranks = group.ranks()
                _end(process, victim)
                seconds = group.wait_for_answer(expect, GIVE_UP_S)
                if not isinstance(victim, int) and group.ranks() != ranks:
                    raise SystemExit(f"{name}: the death of the server ended the generation")
                result.seconds.append(GIVE_UP_S if seconds is None else seconds)
                if seconds is None:
                    result.num_lost += 1
                    stack.close()
                    group = _started(name, start, stack, expect)
            p50, p95, most = (percentile(result.seconds, p) for p in (50, 95, 100))
            said = f"p50 {p50:.2f} s, p95 {p95:.2f} s, max {most:.2f} s, {result.num_lost} not recovered from"
            said += f"; the answer alone takes {percentile(result.undisturbed, 50):.2f} s"
            print(f"{name}, {_named(victim)}: {num_kills} kills, {said}", flush=True)
    return results


def _end(process: psutil.Process, victim: Victim) -> None:
    """Kill a process, or have it stand still and wait until its group has killed it."""
    if victim != "hung server":
        process.kill()
        return
    ended = os.pidfd_open(process.pid)
    try:
        process.suspend()
        if not select.select([ended], [], [], GIVE_UP_S)[0]:
            raise SystemExit(f"nobody found the server hung in {GIVE_UP_S:.0f} s")
    finally:
        os.close(ended)


def _started(
    name: str,
    start: Callable[[Path], contextlib.AbstractContextManager[Group]],
    stack: contextlib.ExitStack,
    expect: str,
) -> Group:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    group = stack.enter_context(start(folder))
    seconds = group.wait_for_answer(expect, START_LIMIT_S)
    if seconds is None:
        raise SystemExit(f"{name}: no answer with {expect!r} in {START_LIMIT_S:.0f} s")
    print(f"{name}: first answer after {seconds:.1f} s", flush=True)
    return group


def percentile(values: list[float], p: float) -> float:
    """Return the nearest-rank percentile."""
    return sorted(values)[max(0, math.ceil(len(values) * p / 100) - 1)]


@contextlib.contextmanager
def _running(commands: list[tuple[list[str], dict[str, str]]], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    roots: list[subprocess.Popen[bytes]] = []
    try:
        for number, (command, environment) in enumerate(commands):
            with (folder / f"{number}.log").open("wb") as log:
                environment = {**os.environ, **environment}
                roots.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        yield roots
    except BaseException:
        for path in sorted(folder.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}", file=sys.stderr)
        raise
    finally:
        _stop(roots)


def _stop(roots: list[subprocess.Popen[bytes]]) -> None:
    left: list[psutil.Process] = []
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            left += psutil.Process(root.pid).children(recursive=True)
        root.send_signal(signal.SIGKILL)
        root.wait()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=30)


def loopback_address() -> str:
    """Return an address that nothing else uses: all of 127/8 is this machine."""
    return f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of the server and of each rank, in each shape")
    parser.add_argument("--peer-kills", type=int, default=5, help="the same for torch's elastic agent; 0 leaves it out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default="builtin://glm-nano")
    parser.add_argument("--question", default="What is 12+30?")
    parser.add_argument("--expect", default="42")
    parser.add_argument("--beside-load", action="store_true", help="measure also while something else runs")
    arguments = parser.parse_args()
    question = Question(arguments.model, arguments.device, arguments.question, arguments.expect)
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f}, {question.device}")
    if load > MOST_LOAD and not arguments.beside_load:
        raise SystemExit(f"the load is {load:.1f}; at most {MOST_LOAD} is quiet enough to measure (or --beside-load)")
    print(f"question {question.text!r}, right when it contains {question.expect!r}")
    lines = []
    for pods, ranks_per_pod in _shapes(question.device):
        shape = f"{_counted(pods, 'pod')} x {_counted(ranks_per_pod, 'rank')}"

        def ours(
            folder: Path, pods: int = pods, ranks: int = ranks_per_pod
        ) -> contextlib.AbstractContextManager[Group]:
            hosts = [loopback_address() for _ in range(pods)]
            return our_group(question, hosts, ranks, folder, heartbeat_limit_s=HUNG_AFTER_S)

        def peer(
            folder: Path, pods: int = pods, ranks: int = ranks_per_pod
        ) -> contextlib.AbstractContextManager[Group]:
            return elastic_group(question, pods, ranks, folder)

        ranks: list[Victim] = list(range(pods * ranks_per_pod))
        victims: list[Victim] = ["server", "hung server", *ranks]
        our_results = measure(f"glm-worker, {shape}", ours, question.expect, victims, arguments.kills)
        peer_results: dict[Victim, Result] = {}
        if arguments.peer_kills:
            peer_results = measure(f"torchrun, {shape}", peer, question.expect, ranks, arguments.peer_kills)
        for victim, result in our_results.items():
            goal_s = _rank_goal_s(question.device, pods) if isinstance(victim, int) else SERVER_GOAL_S
            lines.append(
                _line(f"{question.device}, {shape}, {_named(victim)}", goal_s, result, peer_results.get(victim))
            )
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["met"] for line in lines) else 1


def _shapes(device: str) -> list[tuple[int, int]]:
    """Return pods and ranks of a pod. Pods of one machine would share its GPUs, so there is one."""
    if device == "cpu":
        return [(1, 2), (2, 1)]
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True)
    return [(1, min(2, len(listed.stdout.splitlines())))]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _named(victim: Victim) -> str:
    return f"rank {victim}" if isinstance(victim, int) else victim


def _rank_goal_s(device: str, pods: int) -> float:
    return CUDA_GOAL_S if device == "cuda" else CPU_GOALS_S[pods]


def _line(case: str, goal_s: float, ours: Result, peer: Result | None) -> dict[str, object]:
    seconds = percentile(ours.seconds, 95)
    peer_seconds = percentile(peer.seconds, 95) if peer else None
    return {
        "bench": "recovery",
        "metric": f"p95 seconds from SIGKILL to the next right answer, {case}, {len(ours.seconds)} kills",
        "ours": round(seconds, 3),
        "answer_alone": round(percentile(ours.undisturbed, 50), 3),
        "peer": peer_seconds and round(peer_seconds, 3),
        "ratio": peer_seconds and round(peer_seconds / seconds, 1),
        "goal": goal_s,
        "met": seconds <= goal_s and not ours.num_lost,
        "lost": ours.num_lost,
        "peer_lost": peer and peer.num_lost,
    }


if __name__ == "__main__":
    sys.exit(main())
