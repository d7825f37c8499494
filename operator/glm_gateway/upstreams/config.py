"""Servers outside that speak OpenAI's API, and when requests overflow to one, as the gateway's file says it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from glm_gateway.part import Part
from glm_gateway.upstreams.outgoing import address_of

UpstreamName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class UpstreamConfig(Part):
    """url: what stands before /chat/completions. model: what it is called there.

    key_file: of the key that it asks for; null: none. ca_file: who vouches for the server; null: the system's.
    """

    name: UpstreamName
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+[^\s?#]*$", max_length=2000)]
    model: UpstreamName
    key_file: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        try:
            address_of(self.url)
        except ValueError as error:
            raise ValueError(f"url of {self.name}: {error}") from error
        return self


class OverflowConfig(Part):
    """A request that has waited for a group as long goes to the upstream."""

    upstream: UpstreamName
    after_seconds: Annotated[float, Field(ge=0, le=86_400)] = 5.0
