"""How long single requests are kept, as the gateway's file says it."""

from typing import Annotated

from pydantic import Field

from glm_gateway.part import Part


class TraceConfig(Part):
    """keep_seconds, max_requests: what is older, or beyond, is forgotten."""

    enabled: bool = False
    keep_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    max_requests: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1000
