"""The two secrets of a gateway, from its environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_gateway.access.decide import MIN_TENANT_SECRET
from glm_gateway.config.file import BadConfig

TOKEN_NAME = "GLM_GATEWAY_TOKEN"  # noqa: S105 - a name, no secret
SECRET_NAME = "GLM_GATEWAY_SECRET"  # noqa: S105 - a name, no secret
MIN_TOKEN = 16
_TOKEN = re.compile(r"[!-~]+")
_HEX = re.compile(r"([0-9a-fA-F]{2})+")


@dataclass(frozen=True)
class Secrets:
    """token: what workers know us by. secret: keys hashes of prompts and tenants, in all replicas alike."""

    token: str = field(repr=False)
    secret: bytes = field(repr=False)


def secrets_in(environ: Mapping[str, str]) -> Secrets:
    """Return the secrets. Raises BadConfig, which tells nothing of them, where one is not there or no secret."""
    token, digits = (environ.get(name, "").strip() for name in (TOKEN_NAME, SECRET_NAME))
    for name, value in ((TOKEN_NAME, token), (SECRET_NAME, digits)):
        if not value:
            raise BadConfig(f"the environment variable {name} is missing")
    if len(token) < MIN_TOKEN or _TOKEN.fullmatch(token) is None:
        raise BadConfig(
            f"{TOKEN_NAME} has {len(token)} characters; it must be at least {MIN_TOKEN}, all of ASCII and no blanks"
        )
    if _HEX.fullmatch(digits) is None or len(digits) < 2 * MIN_TENANT_SECRET:
        raise BadConfig(
            f"{SECRET_NAME} has {len(digits)} characters; it must be hexadecimal digits, an even number of at least "
            f"{2 * MIN_TENANT_SECRET}"
        )
    return Secrets(token, bytes.fromhex(digits))
