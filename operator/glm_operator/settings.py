"""The operator's settings: one frozen value, read once from GLM_OPERATOR_* variables and flags.

Every field is the variable GLM_OPERATOR_<FIELD> (what the chart sets) or the flag --<field> of `glm-operator` (what a
person types); the flag wins. A value that does not parse stops the process with its name, the value and what is wrong.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from glm_operator import names


class SettingsError(Exception):
    """A setting that cannot be. One line a fault."""


class OperatorSettings(BaseSettings):
    """Settings of the operator. Each field states why its default is what it is."""

    model_config = SettingsConfigDict(env_prefix="GLM_OPERATOR_", frozen=True, extra="ignore")

    worker_image: str = Field(
        default=names.DEFAULT_WORKER_IMAGE, min_length=1, description="Worker image of deployments that name none."
    )
    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespaces to serve, separated by commas; empty: all of the cluster."
    )
    management_port: int = Field(default=8080, ge=1, le=65535, description="Serves /livez and /metrics.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info")
    kubeconfig: Path | None = Field(
        default=None, description="Cluster to talk to from outside of it; unset: the service account of the pod."
    )
    resync_s: float = Field(
        default=600.0, gt=0, description="Every deployment is looked at this often, whatever events fail to say."
    )
    starting_resync_s: float = Field(
        default=3.0, gt=0, description="As above while groups start: loading shows up in no event of the cluster."
    )
    unsettled_resync_s: float = Field(
        default=30.0, gt=0, description="As above at the latest, while something is refused or on its way."
    )
    poll_s: float = Field(default=30.0, gt=0, description="All groups that serve are asked how they are this often.")
    concurrency: int = Field(
        default=16, ge=1, le=64, description="Deployments reconciled at once; a pass mostly waits."
    )
    pass_limit_s: float = Field(default=60.0, gt=0, description="A pass that takes longer is given up and tried again.")
    adoptions_at_once: int = Field(
        default=1, ge=1, le=1000, description="Deployments that may move to a newer rendering at once."
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read_settings(**flags: object) -> OperatorSettings:
    """Return the settings, or raise SettingsError with one line a wrong value."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return OperatorSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"GLM_OPERATOR_{str(fault['loc'][0]).upper()}={fault['input']}: {fault['msg']}" for fault in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from error
