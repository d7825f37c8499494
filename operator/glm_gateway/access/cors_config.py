"""Which pages of other origins may ask, as the gateway's file says it."""

from typing import Annotated

from pydantic import Field, StringConstraints

from glm_gateway.part import Part

Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[^\s/?#]+)$", max_length=300)]


class CorsConfig(Part):
    """origins: scheme, host and port, or "*". max_age_seconds: how long a browser need not ask again."""

    origins: Annotated[tuple[Origin, ...], Field(min_length=1, max_length=100)]
    max_age_seconds: Annotated[int, Field(ge=0, le=86_400, strict=True)] = 600
