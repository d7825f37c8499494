"""Every API verb the operator uses, as data. tests/contract compares it with the chart's Role, both ways.

Pure. One line a reason: a verb nobody can name a caller for does not belong here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One entry of a Role: what may be done to one resource (`plural` or `plural/subresource`) of one API group."""

    api_group: str  # "" is the core group
    resource: str
    verbs: frozenset[str]
    is_for_others: bool = False  # held to be given to the accounts of gateways, and never used by the operator itself


CERTIFICATE_RULE = Rule("", "secrets", frozenset({"get", "create", "patch"}))
"""Held where the chart has certificates.enabled: what gateways and workers know each other by, each read by its name.

No new power: who makes pods in a namespace can mount any Secret of it. Neither list nor watch: nobody needs to see
which there are; nor delete: the garbage collector does.
"""

RULES: tuple[Rule, ...] = (
    # kopf lists and watches; a pass that is about to write reads the resource anew.
    Rule("glm-operator.io", "glmdeployments", frozenset({"get", "list", "watch"})),
    # Server-side apply of the status never touches the spec.
    Rule("glm-operator.io", "glmdeployments/status", frozenset({"patch"})),
    # The autoscaler's only write: the number of groups, through the subresource that kubectl scale uses, too.
    Rule("glm-operator.io", "glmdeployments/scale", frozenset({"patch"})),
    # get: the owner of an object of that name, before it is applied. create: apply of what does not exist needs it
    # beside patch. delete: groups that leave.
    Rule("apps", "statefulsets", frozenset({"get", "list", "watch", "create", "patch", "delete"})),
    # Accepted specs with what was rendered from them; the oldest are deleted.
    Rule("apps", "controllerrevisions", frozenset({"get", "list", "watch", "create", "patch", "delete"})),
    # Deleted by the garbage collector through their ownerReferences, never by us.
    Rule("", "services", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("", "serviceaccounts", frozenset({"get", "list", "watch", "create", "patch"})),
    # create: dry runs only, to learn whether the pods of a new spec, or one that is missing, would be taken. No new
    # power: a StatefulSet makes pods.
    # delete: pods of another revision than their group's.
    # patch: a note on a gateway's pod, which has the kubelet bring its changed file at once.
    Rule("", "pods", frozenset({"list", "watch", "create", "delete", "patch"})),
    # The gateway: its pods, its file, its budget of disruptions. Deleted by the garbage collector.
    Rule("apps", "deployments", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("", "configmaps", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("policy", "poddisruptionbudgets", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("networking.k8s.io", "networkpolicies", frozenset({"get", "list", "watch", "create", "patch"})),
    # What the gateway may read. Nobody may give away a right that it does not have itself, so the operator has it, too.
    Rule("rbac.authorization.k8s.io", "roles", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("rbac.authorization.k8s.io", "rolebindings", frozenset({"get", "list", "watch", "create", "patch"})),
    Rule("discovery.k8s.io", "endpointslices", frozenset({"get", "list", "watch"}), is_for_others=True),
    # For people, at transitions of conditions and at each step of a rollout.
    Rule("", "events", frozenset({"create"})),
)
