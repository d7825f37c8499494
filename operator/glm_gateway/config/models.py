"""The models of the gateway's file: what they are called, where their groups are, what they are promised."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from glm_gateway.ladder.config import SloConfig
from glm_gateway.part import Part
from glm_gateway.routing.config import CanaryConfig, ModelName
from glm_gateway.upstreams.config import OverflowConfig


class GroupsConfig(Part):
    """Where groups are found: in a file, or behind a Service of the cluster. One of the two.

    namespace: of the Service; with a file it is only told in metrics, as the groups tell it in theirs.
    """

    file: Path | None = None
    service: str | None = None
    namespace: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.service is None):
            raise ValueError("exactly one of file and service must be there")
        if self.service is not None and self.namespace is None:
            raise ValueError("service and namespace go together")
        return self


class ModelConfig(Part):
    """name: that clients ask for, and the groups serve it by. deployment: whose groups they are; told with its demand.
    former_names: that some groups still serve it by; clients may ask for them as well.

    token: by which these groups know a gateway, where they are another deployment's; null: as ours do.
    slo: null, nothing is promised. overflow: null, never. canary: null, revisions get requests by load.
    awaits_groups: whether a group may come where none is; if not, nobody waits for one.
    """

    name: ModelName
    former_names: Annotated[tuple[ModelName, ...], Field(max_length=16)] = ()
    deployment: Annotated[str, Field(max_length=253)] = ""
    token: Annotated[str, Field(min_length=16, max_length=200)] | None = None
    groups: GroupsConfig
    slo: SloConfig | None = None
    overflow: OverflowConfig | None = None
    canary: CanaryConfig | None = None
    awaits_groups: bool = True
