"""The status of a GLMDeployment as Python types: filled by `conditions.py`, and part of the generated CRD. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, StringConstraints

from glm_operator.api.fields import ApiModel

ConditionType = Literal["Planned", "GroupsReady", "Progressing", "Degraded", "Ready"]
ConditionStatus = Literal["True", "False", "Unknown"]

Reason = Literal[
    "LayoutFound",
    "InvalidSpec",
    "LayoutRefused",
    "AllGroupsReady",
    "ScaledToZero",
    "GroupsPending",
    "GroupsStarting",
    "GroupsNotReady",
    "EditRefused",
    "Unschedulable",
    "ImagePullFailed",
    "ContainerConfigError",
    "CrashLooping",
    "LoadFailed",
    "NameConflict",
    "ApplyRefused",
    "WriteDenied",
    "WriteFailed",
    "Settled",
    "RollingOut",
    "ScalingDown",
    "Healthy",
]

REASONS: dict[Reason, str] = {
    # Planned
    "LayoutFound": "the spec can be laid out",
    "InvalidSpec": "a field, or two together, cannot be; the message has the value and what is allowed",
    "LayoutRefused": "no group can be laid out so, or amounts contradict each other; the message says what can be",
    # GroupsReady and Ready; GroupsNotReady also of Degraded
    "AllGroupsReady": "every wanted group serves",
    "ScaledToZero": "no group is wanted",
    "GroupsPending": "pods are being made, placed or drained",
    "GroupsStarting": "containers start, ranks meet and load; status.groups[].load shows how far",
    "GroupsNotReady": "a group that served is starting anew, or its pods do not meet, or one is lost with its node",
    "EditRefused": "the newest edit was refused, and groups stay with the last accepted spec",
    # what keeps a group down; also of Degraded
    "Unschedulable": "no node takes a pod",
    "ImagePullFailed": "the image cannot be pulled",
    "ContainerConfigError": "the kubelet cannot make or start a container",
    "CrashLooping": "a container ends again and again",
    "LoadFailed": "a rank failed while it started or loaded the model",
    "NameConflict": "an object of a name we need belongs to somebody else",
    "ApplyRefused": "the API server refuses an object made from the spec",
    "WriteDenied": "a quota, an admission webhook or missing permissions forbid a write; it is tried again",
    "WriteFailed": "the API server, or a webhook it asks, failed to do a write; it is tried again",
    # Progressing
    "Settled": "nothing is to be done",
    "RollingOut": "groups are moved to the newest revision",
    "ScalingDown": "groups that are no longer wanted are draining",
    # Degraded
    "Healthy": "nothing is wrong",
}
"""What every reason of a condition means. Ready takes the reason of what keeps it from being true."""

GroupState = Literal["Pending", "Starting", "Ready", "NotReady", "BackingOff", "Draining"]

GROUP_STATES: dict[GroupState, str] = {
    "Pending": "its pods are being made, placed or drained, or something keeps them from it",
    "Starting": "its containers start, its ranks meet and load",
    "Ready": "it serves",
    "NotReady": "it served and is starting anew, or its pods do not meet, or one is lost with its node",
    "BackingOff": "a start failed, and the next one waits",
    "Draining": "it is no longer wanted: it finishes its requests and goes",
}
"""What every state of a group means."""


def _told(meanings: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{word}: {meaning}." for word, meaning in meanings)


Timestamp = Annotated[
    datetime,
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    Field(description="Time, UTC."),
]
MAX_TEXT = 4096
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class Condition(ApiModel):
    """One condition, in the shape of metav1.Condition."""

    type: ConditionType = Field(description="What is claimed.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: Reason = Field(description=f"Why, in one word for programs. {_told(REASONS.items())}")
    message: Text = Field(description="Why, in a sentence for people.")
    observed_generation: int = Field(description="Generation of the spec this was said about.")
    last_transition_time: Timestamp = Field(description="When status last flipped.")


class PlanStatus(ApiModel):
    """How one copy of the model lies over ranks and pods."""

    tensor: int = Field(description="Ranks the attention heads are split over.")
    expert: int = Field(description="Ranks the experts are split over: the ranks of a group.")
    ranks_per_pod: int = Field(description="Ranks of one pod.")
    pods_per_group: int = Field(description="Pods of one group.")
    gpus_per_group: int = Field(description="GPUs of one group; 0 on cpu.")
    parameters: int | None = Field(default=None, description="Parameters of the model, where its shape is known.")
    weight_bytes_per_rank: int | None = Field(default=None, description="Bytes of weights one rank holds.")
    kv_bytes_per_token_per_rank: int | None = Field(
        default=None, description="Bytes of KV cache a token takes on a rank."
    )


class LoadProgress(ApiModel):
    """Bytes of weights the group has read and will read, while it starts."""

    done_bytes: int = Field(description="Bytes read so far, over all ranks of the group.")
    total_bytes: int = Field(description="Bytes to read.")


class Failure(ApiModel):
    """The first rank that failed when a group's last generation ended, or a container that died, and why."""

    rank: int | None = Field(default=None, description="Global rank; none if a container died as a whole.")
    pod: str | None = Field(default=None, description="Pod of that rank.")
    reason: Text = Field(description="exited, killed, hung, peer_lost, server_died, failed; or the kubelet's word.")
    message: Text = Field(description="What it said last.")
    time: Timestamp | None = Field(default=None, description="When.")


class GroupStatus(ApiModel):
    """One replica group, as seen in the last pass."""

    name: str = Field(description="Name of the group and of its StatefulSet.")
    revision: str = Field(description="Revision its StatefulSet is frozen at.")
    ready: bool = Field(description="All its pods are ready and of its revision.")
    state: GroupState = Field(description=f"Where it stands; derived, drives nothing. {_told(GROUP_STATES.items())}")
    generation: str | None = Field(default=None, description="Generation of its ranks that runs now.")
    load: LoadProgress | None = Field(default=None, description="Progress of loading, while it starts.")
    restarts: int = Field(description="Generations that died while serving, and restarts of containers.")
    last_failure: Failure | None = Field(default=None, description="What failed last.")


class GLMDeploymentStatus(ApiModel):
    """What exists, as seen in the last pass."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec the status speaks of.")
    replicas: int | None = Field(default=None, description="Groups that exist (read by the scale subresource).")
    ready_replicas: int | None = Field(default=None, description="Groups that are ready.")
    ready: str | None = Field(default=None, description="Ready groups of wanted ones, as in 2/3.")
    gpus: int | None = Field(default=None, description="GPUs all wanted groups take.")
    selector: str | None = Field(default=None, description="Selects the rank-0 pods, so that an HPA counts groups.")
    revision: str | None = Field(default=None, description="Revision the groups are moved to.")
    endpoint: str | None = Field(default=None, description="Base URL of the OpenAI API, inside the cluster.")
    plan: PlanStatus | None = Field(default=None, description="How one copy of the model lies over ranks and pods.")
    groups: list[GroupStatus] | None = Field(default=None, max_length=1100, description="The replica groups.")
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Planned, GroupsReady, Progressing, Degraded, Ready.",
    )
