"""The gateway's file, JSON or YAML: read into its value, or refused with a sentence that names the field."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from glm_gateway.config.config import GatewayConfig

MAX_BYTES = 4 * 2**20
"""Of the file: a ConfigMap has 1 MiB at most."""


class BadConfig(Exception):
    """What is wrong with the file, in a sentence."""


@dataclass(frozen=True)
class ConfigFile:
    """config: what the file says. digest: sha256 of its bytes, in hexadecimal digits."""

    config: GatewayConfig
    digest: str


def config_in(text: str | bytes) -> GatewayConfig:
    """Return the configuration in a text. Raises BadConfig, which names the field, and no value of it."""
    try:
        return GatewayConfig.model_validate(_value(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadConfig(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def file_of(data: bytes) -> ConfigFile:
    """Return what a file's bytes say. Raises BadConfig."""
    if len(data) > MAX_BYTES:
        raise BadConfig(f"it has {len(data)} bytes; at most {MAX_BYTES} are read")
    return ConfigFile(config_in(data), hashlib.sha256(data).hexdigest())


def file_at(path: Path) -> ConfigFile:
    """Return what a file says. Raises BadConfig and OSError."""
    return file_of(path.read_bytes())


def _value(text: str | bytes) -> Any:
    """Return what a text holds, of JSON or YAML. Raises BadConfig, which says where it is neither."""
    try:
        return json.loads(text)  # as the operator writes it: YAML takes a hundred times as long to read
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise BadConfig(f"it is neither JSON nor YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadConfig(f"it is neither JSON nor YAML: {type(error).__name__}") from error
