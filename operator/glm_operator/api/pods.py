"""Parts of pods that users may say, of workers and gateways alike. Pure."""

from typing import Literal

from pydantic import Field

from glm_operator.api.fields import LabelKey, LabelValue, ObjectName, Quantity, ResourceName, SpecModel


class Toleration(SpecModel):
    """A taint the pods tolerate, as in a pod's spec."""

    key: LabelKey | None = Field(default=None, description="Key of the taint. Default: every key.")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="How value is compared. Default: Equal."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="With NoExecute: how long the pod stays. Default: forever."
    )


class Resources(SpecModel):
    """Requests and limits of one pod, added to what the operator asks for by itself."""

    requests: dict[ResourceName, Quantity] | None = Field(
        default=None, max_length=16, description="Replaces the default request of the same resource."
    )
    limits: dict[ResourceName, Quantity] | None = Field(
        default=None,
        max_length=16,
        description="The most that a pod may use. Default: its GPUs, if any. A CPU limit slows all that it serves.",
    )


class PullSecret(SpecModel):
    """A Secret of the same namespace with registry credentials."""

    name: ObjectName = Field(description="Name of the Secret.")
