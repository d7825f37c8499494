"""The gateway's file, JSON or YAML: what it listens on, whom it serves, where its secrets lie, but not the secrets."""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from glm_gateway.access.decide import MIN_TENANT_SECRET, Mode
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.usage.config import UsageConfig

Port = Annotated[int, Field(ge=0, le=65_535, strict=True)]


class BadConfig(Exception):
    """What is wrong with the file, in a sentence."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class GroupsConfig(_Model):
    """Where groups are found: in a file, or behind a Service of the cluster. One of the two."""

    file: Path | None = None
    service: str | None = None
    namespace: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.service is None):
            raise ValueError("exactly one of file and service must be there")
        if (self.service is None) != (self.namespace is None):
            raise ValueError("service and namespace go together")
        return self


class ModelConfig(_Model):
    """name: that clients ask for, and the groups serve it by."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    groups: GroupsConfig


class HoldConfig(_Model):
    """What may wait while no group is there."""

    timeout_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    max_held: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 1000


class ContinuationConfig(_Model):
    """How often another group may go on with one reply. 0: never."""

    max_times: Annotated[int, Field(ge=0, le=10, strict=True)] = 1


class AuthConfig(_Model):
    """mode: must be said. keys_folder: of the keys, with mode Keys."""

    mode: Mode
    keys_folder: Path | None = None

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.mode is Mode.KEYS) != (self.keys_folder is not None):
            raise ValueError("keysFolder goes with mode Keys, and only with it")
        return self


class GatewayConfig(_Model):
    """token_file: what workers know us by. secret_file: keys hashes of prompts and tenants, in all replicas alike."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
    port: Port = 8000
    management_port: Port = 9090
    auth: AuthConfig
    token_file: Path
    secret_file: Path
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    quotas: QuotasConfig = Field(default_factory=QuotasConfig)
    usage: UsageConfig | None = None
    hold: HoldConfig = Field(default_factory=HoldConfig)
    continuation: ContinuationConfig = Field(default_factory=ContinuationConfig)
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0

    @model_validator(mode="after")
    def _names_are_its_own(self) -> Self:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each name may mean one model; there twice: {', '.join(twice)}")
        return self


def config_in(text: str) -> GatewayConfig:
    """Return the configuration in a text. Raises BadConfig, which names the field, and no value of it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadConfig(f"it is neither JSON nor YAML: {error}") from error
    try:
        return GatewayConfig.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadConfig(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def secret_in(path: Path, least: int = MIN_TENANT_SECRET) -> bytes:
    """Return the secret in a file, without blanks around it. Raises BadConfig where it is not there or too short."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror}") from error
    if len(secret) < least:
        raise BadConfig(f"the secret in {path} has {len(secret)} bytes; it must have at least {least}")
    return secret
