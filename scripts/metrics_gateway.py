"""What a gateway exposes that has everything: a promise of every time, a store, an audit log, a key that has asked."""

import asyncio

from prometheus_client.metrics_core import Metric

from glm_gateway.access.decide import Mode
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.audit.config import AuditConfig
from glm_gateway.audit.log import AuditLog
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.ladder.config import SloClassConfig, SloConfig
from glm_gateway.limits.store_config import StoreConfig
from glm_gateway.limits.valkey.client import client_of
from glm_gateway.limits.valkey.shared import SharedStore
from glm_gateway.limits.valkey.store import ValkeyStore
from glm_gateway.metrics.telemetry import Owner
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group


def gateway_families() -> list[Metric]:
    """Return them, without the labels that say whose they are."""
    return asyncio.run(_families())


def gateway_identity() -> list[str]:
    """Return the labels that every series has besides."""
    return list(Owner("namespace", "deployment").labels)


async def _families() -> list[Metric]:
    everything = SloClassConfig(name="all", thresholds_s={"ttft": 1, "ttfa": 1, "itl": 1, "e2e": 1})
    model = Model("", Directory(), slo=SloConfig(classes=(everything,)))
    model.replace([Member(Group(name="g0"), "", 0)])
    config = StoreConfig(url="redis://localhost:6379/0")  # nobody is asked
    shared = ValkeyStore(client_of(config), prefix=config.prefix, timeout_s=config.timeout_seconds)
    store = SharedStore(shared, config.on_failure, where=config.url)
    gateway = Gateway(
        {"": model},
        "",
        Gate(mode=Mode.NONE, tenant_secret=b""),
        metering=Metering(store=store),
        audit=AuditLog(AuditConfig()),
    )
    return gateway.telemetry.families()
