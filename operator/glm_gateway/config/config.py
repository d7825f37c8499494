"""The gateway's file as one value: what it listens on, whom it serves, where its secrets lie, but not the secrets.

Each room has its own part of it; here they are put together, and checked against each other.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from glm_gateway.access.config import AuthConfig
from glm_gateway.access.cors_config import CorsConfig
from glm_gateway.audit.config import AuditConfig
from glm_gateway.config.models import ModelConfig
from glm_gateway.config.tls import TlsConfig, WorkersConfig
from glm_gateway.ladder.config import OverloadConfig
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.store_config import StoreConfig
from glm_gateway.part import Part
from glm_gateway.routing.config import NameConfig, PriorityConfig
from glm_gateway.traces.config import TraceConfig
from glm_gateway.upstreams.config import UpstreamConfig
from glm_gateway.usage.config import UsageConfig

Port = Annotated[int, Field(ge=0, le=65_535, strict=True)]


class HoldConfig(Part):
    """What may wait while no group is there."""

    timeout_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    max_held: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 1000


class ContinuationConfig(Part):
    """How often another group may go on with one reply. 0: never."""

    max_times: Annotated[int, Field(ge=0, le=10, strict=True)] = 1


class GatewayConfig(Part):
    """All of the file. What is null or not said is not there, but for what must be said."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
    port: Port = 8000
    management_port: Port = 9090
    tls: TlsConfig | None = None
    auth: AuthConfig
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    upstreams: tuple[UpstreamConfig, ...] = ()
    names: tuple[NameConfig, ...] = ()
    priorities: Annotated[tuple[PriorityConfig, ...], Field(max_length=32)] = ()
    overload: OverloadConfig = Field(default_factory=OverloadConfig)
    hold: HoldConfig = Field(default_factory=HoldConfig)
    continuation: ContinuationConfig = Field(default_factory=ContinuationConfig)
    quotas: QuotasConfig = Field(default_factory=QuotasConfig)
    store: StoreConfig | None = None
    usage: UsageConfig | None = None
    audit: AuditConfig | None = None
    trace: TraceConfig = Field(default_factory=TraceConfig)
    cors: CorsConfig | None = None
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0

    @model_validator(mode="after")
    def _names_are_its_own(self) -> Self:
        named = [
            *(each.name for each in self.models),
            *(name for each in self.models for name in each.former_names),
            *(each.name for each in self.upstreams),
            *(each.name for each in self.names),
        ]
        if twice := _twice(named):
            raise ValueError(
                f"each name may mean one model, one upstream or one of names; there twice: {', '.join(twice)}"
            )
        if twice := _twice(each.name for each in self.priorities):
            raise ValueError(f"priorities has {', '.join(twice)} twice; names must differ")
        if twice := _twice(group for each in self.priorities for group in each.key_groups):
            raise ValueError(f"each group of keys has one priority; {', '.join(twice)} has several")
        return self

    @model_validator(mode="after")
    def _points_at_what_is_there(self) -> Self:
        upstreams = {each.name for each in self.upstreams}
        places = upstreams.union(each.name for each in self.models)
        for model in self.models:
            if model.overflow is not None and model.overflow.upstream not in upstreams:
                raise ValueError(
                    f"{model.name} overflows to {model.overflow.upstream}, which is no upstream; there are: "
                    f"{', '.join(sorted(upstreams)) or 'none'}"
                )
        for name in self.names:
            for arm in name.arms:
                if arm.to not in places:
                    raise ValueError(
                        f"the name {name.name} has an arm to {arm.to}, which is no model and no upstream; there are: "
                        f"{', '.join(sorted(places))}"
                    )
        return self


def _twice(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once."""
    return sorted(name for name, num in Counter(names).items() if num > 1)
