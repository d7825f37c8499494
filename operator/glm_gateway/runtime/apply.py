"""What of the file holds for the next request: set at the start, and again each time that the file changes.

A request takes what it goes by when it begins, so those under way are not touched.
"""

from glm_gateway.access.cors import Cors
from glm_gateway.app import Gateway
from glm_gateway.config.config import GatewayConfig
from glm_gateway.config.models import ModelConfig
from glm_gateway.continuation.progress import Bounds
from glm_gateway.hold.room import Bounds as HoldBounds
from glm_gateway.metrics.telemetry import Owner
from glm_gateway.models.model import Overflow
from glm_gateway.routing.names import canary_of, split_of
from glm_gateway.routing.priorities import classes_of
from glm_gateway.routing.router import Splits
from glm_gateway.traces.config import TraceConfig
from glm_gateway.traces.traces import Traces
from glm_gateway.upstreams.upstream import upstreams_of


def apply(config: GatewayConfig, gateway: Gateway) -> None:
    """Let a gateway go by this, but for which models it has."""
    gateway.telemetry.owners.take({each.name: _owner(each) for each in config.models})
    gateway.bounds = Bounds(max_times=config.continuation.max_times)
    gateway.metering.quotas = config.quotas
    gateway.cors = None if config.cors is None else Cors.of(config.cors)
    _trace(config.trace, gateway)
    bounds = HoldBounds(timeout_s=config.hold.timeout_seconds, max_held=config.hold.max_held)
    gateway.priorities = classes_of(config.priorities)
    names = gateway.names
    names.upstreams = upstreams_of(config.upstreams, names.upstreams)
    for each in config.upstreams:
        gateway.telemetry.begin(each.name)
    names.former = {former: each.name for each in config.models for former in each.former_names}
    names.splits = {each.name: split_of(each) for each in config.names}
    for served in config.models:
        model = gateway.models[served.name]
        model.bound(bounds)
        model.slo = served.slo
        model.overload.set_steps(config.overload.steps(), is_enabled=config.overload.enabled)
        model.overload.know(each.name for each in gateway.priorities)
        to = served.overflow
        model.expect_groups(awaits=served.awaits_groups)
        model.router.splits = _splits(served)
        model.overflow = None if to is None else Overflow(names.upstreams[to.upstream], to.after_seconds)


def _splits(model: ModelConfig) -> Splits:
    return Splits() if model.canary is None else Splits(revisions={model.deployment: canary_of(model.canary)})


def _trace(config: TraceConfig, gateway: Gateway) -> None:
    """Keep traces as this says. Those that are kept stay, unless none are any more."""
    kept = None
    if config.enabled:
        kept = gateway.traces or Traces(config)
        kept.config = config
    gateway.traces = gateway.pages.traces = kept


def _owner(model: ModelConfig) -> Owner:
    """Return whose groups these are, as their own metrics say it."""
    return Owner(model.groups.namespace or "", model.deployment)
