"""What a spec wants of groups that run: its promises and its policy, put to their management ports."""

from glm_operator import names
from glm_operator.api.spec import GLMDeployment
from glm_operator.local.management import Management
from glm_operator.observe.report import GroupReport, policy_digest, slo_digest


def tell(management: Management, deployment: GLMDeployment, address: str, report: GroupReport) -> list[str]:
    """Put what the spec says to a group that has something else; return what it did not take, in words of the spec.

    address: of its first pod. report: what the group says of itself. One that was never told anything is not told the
    defaults, unless it waits for that.
    """
    spec, token = deployment.spec, names.management_token(deployment.metadata.uid)
    promises, policy = spec.slo.for_workers(), spec.policy.for_workers()
    refused = []
    if report.slo_digest != slo_digest(promises) and (spec.slo.classes or report.slo_digest):
        refused += [] if management.put_slo(address, token, promises) else ["spec.slo"]
    if not report.has_policy(policy_digest(policy), is_default=spec.policy.is_default):
        refused += [] if management.put_policy(address, token, policy) else ["spec.reasoning and spec.access"]
    return refused
