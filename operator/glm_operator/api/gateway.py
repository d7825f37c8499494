"""The address of a deployment: `spec.gateway`. An edit moves no group. Pure."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from glm_operator.api import rules
from glm_operator.api.access import GroupName, SecretName, Url, addressed, twice
from glm_operator.api.duration import Duration, to_seconds
from glm_operator.api.fields import LabelKey, LabelValue, ObjectName, SpecModel
from glm_operator.api.forms import (
    CLASS_NAME_PATTERN,
    IMAGE_PATTERN,
    ITEM_NAME_PATTERN,
    ORIGIN_PATTERN,
    SERVED_NAME_PATTERN,
    STORE_PATTERN,
)
from glm_operator.api.pods import Resources, Toleration

MAX_REPLICAS = 20
MAX_NAMES = 32

ServedName = Annotated[str, StringConstraints(pattern=SERVED_NAME_PATTERN, max_length=128)]
ShortName = Annotated[str, StringConstraints(pattern=CLASS_NAME_PATTERN, max_length=32)]
SecretKey = Annotated[str, StringConstraints(pattern=ITEM_NAME_PATTERN, max_length=253)]

_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class SecretItem(SpecModel):
    """One item of a Secret of the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: SecretKey = Field(description="The item.")


class Arm(SpecModel):
    """Where a part of the requests of a name goes."""

    to: ServedName = Field(description="A model that is served here, or the name of an upstream.")
    weight: int = Field(default=1, ge=0, le=1_000_000, description="Its share, against the others' weights.")


class Name(SpecModel):
    """A further name that clients may ask for. With one arm it is an alias, with several an A/B test."""

    name: ServedName = Field(description="The name.")
    arms: list[Arm] = Field(
        min_length=1, max_length=16, description="Where its requests go. A caller stays with the arm that it got."
    )
    may_fall: bool = Field(
        default=True, description="Whether callers of an arm without a ready group go to the others, or wait."
    )

    @model_validator(mode="after")
    def _arms_are_whole(self) -> "Name":
        if found := twice([each.to for each in self.arms]):
            raise ValueError(f"the arms of {self.name} go twice to {found}; each may be there once")
        if not any(each.weight for each in self.arms):
            raise ValueError(f"the arms of {self.name} have no weight; at least one must be above 0")
        return self


class Selector(SpecModel):
    """Which deployments of the same namespace."""

    match_labels: dict[LabelKey, LabelValue] = Field(
        min_length=1, max_length=16, description="Labels that a GLMDeployment must have."
    )


class AlsoServes(SpecModel):
    """Other deployments behind the same address."""

    selector: Selector = Field(description="Which ones. `model` of a request says which is meant.")


class Upstream(SpecModel):
    """An OpenAI-compatible address outside."""

    name: ShortName = Field(description="What arms and overflow call it.")
    url: Url = Field(description="Its base URL, as in https://api.example.com/v1.")
    model: str = Field(min_length=1, max_length=200, description="The name it serves the model as.")
    key_secret_ref: SecretItem | None = Field(default=None, description="The key to send. Default: none.")


class Overflow(SpecModel):
    """Where requests go that have waited too long for a group."""

    upstream: ShortName = Field(description="Name of the upstream.")
    after: Duration = Field(default="5s", description="How long they wait before: 10ms to 10m.")

    @model_validator(mode="after")
    def _is_in_bounds(self) -> "Overflow":
        if not 0.01 <= to_seconds(self.after) <= 600:
            raise ValueError(f"after is {self.after}; allowed is 10ms to 10m")
        return self


class PriorityClass(SpecModel):
    """Callers who go before or after others where requests have to wait."""

    name: ShortName = Field(description="Name, as `glm_gateway_shed_total` tells it by `priority_class`.")
    priority: int = Field(ge=-1000, le=1000, description="The lower goes first. Of all others it is 0.")
    key_groups: list[GroupName] = Field(min_length=1, max_length=64, description="Groups of keys that it is for.")
    wait: Duration | None = Field(
        default=None, description="How long they should wait at most, for the ladder: 1ms to 1d."
    )

    @model_validator(mode="after")
    def _wait_is_in_bounds(self) -> "PriorityClass":
        if self.wait is not None and not 0.001 <= to_seconds(self.wait) <= 86_400:
            raise ValueError(f"wait is {self.wait}; allowed is 1ms to 1d")
        return self


class Overload(SpecModel):
    """What gives way first when requests wait longer than spec.slo promises (ttft): thoughts, then turns, then the
    lowest priority. A number is the oldest wait over the promise at which a step is taken."""

    enabled: bool = Field(default=True, description="Whether anything gives way. If not, requests wait and are held.")
    short_thoughts: float = Field(default=1.0, ge=0.01, le=1000, description="From here on thoughts are cut short.")
    no_thoughts: float = Field(
        default=1.5, ge=0.01, le=1000, description="From here on requests that leave it open are answered without."
    )
    in_turn: float = Field(
        default=2.0, ge=0.01, le=1000, description="From here on no group gets more than it runs at once."
    )
    shed: float = Field(default=4.0, ge=0.01, le=1000, description="From here on the lowest priority is refused.")
    calm_seconds: int = Field(default=10, ge=1, le=3600, description="How long it must be calmer to step back.")
    max_thinking_tokens: int = Field(default=512, ge=0, le=10_000_000, description="Of a thought that is cut short.")

    @model_validator(mode="after")
    def _climbs(self) -> "Overload":
        steps = [self.short_thoughts, self.no_thoughts, self.in_turn, self.shed]
        if steps != sorted(steps):
            raise ValueError("shortThoughts, noThoughts, inTurn and shed must not fall, in this order")
        return self


class Store(SpecModel):
    """A Valkey or Redis in which all replicas count together."""

    url: Annotated[str, StringConstraints(pattern=STORE_PATTERN, max_length=500), AfterValidator(addressed)] = Field(
        description="As in redis://valkey:6379/0, or rediss:// with TLS; without user and password."
    )
    password_secret_ref: SecretItem | None = Field(default=None, description="Its password. Default: none.")
    on_failure: Literal["Open", "Closed"] = Field(
        default="Open",
        description="While it does not answer. Open: each replica counts by itself. Closed: requests get 503.",
    )


class UsageRecords(SpecModel):
    """The journal of what was used: /v1/usage, daily files, and what monthly budgets are counted from."""

    claim_name: ObjectName | None = Field(
        default=None,
        description="PersistentVolumeClaim of the namespace that keeps it. Default: the pod's own disk, so that it is "
        "lost with the pod.",
    )
    retention_days: int = Field(default=400, ge=62, le=36_500, description="How long days are kept.")
    export: list[Literal["CSV", "JSONL"]] = Field(
        default=[],
        max_length=2,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Files that are written of each day, beside the journal.",
    )


class Audit(SpecModel):
    """A log of what was managed, as JSON lines in the gateway's output."""

    requests: bool = Field(default=False, description="Also a line a request: key, mode, tokens, never text.")


class Trace(SpecModel):
    """What became of single requests: GET /v1/traces/ID, for the key that sent them."""

    keep_seconds: int = Field(default=600, ge=1, le=86_400, description="How long one is kept, in memory.")
    max_requests: int = Field(default=1000, ge=1, le=1_000_000, description="How many are kept.")


class Cors(SpecModel):
    """Which web pages may ask."""

    origins: list[Annotated[str, StringConstraints(pattern=ORIGIN_PATTERN, max_length=253)]] = Field(
        min_length=1, max_length=64, description="Their origins, as in https://chat.example.com; * for all."
    )
    max_age_seconds: int = Field(default=600, ge=0, le=86_400, description="How long browsers remember the answer.")


class Canary(SpecModel):
    """What part of the callers the newest revision gets, while groups of others serve as well."""

    weight: int = Field(
        ge=0, le=100, description="Per cent of the callers. One stays where it is; without keys it is of the requests."
    )
    may_fall: bool = Field(
        default=True,
        description="Whether callers of either side go to the other one while theirs is not ready, or wait.",
    )


class Gateway(SpecModel):
    """The address of a deployment, and what keeps it."""

    model_config = ConfigDict(json_schema_extra=rules.GATEWAY_RULES)

    enabled: bool = Field(
        default=True,
        description="Whether there is one. If not, the Service leads to the groups: no keys, no limits, no hold.",
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REPLICAS,
        description="Pods of the gateway. Default: one at first, then as many as somebody else sets on its Deployment, "
        "as a HorizontalPodAutoscaler does. A number is set again whenever somebody else sets another one.",
    )
    image: str | None = Field(
        default=None,
        pattern=IMAGE_PATTERN,
        max_length=512,
        description="Image of the gateway. Default: the operator's own, as of the last revision.",
    )
    resources: Resources | None = Field(default=None, description="Requests and limits of one pod of it.")
    node_selector: dict[LabelKey, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels a node must have."
    )
    tolerations: list[Toleration] | None = Field(default=None, max_length=32, description="Taints it tolerates.")
    drain_seconds: int = Field(
        default=600, ge=0, le=86_400, description="Most that requests may take to finish when one of its pods goes."
    )
    max_continuations: int = Field(
        default=1, ge=0, le=10, description="How often another group may go on with one reply. 0: never."
    )
    tls_secret_ref: SecretName | None = Field(
        default=None, description="Secret with tls.crt and tls.key, for clients. Default: plain HTTP."
    )
    canary: Canary | None = Field(
        default=None,
        description="What part of the callers the newest revision gets while groups move, or rollout.paused holds "
        "them. Default: requests go to all revisions by load.",
    )
    also_serves: AlsoServes | None = Field(default=None, description="Other deployments behind this address.")
    names: list[Name] = Field(
        default=[], max_length=MAX_NAMES, json_schema_extra=_BY_NAME, description="Further names of models."
    )
    upstreams: list[Upstream] = Field(
        default=[], max_length=16, json_schema_extra=_BY_NAME, description="Addresses outside, for names and overflow."
    )
    overflow: Overflow | None = Field(default=None, description="Where requests go that have waited too long.")
    priorities: list[PriorityClass] = Field(
        default=[], max_length=16, json_schema_extra=_BY_NAME, description="Who goes first."
    )
    overload: Overload | None = Field(default=None, description="What gives way first under overload.")
    store: Store | None = Field(default=None, description="Where several replicas count limits together.")
    usage: UsageRecords | None = Field(default=None, description="The journal of usage. Default: none is kept.")
    audit: Audit | None = Field(default=None, description="A log of what was managed. Default: none.")
    trace: Trace | None = Field(default=None, description="What became of single requests. Default: none is kept.")
    cors: Cors | None = Field(default=None, description="Which web pages may ask. Default: none.")

    @model_validator(mode="after")
    def _names_fit(self) -> "Gateway":
        known = {each.name for each in self.upstreams}
        if self.overflow is not None and self.overflow.upstream not in known:
            raise ValueError(f"overflow.upstream {self.overflow.upstream} is none of upstreams: {_list(known)}")
        for what, given in (
            ("names", [each.name for each in self.names]),
            ("upstreams", [each.name for each in self.upstreams]),
            ("priorities", [each.name for each in self.priorities]),
        ):
            if found := twice(given):
                raise ValueError(f"{what} has {found} twice; names must differ")
        if both := known & {each.name for each in self.names}:
            raise ValueError(f"{_list(both)} is in names and in upstreams; names must differ")
        groups = [group for each in self.priorities for group in each.key_groups]
        if found := twice(groups):
            raise ValueError(f"priorities name the group {found} twice")
        return self


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
