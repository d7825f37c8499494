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
    # what autoscaling or a promise suffers from
    "NoSeries",
    "MetricsUnreachable",
    "MetricsRefused",
    "MetricsStale",
    "WatchSilent",
    "SLOInfeasible",
    "SLOMissed",
    "PromisesRefused",
    "PolicyNotTaken",
    "SettingsIgnored",
    "ScaleRefused",
    "GatewayFileRefused",
    "CertificatesFailed",
    "GroupsSpeakTLS",
    # on its way
    "MetricsMissing",
    "MetricsFallback",
    "PolicyPending",
    "SettingsUnheard",
    "GatewayStarting",
    "NoKeys",
    "NotServed",
    "PlainGroups",
    "AuthNotSaid",
    "DemandUnknown",
    "Woken",
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
    "ScaledUp",
    "ScaledDown",
    "ScaledByHand",
    # as it should be
    "ScalingDisabled",
    "ScalingExternal",
    "ScalingObserving",
    "ScalingByLoad",
    "NotMeasured",
    "NoTraffic",
    "NoPromise",
    "SLOKept",
    "PolicyTaken",
    "SettingsTaken",
    "GatewayServes",
    "GatewayDisabled",
    "MetricsRead",
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
    "NoSeries": _bad(
        "Prometheus answers, and has no series of groups that serve; nothing is scaled on what is not there",
        "Run the query of the message in Prometheus. Check that it scrapes the pods (docs/metrics.md, Scraping), and "
        "that no relabelling drops or renames the labels namespace and deployment.",
    ),
    "MetricsUnreachable": _bad(
        "Prometheus does not answer",
        "Check the URL of the operator's values (prometheus.url), its network policies and certificates.",
    ),
    "MetricsRefused": _bad(
        "Prometheus refuses the query or the credentials",
        "Read the message. Check the Secret that prometheus.* of the operator's values names.",
    ),
    "MetricsStale": _bad(
        "what Prometheus has of groups that serve is too old to decide on",
        "Look at the targets of Prometheus: scrapes of these pods fail or lag.",
    ),
    "WatchSilent": _bad(
        "the operator's watches of the API server say nothing, so it does not know what runs, and holds what there is",
        "Look at glm_operator_watch_age_seconds and the operator's log: the API server, or a proxy before it, sends "
        "nothing.",
    ),
    "SLOInfeasible": _bad(
        "one request alone takes longer than a class promises; more groups cannot help, and none are added for it",
        "Raise the threshold that the message names, shorten prompts, or use faster hardware or more ranks a group.",
    ),
    "SLOMissed": _bad(
        "requests of a class are slower than promised",
        "See status.scaling.limitedBy: raise scaling.max or the GPU budget if it names them. "
        "`kubectl glm status NAME` shows what limits.",
    ),
    "PromisesRefused": _bad(
        "workers that serve refuse spec.slo, and measure by other promises or by none; scaling by load goes on",
        "The message has each group and its answer. Use a worker image of the operator's version.",
    ),
    "PolicyNotTaken": _bad(
        "workers that serve refuse spec.reasoning and spec.access, or are of a version that knows neither: they show "
        "reasoning, and decide on thinking, by what they had before or by their defaults",
        "The message has each group and its answer. Use a worker image of the operator's version.",
    ),
    "SettingsIgnored": _bad(
        "workers do not know all settings of their pods, and compute as if spec.engine did not say them",
        "The message has each group and the variables. Use a worker image of the operator's version, or remove from "
        "spec.engine what it does not know.",
    ),
    "ScaleRefused": _bad(
        "the API server refused to scale",
        "Read the message. The operator needs patch on glmdeployments/scale (the chart's ClusterRole gives it).",
    ),
    "GatewayFileRefused": _bad(
        "a pod of the gateway refuses its file, and goes on with the one before",
        "Change what the message names in spec.gateway or spec.access.",
    ),
    "CertificatesFailed": _bad(
        "certificates between the gateway and its workers cannot be made or renewed; those that are there serve until "
        "they end",
        "Do what the message says: a Secret of somebody else is to be renamed, one that cannot be read to be deleted. "
        "If it is forbidden, give the operator get, create and patch on Secrets (the chart does, with "
        "certificates.enabled), or set certificates.enabled to false.",
    ),
    "GroupsSpeakTLS": _bad(
        "the gateway or its certificates are not wanted any more, and groups still speak TLS; it serves them meanwhile",
        "Move the groups: `kubectl glm rollout adopt NAME`. Certificates that nobody renews end within 90 days, "
        "and groups cannot be asked any more then.",
    ),
    "MetricsMissing": _waiting("no group has reported metrics yet"),
    "MetricsFallback": _waiting(
        "Prometheus cannot be used, and the operator asks the workers itself",
        "Scaling goes on. Fix what the message names.",
    ),
    "PolicyPending": _waiting("groups have not been told spec.reasoning and spec.access yet, or were not heard yet"),
    "SettingsUnheard": _waiting(
        "groups were not heard yet, or their workers are of a version that does not say which settings it ignores",
        "Wait. Where the message names groups: use a worker image of the operator's version.",
    ),
    "GatewayStarting": _waiting("pods of the gateway are not ready yet"),
    "NoKeys": _waiting(
        "the gateway asks for API keys, and there is none",
        "`glm keys create NAME -n NAMESPACE --secret SECRET`. Or `access: {auth: None}`, if all may ask.",
    ),
    "NotServed": _waiting(
        "a deployment that gateway.alsoServes selects cannot be served", "Do what the message says of it."
    ),
    "PlainGroups": _waiting(
        "groups of the version before answer without frames: their streams are not continued elsewhere",
        "Adopt the newer rendering: `kubectl glm rollout adopt NAME`.",
    ),
    "AuthNotSaid": _waiting(
        "the deployment is from before there were gateways, and its spec does not say who may ask",
        "Say access.auth: APIKeys, OIDC, External or None. Until then the Service leads to the groups, as before.",
    ),
    "DemandUnknown": _waiting(
        "a gateway does not say what it is asked, or scaling.min is 0 and none runs: no group goes",
        "Look at the pods of the gateway that the message names. The operator must reach their port 9090.",
    ),
    "Woken": _waiting("a gateway held requests while there was no group, and the first one comes"),
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
        "workers are of an older version and report less: a scale-down chooses by index, promises are not measured, "
        "and the number of groups is held where it depends on that",
        "Use a worker image of this version.",
    ),
    "ScaledUp": _fine("groups were added for the load or a promise"),
    "ScaledDown": _fine("groups were removed; fewer carry the load"),
    "ScaledByHand": _fine(
        "somebody else set spec.replicas; scaling goes on from there", "Nothing. To keep a number, set scaling.min."
    ),
    "ScalingDisabled": _fine("a person sets spec.replicas", "Set spec.scaling to have the operator do it."),
    "ScalingExternal": _fine("an HPA or KEDA sets spec.replicas (scaling.mode External)"),
    "ScalingObserving": _fine("the operator decides and sets nothing (scaling.mode Observe)"),
    "ScalingByLoad": _fine("the operator sets spec.replicas by load and promises"),
    "NotMeasured": _fine(
        "no Prometheus is configured, and neither spec.slo nor spec.scaling asks for measurements",
        "Set prometheus.url of the operator's values to see latencies in `kubectl get glmd`.",
    ),
    "NoTraffic": _fine("no request came within the time that is looked at"),
    "NoPromise": _fine("spec.slo has no class"),
    "SLOKept": _fine("every class is as fast as promised"),
    "PolicyTaken": _fine("every group that serves treats requests as spec.reasoning and spec.access say"),
    "SettingsTaken": _fine("every group knows the settings that its pods were given"),
    "GatewayServes": _fine("every pod of the gateway serves"),
    "GatewayDisabled": _fine("no gateway is wanted, and the Service leads to the groups"),
    "MetricsRead": _fine("what groups report is read and fresh"),
    "LayoutFound": _fine("the spec can be laid out"),
    "AllGroupsReady": _fine("every wanted group serves"),
    "ScaledToZero": _fine(
        "no group is wanted",
        "With scaling.min 0 the next request brings one. Else `kubectl scale glmd/NAME --replicas=1` does.",
    ),
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
