"""The status of a GLMDeployment as Python types: filled by `glm_operator.status`, and part of the generated CRD. Pure.

The CRD gives the status types and descriptions, but no enums, bounds or required fields (`crd.py`): an operator that is
newer than the CRD must be able to write what it sees.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, StringConstraints

from glm_operator.api.fields import ApiModel
from glm_operator.api.reasons import Reason, explained

ConditionType = Literal[
    "Planned",
    "GroupsReady",
    "Progressing",
    "Degraded",
    "UpToDate",
    "MetricsAvailable",
    "ScalingActive",
    "SLOMet",
    "PolicyApplied",
    "SettingsKnown",
    "GatewayReady",
    "Ready",
    "Reconciling",
    "Stalled",
]
ConditionStatus = Literal["True", "False", "Unknown"]

CONDITION_TYPES: dict[ConditionType, str] = {
    "Planned": "the newest spec was accepted",
    "GroupsReady": "every wanted group serves",
    "Progressing": "something is on its way",
    "Degraded": "somebody has to act",
    "UpToDate": "groups are rendered as this operator version would render them",
    "MetricsAvailable": "what the workers measure can be read",
    "ScalingActive": "the operator sets spec.replicas",
    "SLOMet": "every class of requests is as fast as promised",
    "PolicyApplied": "every group that serves treats requests as spec.reasoning and spec.access say",
    "SettingsKnown": "every group knows the settings that its pods were given",
    "GatewayReady": "clients come through a gateway that serves",
    "Ready": "clients are served",
    "Reconciling": "as Progressing, for kstatus (Flux, Argo CD)",
    "Stalled": "nothing more happens before somebody acts, for kstatus (Flux, Argo CD)",
}
"""What every condition claims."""

GroupState = Literal["Pending", "Starting", "Ready", "NotReady", "BackingOff", "Draining"]

GROUP_STATES: dict[GroupState, str] = {
    "Pending": "its pods are created, scheduled or drained, or something keeps them from it",
    "Starting": "its containers start, its ranks meet and load",
    "Ready": "it serves",
    "NotReady": "it served and is starting again, or its pods do not meet, or one is lost with its node",
    "BackingOff": "a start failed, and the next one waits",
    "Draining": "it is no longer wanted: it finishes its requests and goes",
}
"""What every state of a group means."""


def _explained(meanings: Iterable[tuple[str, str]]) -> str:
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

    type: ConditionType = Field(description=f"What is claimed. {_explained(CONDITION_TYPES.items())}")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: Reason = Field(description=f"Why, in one word for programs. {explained()}")
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
    state: GroupState = Field(
        description=f"Where it stands; derived, drives nothing. {_explained(GROUP_STATES.items())}"
    )
    generation: str | None = Field(default=None, description="Generation of its ranks that runs now.")
    load: LoadProgress | None = Field(default=None, description="Progress of loading, while it starts.")
    restarts: int = Field(description="Generations that died while serving, and restarts of containers.")
    last_failure: Failure | None = Field(default=None, description="What failed last.")


class LatencyStatus(ApiModel):
    """How fast requests of all classes are, over the last five minutes. Texts, as in 420ms; none without traffic."""

    ttft_p95: str | None = Field(default=None, alias="ttftP95", description="Time to the first token.")
    ttfa_p95: str | None = Field(default=None, alias="ttfaP95", description="Time to the first token of the answer.")
    itl_p95: str | None = Field(default=None, alias="itlP95", description="Time between two tokens.")


class SloClassStatus(ApiModel):
    """How a class fares, over the last five minutes; the error budget over the class's window."""

    name: str = Field(description="Name of the class.")
    met: bool | None = Field(default=None, description="Whether every threshold holds; none without traffic.")
    ttft: str | None = Field(default=None, description="Time to the first token, at the class's percentile.")
    ttfa: str | None = Field(default=None, description="Time to the first answer token, at that percentile.")
    itl: str | None = Field(default=None, description="Time between two tokens, at that percentile.")
    e2e: str | None = Field(default=None, alias="e2e", description="Time to the last token, at that percentile.")
    attainment: str | None = Field(default=None, description="Share of requests that met every threshold, as in 99.2%.")
    budget_left: str | None = Field(
        default=None, description="Error budget left of the window, as in 87%; below 0% it is overspent."
    )
    infeasible: Text | None = Field(default=None, description="Why more groups cannot keep it, where that is so.")


class SloStatus(ApiModel):
    """Whether promises are kept."""

    attainment: str | None = Field(default=None, description="Attainment of the class that fares worst.")
    budget_left: str | None = Field(default=None, description="Least error budget left of any class.")
    classes: list[SloClassStatus] = Field(default=[], description="Each class of spec.slo.")


InputState = Literal["Value", "Idle", "Unknown", "Stale"]

INPUT_STATES: dict[InputState, str] = {
    "Value": "measured",
    "Idle": "known to be nothing: fresh data, no request in flight and none coming",
    "Unknown": "no data",
    "Stale": "data too old to decide on",
}
"""What every state of an input means."""


class SignalStatus(ApiModel):
    """One input of the last decision."""

    name: str = Field(description="Which input, with its unit.")
    state: InputState = Field(description=_explained(INPUT_STATES.items()))
    value: str | None = Field(default=None, description="Its value.")
    measured_at: Timestamp | None = Field(default=None, description="Time of the oldest sample in it, UTC.")


class ScalingEvent(ApiModel):
    """One decision that changed, or wanted to change, the number of groups."""

    time: Timestamp = Field(description="When, UTC.")
    from_groups: int = Field(alias="from", description="Groups before.")
    to_groups: int = Field(alias="to", description="Groups after.")
    reason: str = Field(description="What it was for, in one word.")
    message: Text = Field(description="The numbers it was decided on.")
    limited_by: str | None = Field(default=None, description="What kept it from going further.")


class ScalingStatus(ApiModel):
    """What the autoscaler decided last, and on what."""

    mode: str = Field(description="spec.scaling.mode.")
    desired: int | None = Field(default=None, description="Groups it decided on, within all limits.")
    current: int | None = Field(default=None, description="spec.replicas as it was then.")
    starting: int | None = Field(default=None, description="Of them, groups that do not serve yet.")
    limited_by: str | None = Field(default=None, description="What kept the decision from what the load asks for.")
    message: Text | None = Field(default=None, description="The last decision in a sentence.")
    source: str | None = Field(default=None, description="Where the numbers come from: Prometheus or Workers.")
    last_scale_time: Timestamp | None = Field(default=None, description="When it last changed the number of groups.")
    last_scale: Text | None = Field(default=None, description="How and why, as in `1 -> 3: ...`.")
    signals: list[SignalStatus] = Field(default=[], description="The inputs.")
    history: list[ScalingEvent] = Field(default=[], description="The last ten changes, newest first.")


class GatewayPodStatus(ApiModel):
    """What one pod of the gateway counts."""

    name: str = Field(description="Name of the pod.")
    cut_requests: int = Field(description="Requests that were cut, since it began.")


class GatewayStatus(ApiModel):
    """What pods of the gateway tell."""

    cut_requests: int | None = Field(
        default=None,
        description="Requests that ended in an error, so far, because the drain of their group was over before they "
        "were. What another group went on with is none of them. Of groups without frames only what broke off is known.",
    )
    pods: list[GatewayPodStatus] = Field(
        default=[], description="What of it the pods that are there count: their next counts are added from here on."
    )


class GLMDeploymentStatus(ApiModel):
    """What exists, as seen in the last pass."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec the status speaks of.")
    replicas: int | None = Field(default=None, description="Groups that exist (read by the scale subresource).")
    ready_replicas: int | None = Field(default=None, description="Groups that are ready.")
    ready: str | None = Field(default=None, description="Ready groups of wanted ones, as in 2/3.")
    updated_replicas: int | None = Field(default=None, description="Wanted groups at the newest revision.")
    up_to_date: str | None = Field(default=None, description="Groups at the newest revision of wanted ones, as in 2/3.")
    gpus: int | None = Field(default=None, description="GPUs all wanted groups take.")
    selector: str | None = Field(default=None, description="Selects the rank-0 pods, so that an HPA counts groups.")
    revision: str | None = Field(default=None, description="Revision the groups are moved to.")
    newer_revision: str | None = Field(
        default=None, description="Revision of the rendering of this operator version, where it is another one."
    )
    endpoint: str | None = Field(default=None, description="Base URL of the OpenAI API, inside the cluster.")
    plan: PlanStatus | None = Field(default=None, description="How one copy of the model lies over ranks and pods.")
    groups: list[GroupStatus] | None = Field(
        default=None, description="The replica groups; of very many, those that are not ready first."
    )
    groups_omitted: int | None = Field(default=None, description="Groups that are not listed, for the size of it.")
    group_states: dict[str, int] | None = Field(default=None, description="How many groups are in each state.")
    latency: LatencyStatus | None = Field(default=None, description="How fast requests are.")
    slo: SloStatus | None = Field(default=None, description="Whether promises are kept.")
    scaling: ScalingStatus | None = Field(default=None, description="What the autoscaler decided last, and on what.")
    gateway: GatewayStatus | None = Field(default=None, description="What pods of the gateway tell.")
    conditions: list[Condition] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description=f"{', '.join(CONDITION_TYPES)}.",
    )
