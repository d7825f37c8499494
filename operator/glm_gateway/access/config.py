"""How callers are known, as the gateway's file says it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from glm_gateway.access.decide import Mode
from glm_gateway.part import Part

Claim = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+", max_length=2000)]


class JwtConfig(Part):
    """Tokens of an issuer. name_claim: becomes the name of the key; group_claim, role_claim: null, none is read.

    jwks_url: null, as the issuer's own description says. ca_file: who vouches for the issuer; null: whom the system
    trusts.
    """

    issuer: Url
    audience: Claim
    name_claim: Claim = "sub"
    group_claim: Claim | None = None
    role_claim: Claim | None = None
    jwks_url: Url | None = None
    ca_file: Path | None = None


class JudgeConfig(Part):
    """Somebody outside who is asked who a caller is. cache_seconds: how long an answer is good."""

    url: Url
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    cache_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0


class AuthConfig(Part):
    """mode: must be said. keys_folder, jwt, judge: each with its own mode, and only with it."""

    mode: Mode
    keys_folder: Path | None = None
    jwt: JwtConfig | None = None
    judge: JudgeConfig | None = None

    @model_validator(mode="after")
    def _has_its_part(self) -> Self:
        parts = (
            (Mode.KEYS, "keysFolder", self.keys_folder),
            (Mode.JWT, "jwt", self.jwt),
            (Mode.JUDGE, "judge", self.judge),
        )
        for mode, name, part in parts:
            if (self.mode is mode) != (part is not None):
                raise ValueError(f"{name} goes with mode {mode}, and only with it")
        return self
