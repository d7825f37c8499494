"""The operator's settings: one frozen value, read once from GLM_OPERATOR_* variables and flags.

Every field is the variable GLM_OPERATOR_<FIELD> (what the chart sets) or the flag --<field> of `glm-operator` (what a
person types); the flag wins. A value that does not parse stops the process with its name, the value and what is wrong.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from glm_operator import names
from glm_operator.api.url import base_url, redacted

_PROMETHEUS_FILES = tuple(
    f"prometheus_{what}_file" for what in ("ca", "certificate", "key", "bearer_token", "username", "password")
)
_NAMESPACE = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class SettingsError(Exception):
    """A setting that cannot be. One line a fault."""


class OperatorSettings(BaseSettings):
    """Settings of the operator. Each field states why its default is what it is."""

    model_config = SettingsConfigDict(env_prefix="GLM_OPERATOR_", frozen=True, extra="ignore")

    worker_image: str = Field(
        default=names.DEFAULT_WORKER_IMAGE, min_length=1, description="Worker image of deployments that name none."
    )
    gateway_image: str = Field(
        default=names.DEFAULT_GATEWAY_IMAGE, min_length=1, description="Image of gateways whose spec names none."
    )
    network_policies: bool = Field(
        default=True, description="Whether others are kept out of workers and of management ports by NetworkPolicies."
    )
    certificates: bool = Field(
        default=True, description="Whether gateways and workers know each other by certificates that are made here."
    )
    scraper_pods: dict[str, str] = Field(
        default={names.NAME_LABEL: "prometheus"}, description="Labels of Prometheus' pods, which those let in, as JSON."
    )
    management_from: tuple[dict[str, Any], ...] = Field(
        default=(), description="More peers that they let to management ports, each a NetworkPolicyPeer, as JSON."
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

    prometheus_url: str | None = Field(
        default=None,
        description="Prometheus to read metrics from, with the prefix of its path where it has one, as in "
        "http://prometheus.monitoring:9090. Unset: workers are asked themselves.",
    )
    prometheus_ca_file: Path | None = Field(
        default=None, description="Authorities that Prometheus' certificate is checked with; unset: the system's."
    )
    prometheus_certificate_file: Path | None = Field(
        default=None, description="Certificate that the operator shows to Prometheus; unset: none."
    )
    prometheus_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    prometheus_bearer_token_file: Path | None = Field(
        default=None, description="Holds the token that Prometheus is asked with; read again when it changes."
    )
    prometheus_username_file: Path | None = Field(
        default=None, description="Holds the user that Prometheus is asked as; read again when it changes."
    )
    prometheus_password_file: Path | None = Field(default=None, description="Holds the password of that user.")
    prometheus_timeout_s: float = Field(
        default=4.0, gt=0, le=30, description="A query that takes longer is given up; less than demand_period_s."
    )
    prometheus_recording_rules: bool = Field(
        default=False, description="Prometheus has the chart's recording rules: read what they record."
    )
    prometheus_max_window_s: float = Field(
        default=30 * 86400.0, ge=3600, description="No query looks further back, whatever window a class has."
    )
    demand_period_s: float = Field(
        default=5.0, gt=0, le=60, description="Demand is read, and the number of groups decided, this often."
    )
    latency_period_s: float = Field(
        default=15.0, gt=0, le=300, description="Latencies are read this often: they change only as requests end."
    )
    gpu_budgets: Annotated[Mapping[str, int], NoDecode] = Field(
        default={}, description='Most GPUs that groups of a namespace may take together, as in {"team-a": 16}.'
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("prometheus_url", *_PROMETHEUS_FILES, mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        """Take an empty variable for an unset one: a chart sets both alike."""
        return None if value == "" else value

    @field_validator("prometheus_url")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        return None if value is None else base_url(value)

    @field_validator("gpu_budgets", mode="before")
    @classmethod
    def _read_budgets(cls, value: object) -> object:
        try:
            found = json.loads(value or "{}") if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            raise ValueError(f"this is no JSON: {error}") from None
        if not isinstance(found, Mapping):
            raise ValueError('write a map of namespaces, as in {"team-a": 16}')
        for namespace, gpus in found.items():
            if not re.fullmatch(_NAMESPACE, str(namespace)):
                raise ValueError(f"{namespace!r} is no name of a namespace")
            if isinstance(gpus, bool) or not isinstance(gpus, int) or not 0 <= gpus <= 1_000_000:
                raise ValueError(f"{gpus!r} of {namespace} is no number of GPUs; allowed are whole ones from 0 on")
        return dict(found)

    @model_validator(mode="after")
    def _fit_together(self) -> "OperatorSettings":
        if (self.prometheus_username_file is None) != (self.prometheus_password_file is None):
            raise ValueError(f"{_variable('username')} and {_variable('password')} go together; set both or none")
        if (self.prometheus_certificate_file is None) != (self.prometheus_key_file is None):
            raise ValueError(f"{_variable('certificate')} and {_variable('key')} go together; set both or none")
        if self.prometheus_bearer_token_file is not None and self.prometheus_username_file is not None:
            raise ValueError(f"{_variable('bearer_token')} and {_variable('username')} exclude each other; set one")
        return self


def _variable(what: str) -> str:
    return f"GLM_OPERATOR_PROMETHEUS_{what.upper()}_FILE"


def read_settings(**flags: object) -> OperatorSettings:
    """Return the settings, or raise SettingsError with one line a wrong value."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return OperatorSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [_line(fault) for fault in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def _line(fault: ErrorDetails) -> str:
    """Return one fault as a line: the variable, its value without a password, and what is wrong."""
    if not fault["loc"]:  # of several fields together
        return fault["msg"]
    name, value = str(fault["loc"][0]), str(fault["input"])
    shown = redacted(value) if name == "prometheus_url" else value
    return f"GLM_OPERATOR_{name.upper()}={shown}: {fault['msg']}"
