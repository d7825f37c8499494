"""Where what callers use is counted for all replicas together, as the gateway's file says it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from glm_gateway.part import Part


class OnFailure(StrEnum):
    """What becomes of requests while the store is gone."""

    OPEN = "Open"
    CLOSED = "Closed"


class StoreConfig(Part):
    """url: of Valkey or Redis; it holds no password, which is in password_file. prefix: of all keys there.

    timeout_seconds: for one call; after it the store counts as gone.
    """

    url: Annotated[str, StringConstraints(pattern=r"^rediss?://[^\s/@]+(/[0-9]{1,3})?$", max_length=500)]
    password_file: Path | None = None
    ca_file: Path | None = None
    on_failure: OnFailure = OnFailure.OPEN
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")] = "glm"
    timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 0.25

    @model_validator(mode="after")
    def _authority_goes_with_tls(self) -> Self:
        if self.ca_file is not None and not self.url.startswith("rediss://"):
            raise ValueError("caFile goes with a url of rediss:// only: a connection of redis:// is not encrypted")
        return self
