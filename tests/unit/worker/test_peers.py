"""What the leader thinks of its followers, without connections."""

from typing import Any

from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.group.peers import SILENT_S, Peers, _Peer
from glm_worker.supervisor.group.protocol import Hello, PodOver, StartGeneration, hello_of

START = StartGeneration("g-1", "secret", store_port=1, channel_port=2)


class NoLink:
    """A connection that takes everything and says nothing."""

    def send(self, message: Any) -> None: ...

    def close(self) -> None: ...


def peers_of(num_pods: int) -> Peers:
    settings = WorkerSettings(model="builtin://glm-nano", num_pods=num_pods)
    peers = Peers(settings, "leader", on_change=lambda: None, on_failure=lambda *_: None, on_lost=lambda *_: None)
    for pod in range(1, num_pods):
        join(peers, pod)
    return peers


def join(peers: Peers, pod: int) -> _Peer:
    peers._peers[pod] = _Peer(a_hello(pod), NoLink())  # type: ignore[arg-type]
    return peers._peers[pod]


def a_hello(pod: int) -> Hello:
    return hello_of(WorkerSettings(model="builtin://glm-nano", num_pods=9, pod_index=pod), f"pod-{pod}")


def test_a_generation_is_over_when_every_pod_that_had_it_says_so() -> None:
    peers = peers_of(3)
    peers.start(START)
    peers._hear(peers._peers[1], PodOver("g-1", []))
    assert not peers.is_over("g-1")
    peers._hear(peers._peers[2], PodOver("g-1", []))
    assert peers.is_over("g-1")


def test_a_pod_that_has_come_back_is_not_asked_to_end_what_it_never_had() -> None:
    peers = peers_of(3)
    peers.start(START)
    back = join(peers, 1)
    peers._hear(peers._peers[2], PodOver("g-1", []))
    assert peers.is_over("g-1")
    peers.drop_unfinished("g-1")
    assert peers._peers[1] is back


def test_a_pod_is_silent_from_the_first_missed_words_until_it_speaks() -> None:
    peers = peers_of(2)
    peers.check_silence(0.0)
    peers.check_silence(SILENT_S / 2)
    assert not peers.is_any_silent()
    peers.check_silence(SILENT_S)
    assert peers.is_any_silent()
    peers._peers[1].num_messages += 1
    peers.check_silence(SILENT_S + 0.1)
    assert not peers.is_any_silent()


def test_pods_that_are_away_or_not_ready_are_unfit() -> None:
    peers = peers_of(3)
    assert peers.unfit == [1, 2]
    peers._peers[1].report = type(peers._peers[1].report)(generation=None, can_start=True, ranks=[])
    del peers._peers[2]
    assert (peers.unfit, peers.missing, peers.can_start) == ([2], [2], False)
