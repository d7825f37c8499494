"""The communicator between real gloo ranks."""

import os
import signal
from pathlib import Path

import pytest
import torch

from glm_worker.errors import EngineFailed
from glm_worker.kernels.cpu.exchange import NUM_FLOATS
from glm_worker.parallel import groups
from glm_worker.parallel.mesh import Axis
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.environment import zygote_environment
from integration.free_ports import free_port
from integration.listening import listening
from integration.rank_pool import Rank, RankFailedError, an_assignment, hold_torch_to_one_thread, run_ranks

hold_torch_to_one_thread()

MESHES = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)]


@pytest.mark.parametrize("in_one_pod", [False, True])
@pytest.mark.parametrize(("world_size", "tensor_parallel"), MESHES)
def test_collectives_stay_inside_their_axis_and_are_told_to_the_watch(
    tmp_path: Path, world_size: int, tensor_parallel: int, *, in_one_pod: bool
) -> None:
    def exchange(rank: Rank) -> tuple[float, float, list[int], int, int, int]:
        own = float(2**rank.mesh.rank)
        met = rank.watch.entered
        over_tp = rank.comm.all_reduce(torch.tensor([own]), Axis.TP).item()
        over_ep = rank.comm.all_reduce(torch.tensor([own]), Axis.EP).item()
        gathered = rank.comm.all_gather(torch.tensor([[rank.mesh.rank]]), Axis.TP)[0].tolist()
        return over_tp, over_ep, gathered, met, rank.watch.left, rank.watch.alive_signs

    meeting_dir = tmp_path if in_one_pod else None
    for rank, found in enumerate(run_ranks(exchange, world_size, tensor_parallel, meeting_dir=meeting_dir)):
        start = rank - rank % tensor_parallel
        group = list(range(start, start + tensor_parallel))
        exchanges = 2 * (tensor_parallel > 1) + (world_size > 1)  # two over tp, one over all
        met = int(world_size > 1)
        alone = 3 - exchanges  # on an axis of one rank nothing is exchanged, but the rank says that it is alive
        expected = (sum(2**r for r in group), 2**world_size - 1, group, met, met + exchanges, alone)
        assert found == expected


def test_a_sum_over_many_ranks_does_not_depend_on_what_else_is_summed() -> None:
    """gloo adds up an element in an order that its place decides: another step, other bits."""

    def exchange(rank: Rank) -> list[list[float]]:
        values = torch.randn(1000, generator=torch.Generator().manual_seed(rank.mesh.rank))
        return [rank.comm.all_reduce(values[:size].clone(), Axis.EP)[:3].tolist() for size in (3, 64, 997, 1000)]

    parts = [torch.randn(1000, generator=torch.Generator().manual_seed(rank))[:3] for rank in range(4)]
    expected = (((parts[0] + parts[1]) + parts[2]) + parts[3]).tolist()
    assert run_ranks(exchange, 4, 1) == [[expected] * 4] * 4


def test_ranks_of_one_pod_add_up_in_the_order_of_ranks_whatever_the_size(tmp_path: Path) -> None:
    sizes = (1, 1000, NUM_FLOATS, NUM_FLOATS + 1, 3 * NUM_FLOATS + 7)

    def part(rank: int, size: int) -> torch.Tensor:
        return torch.randn(size, generator=torch.Generator().manual_seed(100 * rank + size))

    def exchange(rank: Rank) -> tuple[set[Axis], list[bool]]:
        found = [rank.comm.all_reduce(part(rank.mesh.rank, size), Axis.EP) for size in sizes]
        expected = [((part(0, size) + part(1, size)) + part(2, size)) + part(3, size) for size in sizes]
        return {*rank.comm._exchanges}, [torch.equal(*pair) for pair in zip(found, expected, strict=True)]

    found = run_ranks(exchange, 4, 2, meeting_dir=tmp_path)
    assert found == [({Axis.EP, Axis.TP}, [True] * len(sizes))] * 4


@pytest.mark.parametrize("lacks", ["a file", "pidfds", "a Python with pidfds"])
def test_where_one_rank_cannot_share_memory_none_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def refuse(_: int) -> int:
        raise OSError("no pidfds here")

    def make(rank: Rank) -> bool:
        folder = tmp_path / ("missing" if lacks == "a file" and rank.mesh.rank == 1 else ".")
        if lacks == "pidfds" and rank.mesh.rank == 1:
            monkeypatch.setattr("os.pidfd_open", refuse)
        if lacks == "a Python with pidfds" and rank.mesh.rank == 1:
            monkeypatch.delattr("os.pidfd_open")
        return groups._shared_exchange(folder / "exchange", rank.mesh.rank, 2, rank.comm._groups[Axis.EP]) is None

    assert run_ranks(make, 2) == [True, True]


def test_what_ranks_share_has_no_name_once_they_have_met(tmp_path: Path) -> None:
    def shared(rank: Rank) -> list[str]:
        rank.comm.all_reduce(torch.ones(1), Axis.EP)
        maps = Path("/proc/self/maps").read_text().splitlines()
        return [line.rpartition(" (")[2] for line in maps if "/dev/shm/glm-" in line]

    assert run_ranks(shared, 2, 2, meeting_dir=tmp_path) == [["deleted)"]] * 2


def test_nothing_to_exchange_is_no_exchange() -> None:
    def exchange(rank: Rank) -> tuple[list[int], list[int], int]:
        before = rank.watch.entered
        reduced = rank.comm.all_reduce(torch.empty(0, 5), Axis.EP)
        gathered = rank.comm.all_gather(torch.empty(0, 5), Axis.TP)
        return list(reduced.shape), list(gathered.shape), rank.watch.entered - before

    assert run_ranks(exchange, 2, 2) == [([0, 5], [0, 10], 0)] * 2


def test_ranks_of_one_pod_meet_by_files_and_listen_on_loopback_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gloo connects the ranks over TCP whatever the store is."""
    environment = zygote_environment(WorkerSettings(model="m", ranks_per_pod=4), {})
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", environment["GLOO_SOCKET_IFNAME"])

    def exchange(rank: Rank) -> tuple[float, float, set[str]]:
        over_tp, over_ep = (rank.comm.all_reduce(torch.ones(1), axis).item() for axis in (Axis.TP, Axis.EP))
        return over_tp, over_ep, {address for address, _ in listening()}

    assert run_ranks(exchange, 4, 2, meeting_dir=tmp_path) == [(2.0, 4.0, {"127.0.0.1"})] * 4


def test_ranks_of_two_generations_share_no_keys_even_at_one_port(tmp_path: Path) -> None:
    """torch hosts a store on every address: two groups that differ only in theirs reach one and the same."""
    port = free_port()

    def store_of(rank: Rank, secret: str):
        return groups._store(an_assignment(rank.mesh, port, secret=secret))

    def meet(rank: Rank) -> tuple[list[bool], bool]:
        found, shows_secret = [], False
        if rank.mesh.rank == 0:
            store = store_of(rank, "ours")
            store.set("address of rank 0", "here")
        rank.comm.all_reduce(torch.ones(1), Axis.EP)  # the key is set
        if rank.mesh.rank == 1:
            stores = {secret: store_of(rank, secret) for secret in ("ours", "theirs")}
            found = [store.check(["address of rank 0"]) for store in stores.values()]
            shows_secret = any("ours" in key for key in stores["theirs"].list_keys())
        rank.comm.all_reduce(torch.ones(1), Axis.EP)  # rank 0 may end, and the store with it
        return found, shows_secret

    assert run_ranks(meet, 2, meeting_dir=tmp_path)[1] == ([True, False], False)


def test_bf16_is_summed_too() -> None:
    def exchange(rank: Rank) -> list[float]:
        return rank.comm.all_reduce(torch.full((3,), 1.5, dtype=torch.bfloat16), Axis.EP).tolist()

    assert run_ranks(exchange, 2) == [[3.0] * 3] * 2


@pytest.mark.parametrize("in_one_pod", [False, True])
def test_a_lost_peer_fails_the_engine_of_the_other(tmp_path: Path, *, in_one_pod: bool) -> None:
    def exchange_for_ever(rank: Rank) -> None:
        while True:
            rank.comm.all_reduce(torch.ones(1), Axis.EP)
            if rank.mesh.rank == 1:  # which has met the other by now
                os.kill(os.getpid(), signal.SIGKILL)

    def exchange(rank: Rank) -> str:
        with pytest.raises(EngineFailed) as caught:
            exchange_for_ever(rank)
        assert rank.watch.entered == rank.watch.left
        return str(caught.value)

    message, nothing = run_ranks(exchange, 2, meeting_dir=tmp_path if in_one_pod else None, dying=frozenset({1}))
    assert message.startswith("all_reduce over ep failed: ")
    assert nothing is None


def test_a_rank_that_fails_ends_the_run_with_its_traceback() -> None:
    """The pool itself: the rank that waits for the failed one must not hold the test up."""

    def fail(rank: Rank) -> None:
        if rank.mesh.rank == 1:
            raise ValueError("of no use")
        rank.comm.all_reduce(torch.ones(1), Axis.EP)

    with pytest.raises(RankFailedError, match=r"rank [01] failed:\n"):
        run_ranks(fail, 2)
