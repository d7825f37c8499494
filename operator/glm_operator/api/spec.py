"""GLMDeployment as Python types: the one definition of its fields, defaults and bounds.

Pure. The CRD's schema is generated from these models (`crd.py`). Unknown fields are refused; a field that does nothing
is never accepted. What needs more than one object's own words (a model's shape) is the planner's to refuse.
"""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glm_operator import names
from glm_operator.api import rules
from glm_operator.api.access import Access
from glm_operator.api.engine import Device, Engine, check_engine
from glm_operator.api.fields import (
    CountOrPercent,
    LabelKey,
    LabelValue,
    Quantity,
    ResourceName,
    Source,
    SpecModel,
    as_read_by_the_api_server,
)
from glm_operator.api.forms import (
    DEPLOYMENT_NAME_PATTERN,
    FORMS,
    SERVED_NAME_PATTERN,
)
from glm_operator.api.front import Front, check_front
from glm_operator.api.gateway import Gateway
from glm_operator.api.pods import Resources, Toleration
from glm_operator.api.policy import Policy, Reasoning, check_policy
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo


class InvalidSpec(ValueError):
    """A body that is no GLMDeployment. The message has one sentence a fault: field, value, what is allowed."""


ModelName = Literal["glm-nano", "GLM-4.5", "GLM-4.5-Air", "custom"]


class ModelSpec(SpecModel):
    """The model that is served, and where its files are."""

    model_config = ConfigDict(json_schema_extra=rules.MODEL_RULES)

    name: ModelName = Field(
        description="Which model it is: the planner knows the shapes of all but `custom`, whose config.json the "
        "worker reads. Cannot change."
    )
    source: Source = Field(
        description="Folder of the checkpoint (safetensors, config.json, tokenizer.json): `builtin://glm-nano` inside "
        "the worker image; `pvc://CLAIM/PATH` on a PersistentVolumeClaim of the same namespace, mounted read-only; "
        "`file:///PATH` inside the worker image.",
    )
    served_name: str | None = Field(
        default=None,
        pattern=SERVED_NAME_PATTERN,
        max_length=128,
        description="Name clients ask for. Default: the model's name; for `custom` the name of its folder.",
    )

    @property
    def served_as(self) -> str:
        """The name that workers serve it as."""
        folder = self.source.rstrip("/").rpartition("/")[2]
        return self.served_name or (folder if self.name == "custom" else self.name)

    @model_validator(mode="after")
    def _source_fits(self) -> "ModelSpec":
        if self.source.startswith("builtin://") and self.name != "glm-nano":
            raise ValueError(f"source {self.source} holds the model glm-nano only, not {self.name}")
        if ".." in self.source.split("/"):
            raise ValueError(f"source {self.source} must not step out of its folder with ..")
        return self


class GpuSpec(SpecModel):
    """The GPUs of a node. A rank takes one."""

    resource_name: ResourceName = Field(default="nvidia.com/gpu", description="Extended resource a pod asks for.")
    per_node: int = Field(
        default=8, ge=1, le=rules.MAX_GPUS_PER_NODE, description="GPUs of one node: the most ranks a pod may have."
    )


class Hardware(SpecModel):
    """What the ranks run on."""

    model_config = ConfigDict(json_schema_extra=rules.HARDWARE_RULES)

    device: Device = Field(description="Explicit: a missing GPU is an error, never a silent fall-back to the CPU.")
    ranks_per_pod: int | None = Field(
        default=None,
        ge=1,
        le=rules.MAX_RANKS_PER_POD,
        description="Ranks of one pod; divides parallelism.expert. Default: the whole group, or what fits a node.",
    )
    gpu: GpuSpec | None = Field(
        default=None, description="The GPUs of a node. Required with device cuda, refused with cpu."
    )
    node_selector: dict[LabelKey, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels a node must have."
    )
    tolerations: list[Toleration] | None = Field(default=None, max_length=32, description="Taints the pods tolerate.")
    resources: Resources | None = Field(default=None, description="Requests and limits of one pod.")
    shared_memory: Quantity = Field(
        default="1Gi", description="Size of /dev/shm, in memory; counts towards the pod's memory limit."
    )

    @model_validator(mode="after")
    def _gpu_fits_device(self) -> "Hardware":
        if self.device == "cuda" and self.gpu is None:
            raise ValueError("device cuda needs hardware.gpu, for example gpu: {perNode: 8}")
        if self.device == "cpu" and self.gpu is not None:
            raise ValueError("device cpu uses no GPU: remove hardware.gpu, or set device to cuda")
        named = {
            **((self.resources and self.resources.requests) or {}),
            **((self.resources and self.resources.limits) or {}),
        }
        if self.gpu is not None and self.gpu.resource_name in named:
            raise ValueError(f"hardware.resources must not name {self.gpu.resource_name}: it follows from ranksPerPod")
        return self


class Parallelism(SpecModel):
    """How one copy of the model is split over ranks."""

    tensor: int = Field(
        default=1,
        ge=1,
        le=rules.MAX_TENSOR,
        description="Attention heads are split over this many ranks; divides expert. With 1 every rank computes all of "
        "attention: on CPUs two ranks of a thread then answer 0.7 times what one of two threads does, and 0.9 with 2.",
    )
    expert: int = Field(
        default=1,
        ge=1,
        le=rules.MAX_EXPERT,
        description="Ranks of a group: experts are split over them. Divides the routed experts.",
    )


class Rollout(SpecModel):
    """How groups move to a new revision. Nothing in here moves a group by itself."""

    max_unavailable: CountOrPercent = Field(
        default="1",
        description="Most groups that a rollout takes from those that serve at once: a number, or per cent of "
        "spec.replicas, rounded down, at least one. With one group a rollout interrupts service.",
    )
    min_ready_seconds: int = Field(
        default=0, ge=0, le=86_400, description="How long a group must be ready before it counts as available."
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description="A group that takes longer to become available stops the rollout (RolloutStuck). "
        "Default: engine.limits.startLimitSeconds + 600.",
    )
    node_loss_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Pods that hang in Terminating this long on a node that does not answer: the group is replaced.",
    )
    paused: bool = Field(default=False, description="Hold the rollout. Scaling and repair go on.")
    adopt: Literal["Manual", "Automatic"] = Field(
        default="Manual",
        description="Whether groups move to the rendering of a newer operator by themselves. Manual: when somebody "
        "says `kubectl glm rollout adopt`. Automatic: as the operator's budget for all deployments allows; what "
        "`kubectl glm rollout undo` of an edit went back to stays until the next adopt or edit.",
    )

    def most_unavailable(self, replicas: int) -> int:
        """Return max_unavailable as a number of groups; at least one, or no rollout would ever end."""
        if self.max_unavailable.endswith("%"):
            return max(1, replicas * int(self.max_unavailable[:-1]) // 100)
        return int(self.max_unavailable)


MOVES_NOTHING = frozenset({"replicas", "rollout", "scaling", "slo", "reasoning", "access", "gateway"})
"""Fields that no pod's template needs: an edit of them is no new spec, moves no group and adopts nothing."""


class GLMDeploymentSpec(SpecModel):
    """What is wanted: a model, what it runs on, and how many copies."""

    model_config = ConfigDict(json_schema_extra=rules.SPEC_RULES)

    model: ModelSpec = Field(description="The model that is served, and where its files are.")
    hardware: Hardware = Field(description="What the ranks run on.")
    parallelism: Parallelism = Field(default=Parallelism(), description="How one copy is split over ranks.")
    replicas: int = Field(
        default=1, ge=0, le=1000, description="Replica groups: copies of the model. 0 keeps none running."
    )
    engine: Engine = Field(default=Engine(), description="The worker program.")
    rollout: Rollout = Field(default=Rollout(), description="How groups move to a new revision.")
    scaling: Scaling | None = Field(
        default=None, description="Who writes replicas, and within which bounds. Default: a person."
    )
    slo: Slo = Field(default=Slo(), description="Latency promises, by class of requests.")
    # No default in the CRD: an operator of the version before would read it, and refuse a field it does not know.
    reasoning: Reasoning | None = Field(
        default=None,
        description="Whether and how long the model thinks, and who is shown it. The operator tells each pod while it "
        "loads, and running ones within seconds of an edit. A pod that it has not told yet, because the operator is "
        "away, serves by the defaults, so it shows reasoning: docs/design/0008-api.md, Policy.",
    )
    access: Access | None = Field(
        default=None,
        description="Who may ask, how much, and whom the workers believe. Pods are told as they are of reasoning; "
        "until then they believe nobody but the gateway.",
    )
    gateway: Gateway | None = Field(
        default=None, description="The address of the deployment: docs/gateway.md. Default: one replica."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> "GLMDeploymentSpec":
        check_engine(self.engine, self.hardware.device)
        check_policy(self.reasoning, self.access)
        check_front(self.gateway, self.access, self.scaling)
        return self

    @property
    def front(self) -> Front:
        """What the gateway is made from."""
        return Front(gateway=self.gateway, access=self.access, scaling=self.scaling)

    @property
    def policy(self) -> Policy:
        """What is put to workers of reasoning and access."""
        return Policy(reasoning=self.reasoning, access=self.access)

    @property
    def progress_deadline_s(self) -> int:
        """Seconds a group may take to become available at a new revision."""
        return self.rollout.progress_deadline_seconds or self.engine.limits.start_limit_seconds + 600

    def normal_form(self) -> dict[str, object]:
        """Return the spec as it is kept and compared: defaults filled in, without what moves no group."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=set(MOVES_NOTHING))


class Metadata(BaseModel):
    """The part of an object's metadata that the operator reads."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: str = Field(max_length=names.MAX_NAME_LENGTH, pattern=DEPLOYMENT_NAME_PATTERN)
    namespace: str = "default"
    uid: str = ""
    generation: int = 0

    @model_validator(mode="after")
    def _collides_with_nothing(self) -> "Metadata":
        if re.search(f"{names.RESERVED_SUFFIXES}$", self.name):
            raise ValueError(f"name {self.name} ends like the name of an object made for another GLMDeployment")
        return self


class GLMDeployment(BaseModel):
    """One parsed GLMDeployment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metadata: Metadata
    spec: GLMDeploymentSpec
    default_image: str = names.DEFAULT_WORKER_IMAGE

    @property
    def image(self) -> str:
        """The worker image: the spec's, or that of the operator's installation."""
        return self.spec.engine.image or self.default_image

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    def with_spec(self, spec: GLMDeploymentSpec) -> "GLMDeployment":
        """Return the same deployment with another spec, as kept in the record of an accepted one."""
        return self.model_copy(update={"spec": spec})


def parse_deployment(body: Mapping[str, object], *, default_image: str = names.DEFAULT_WORKER_IMAGE) -> GLMDeployment:
    """Return the typed form of a GLMDeployment as read from a file or from the API server (status is not looked at).

    Raises InvalidSpec with one sentence a fault.
    """
    faults = [
        f"{field} is {body.get(field)!r}; expected {expected!r}"
        for field, expected in (("apiVersion", f"{names.GROUP}/{names.VERSION}"), ("kind", names.KIND))
        if body.get(field) != expected
    ]
    if faults:
        raise InvalidSpec("; ".join(faults))
    spec = as_read_by_the_api_server(body.get("spec"))
    try:
        return GLMDeployment.model_validate(
            {"metadata": body.get("metadata"), "spec": spec, "default_image": default_image}
        )
    except ValidationError as error:
        raise InvalidSpec("; ".join(_sentence(dict(fault)) for fault in error.errors())) from error


def _sentence(fault: dict[str, object]) -> str:
    location = fault["loc"]
    assert isinstance(location, tuple)
    if location[-1] == "[key]":  # of a map; pydantic puts the key itself before it
        location = (*location[:-2], "keys")
    path = ".".join(str(part) for part in location)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{path} is required"
    if fault["type"] == "extra_forbidden":
        return f"{path} is not a known field"
    if fault["type"] == "value_error":
        return f"{path}: {message}"
    if fault["type"] == "string_pattern_mismatch":
        return f"{path} is {fault['input']!r}; allowed is {FORMS[_pattern(fault)]}"
    return f"{path} is {fault['input']!r}: {message}"


def _pattern(fault: dict[str, object]) -> str:
    context = fault["ctx"]
    assert isinstance(context, dict)
    return str(context["pattern"])
