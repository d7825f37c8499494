"""Messages between the supervisors of a group's pods: followers dial the leader, frames as in glm_worker.control.

A follower greets with Hello and is answered with Welcome or Refused. From then on both sides say something several
times a second (Report, Status), so silence means that the pod is lost.

The port trusts its network: whoever reaches it may greet as a pod of the group, and is then told the generation's
secret. Only the pods of the group should be let through to it.
"""

import hashlib

import msgspec

from glm_worker.errors import ConfigError
from glm_worker.models import resolve
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.history import State
from glm_worker.supervisor.evidence.watchdog import RankReport

_EQUAL_SETTINGS = (
    "block_size",
    "cuda_kernels",
    "device",
    "dtype",
    "kv_cache_bytes",
    "kv_cache_dtype",
    "look_ahead",
    "max_batch_tokens",
    "max_model_len",
    "max_num_seqs",
    "tensor_parallel",
)
_CONFIG = "config.json"
_UNREADABLE = "unreadable"

# follower -> leader


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Who dials, and what must be equal in all pods of a group.

    terms: of the model and of whatever decides what a step is, by name. Ranks that differ in one of them would wait for
    each other in collectives of other shapes, or answer wrongly.
    """

    group: str
    revision: str
    pod_index: int
    num_pods: int
    ranks_per_pod: int
    terms: dict[str, str]
    incarnation: str

    @property
    def has_model(self) -> bool:
        """Whether the pod could read its model."""
        return not self.terms[_CONFIG].startswith(_UNREADABLE)


class Report(msgspec.Struct, frozen=True, tag=True):
    """The pod's ranks now. can_start: its zygote stands by and no rank of an older generation is left."""

    generation: str | None  # to which the ranks belong
    can_start: bool
    ranks: list[RankReport]


class AgedCause(msgspec.Struct, frozen=True):
    """A failure, age_s before the message was sent: clocks of two machines are not comparable."""

    cause: Cause
    age_s: float


class PodFailed(msgspec.Struct, frozen=True, tag=True):
    """Something of this pod's share in the generation is dead. generation is None outside of one."""

    generation: str | None
    failure: AgedCause


class PodOver(msgspec.Struct, frozen=True, tag=True):
    """Answer to EndGeneration: no rank of it is left. failures: what had died before we killed the rest."""

    generation: str
    failures: list[AgedCause]


class Leaving(msgspec.Struct, frozen=True, tag=True):
    """This pod was told to stop. It keeps its ranks until the leader dismisses it."""


ToLeader = Hello | Report | PodFailed | PodOver | Leaving

# leader -> follower


class Welcome(msgspec.Struct, frozen=True, tag=True):
    incarnation: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    reason: str


class StartGeneration(msgspec.Struct, frozen=True, tag=True):
    """Fork the ranks. secret: made for this generation; neither shown nor logged."""

    generation: str
    secret: str
    store_port: int
    channel_port: int


class EndGeneration(msgspec.Struct, frozen=True, tag=True):
    generation: str


class Status(msgspec.Struct, frozen=True, tag=True):
    """The state of the group as /group and /readyz show it; sent several times a second, also as keep-alive.

    is_ready: whether the group serves. That its server is full of connections is a matter of the leader's pod alone.
    """

    state: State
    generation: str | None
    is_ready: bool


class Dismissed(msgspec.Struct, frozen=True, tag=True):
    """The leader needs this pod's ranks no more: a pod that is leaving may go."""


ToFollower = Welcome | Refused | StartGeneration | EndGeneration | Status | Dismissed


def terms_of(settings: WorkerSettings) -> dict[str, str]:
    """Return the terms of a pod: settings, and which config.json it has (a checksum, or why it cannot be read)."""
    terms = {name: str(getattr(settings, name)) for name in _EQUAL_SETTINGS}
    try:
        data = (resolve(settings.model) / _CONFIG).read_bytes()
        terms[_CONFIG] = hashlib.sha256(data).hexdigest()[:12]
    except (OSError, ConfigError) as error:
        terms[_CONFIG] = f"{_UNREADABLE}: {error}"
    return terms


def hello_of(settings: WorkerSettings, incarnation: str) -> Hello:
    """Return the greeting of a pod with these settings."""
    return Hello(
        group=settings.group,
        revision=settings.revision,
        pod_index=settings.pod_index,
        num_pods=settings.num_pods,
        ranks_per_pod=settings.ranks_per_pod,
        terms=terms_of(settings),
        incarnation=incarnation,
    )


def refusal(hello: Hello, leader: Hello) -> str | None:
    """Return why the leader of a group refuses the pod that says hello, or None to welcome it. Pure.

    leader: what the leader's own pod would say.
    """
    for name in ("group", "revision", "num_pods", "ranks_per_pod"):
        theirs, ours = getattr(hello, name), getattr(leader, name)
        if theirs != ours:
            return f"pod {hello.pod_index} is of {name} {theirs!r}, this group's is {ours!r}"
    for name in sorted(hello.terms.keys() | leader.terms.keys()):
        theirs, ours = hello.terms.get(name), leader.terms.get(name)
        if theirs != ours:
            return f"pod {hello.pod_index} has {name} {theirs}, this group's pod 0 has {ours}"
    if not 1 <= hello.pod_index < leader.num_pods:
        return f"pod_index {hello.pod_index} cannot follow; allowed are 1 to {leader.num_pods - 1}"
    return None
