"""What of a new file holds at once, and what only after a new start. Pure."""

from glm_gateway.config.config import GatewayConfig

FIXED = frozenset({"host", "port", "management_port", "tls", "auth", "store", "usage", "audit", "workers"})
"""Fields that are looked at once. All others can change while requests run."""


def held_back(running: GatewayConfig, found: GatewayConfig) -> list[str]:
    """Return the fields, by their names in the file, that differ and cannot change without a new start."""
    fields = GatewayConfig.model_fields
    return sorted(fields[name].alias or name for name in FIXED if getattr(running, name) != getattr(found, name))


def merged(running: GatewayConfig, found: GatewayConfig) -> GatewayConfig:
    """Return what is to hold now: all of the new file but what cannot change."""
    return found.model_copy(update={name: getattr(running, name) for name in FIXED})
