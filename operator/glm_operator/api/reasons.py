"""Every reason of a condition or an Event: how bad it is, what it means, what to do. Pure.

The one list: the descriptions that `kubectl explain` prints and the runbook docs/operations.md are made from it. The
order is the severity, worst first: of several groups that are down, it decides which one is reported.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Reason = Literal[
    # what keeps a group, or a write, from being
    "ContainerConfigError",
    "ImagePullFailed",
    "LoadFailed",
    "CrashLooping",
    "Unschedulable",
    "NameConflict",
    "ApplyRefused",
    "WriteDenied",
    "WriteFailed",
    "NodeLost",
    "GroupsNotReady",
    # what is refused, or stands still
    "InvalidSpec",
    "LayoutRefused",
    "EditRefused",
    "RolloutStuck",
    # on its way
    "GroupsStarting",
    "GroupsPending",
    "RollingOut",
    "ScalingDown",
    "RolloutPaused",
    "RolloutStarted",
    "GroupMoved",
    "GroupReplaced",
    "RolledBack",
    "RolloutCompleted",
    "RenderingAdopted",
    "NewerRendering",
    "OlderWorkers",
    # as it should be
    "LayoutFound",
    "AllGroupsReady",
    "ScaledToZero",
    "UpToDate",
    "Settled",
    "Healthy",
]


class Severity(Enum):
    """What a person has to do about it."""

    BAD = "somebody has to act, or it lasts"
    WAITING = "it changes by itself"
    FINE = "as it should be"


@dataclass(frozen=True)
class Meaning:
    """One reason, for people."""

    severity: Severity
    sentence: str
    remedy: str


def _bad(sentence: str, remedy: str) -> Meaning:
    return Meaning(Severity.BAD, sentence, remedy)


def _waiting(sentence: str, remedy: str = "Wait.") -> Meaning:
    return Meaning(Severity.WAITING, sentence, remedy)


def _fine(sentence: str, remedy: str = "Nothing.") -> Meaning:
    return Meaning(Severity.FINE, sentence, remedy)


REASONS: dict[Reason, Meaning] = {
    "ContainerConfigError": _bad(
        "the kubelet cannot create or start a container",
        "Read the message: it names the volume, Secret or runtime that fails. Fix it; the kubelet tries again.",
    ),
    "ImagePullFailed": _bad(
        "the image cannot be pulled",
        "Check engine.image, engine.imagePullSecrets and the registry. `kubectl glm rollout undo NAME` goes back.",
    ),
    "LoadFailed": _bad(
        "a rank failed while it started or loaded the model",
        "Read status.groups[].lastFailure and the pod's log. Check model.source, memory and the GPUs of the node.",
    ),
    "CrashLooping": _bad(
        "a container ends again and again",
        "Read the last words in the message and `kubectl logs --previous`.",
    ),
    "Unschedulable": _bad(
        "no node takes a pod",
        "Free or add nodes with the resources that the message names, or lower spec.replicas.",
    ),
    "NameConflict": _bad(
        "an object with a name we need belongs to somebody else",
        "Delete or rename that object, or use another name for this GLMDeployment. Nothing is taken over.",
    ),
    "ApplyRefused": _bad(
        "the API server refuses an object made from the spec",
        "Fix the field that the message names. Running groups stay on the last accepted spec.",
    ),
    "WriteDenied": _bad(
        "a quota, an admission webhook or missing permissions forbid a write; it is tried again",
        "Raise the quota, or change the policy or the role that the message names.",
    ),
    "WriteFailed": _bad(
        "the API server, or a webhook it calls, failed to do a write; it is tried again",
        "Check the API server and the webhook that the message names.",
    ),
    "NodeLost": _bad(
        "a node does not answer, and pods of a group hang on it; after rollout.nodeLossSeconds the group is replaced",
        "Repair the node, or delete it: `kubectl delete node NODE` removes its pods. We force-delete nothing.",
    ),
    "GroupsNotReady": _bad(
        "a group that served is starting again, or its pods do not meet",
        "Wait for the reload. If it lasts: read status.groups[].lastFailure, and check NetworkPolicies between pods.",
    ),
    "InvalidSpec": _bad(
        "a field, or two together, are not allowed; the message has the value and what is allowed",
        "Fix the field. Running groups stay on the last accepted spec.",
    ),
    "LayoutRefused": _bad(
        "no group fits this layout; the message says what does",
        "Use a value that the message lists. `glm plan -f FILE` checks it without a cluster.",
    ),
    "EditRefused": _bad(
        "the newest edit was refused, and groups stay on the last accepted spec",
        "Fix the edit, or take it back: `kubectl glm rollout undo NAME`.",
    ),
    "RolloutStuck": _bad(
        "a group did not become available at the new revision in time; no further group is moved",
        "Remove the cause that the message names: the rollout then goes on. Or `kubectl glm rollout undo NAME`.",
    ),
    "GroupsStarting": _waiting(
        "containers start, ranks meet and load; status.groups[].load shows how far",
    ),
    "GroupsPending": _waiting("pods are created, scheduled or drained"),
    "RollingOut": _waiting("groups move to the newest revision, one after the other"),
    "ScalingDown": _waiting("groups that are no longer wanted finish their requests"),
    "RolloutPaused": _waiting(
        "spec.rollout.paused holds the rollout; scaling and repair go on",
        "`kubectl glm rollout resume NAME` goes on.",
    ),
    "RolloutStarted": _waiting("a new revision was accepted, and groups begin to move to it"),
    "GroupMoved": _waiting("a group was moved to the newest revision"),
    "GroupReplaced": _waiting("a group was taken away, and another takes its place at another index"),
    "RolledBack": _waiting("an earlier revision was accepted again, and groups move back to it"),
    "RolloutCompleted": _fine("every group runs the newest revision"),
    "RenderingAdopted": _waiting("the rendering of this operator version was adopted, and groups move to it"),
    "NewerRendering": _fine(
        "this operator version would render the pods differently; running groups stay as they are",
        "`kubectl glm rollout adopt NAME` takes the newer rendering, or set spec.rollout.adopt to Automatic.",
    ),
    "OlderWorkers": _fine(
        "workers do not report their tokens in flight; a scale-down then chooses by index",
        "Use a worker image of this version.",
    ),
    "LayoutFound": _fine("the spec can be laid out"),
    "AllGroupsReady": _fine("every wanted group serves"),
    "ScaledToZero": _fine("no group is wanted", "`kubectl scale glmd/NAME --replicas=1` brings one back."),
    "UpToDate": _fine("groups are rendered as this operator version would render them"),
    "Settled": _fine("up to date"),
    "Healthy": _fine("healthy"),
}
"""What every reason means. Ready takes the reason of what keeps it from being true."""

_ORDER = {reason: place for place, reason in enumerate(REASONS)}


def is_bad(reason: Reason) -> bool:
    """Whether somebody has to act."""
    return REASONS[reason].severity is Severity.BAD


def rank(reason: Reason) -> int:
    """Return the place of a reason in the order of severity; the worst is 0."""
    return _ORDER[reason]


def explained() -> str:
    """Return every reason with its sentence, for the description of a field."""
    return " ".join(f"{reason}: {meaning.sentence}." for reason, meaning in REASONS.items())
