"""What a gateway is made from: `spec.gateway`, `spec.access`, and what `spec.scaling` says of zero. Pure."""

from pydantic import model_validator

from glm_operator.api.access import Access
from glm_operator.api.fields import SpecModel
from glm_operator.api.gateway import Gateway
from glm_operator.api.scaling import Scaling


class Front(SpecModel):
    """The parts together. What is left out is as by default."""

    gateway: Gateway | None = None
    access: Access | None = None
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "Front":
        check_front(self.gateway, self.access, self.scaling)
        return self

    @property
    def is_wanted(self) -> bool:
        """Whether a gateway is wanted, if this deployment may have one."""
        return self.gateway is None or self.gateway.enabled

    @property
    def says_auth(self) -> bool:
        """Whether it is said how callers are known."""
        return self.access is not None and self.access.auth is not None


def check_front(gateway: Gateway | None, access: Access | None, scaling: Scaling | None) -> None:
    """Raise ValueError with a sentence where the parts do not fit each other."""
    wanted, limits = gateway or Gateway(), access.limits if access is not None else None
    if scaling is not None and scaling.may_be_zero and not wanted.enabled:
        raise ValueError("scaling.min 0 needs the gateway, which holds requests meanwhile: set gateway.enabled to true")
    if limits is None:
        return
    if limits.has_any and not wanted.enabled:
        raise ValueError("access.limits needs the gateway, which counts: set gateway.enabled to true")
    if limits.has_any and (wanted.replicas or 1) > 1 and wanted.store is None:
        raise ValueError(
            f"access.limits with gateway.replicas {wanted.replicas} needs gateway.store, or each replica would allow "
            "all of it; or use one replica"
        )
    keeps = wanted.usage is not None and wanted.usage.claim_name is not None
    if limits.has_budget and wanted.store is None and not keeps:
        raise ValueError(
            "a monthlyBudget needs gateway.store or gateway.usage.claimName: what was spent must outlive a pod"
        )
