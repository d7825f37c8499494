"""What all requests share."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_gateway.access.cors import Cors
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.audit.log import AuditLog
from glm_gateway.audit.metrics import AuditMetrics
from glm_gateway.continuation.progress import Bounds
from glm_gateway.exchange.background import Background
from glm_gateway.exchange.keepers import Keepers
from glm_gateway.metrics.telemetry import Telemetry
from glm_gateway.models.model import Model
from glm_gateway.models.names import Names
from glm_gateway.pages.of_worker import described_by_a_worker
from glm_gateway.pages.pages import Pages
from glm_gateway.proxy.relay.outgoing import Waits
from glm_gateway.routing.classes import Classes
from glm_gateway.traces.traces import Traces


@dataclass
class State:
    """models: by name. token: says to workers who we are. gate: who may ask. metering: how much.

    secret: keys the hashes of prompts; the same in all replicas. priorities: classes of callers. cors: pages of other
    origins that may read replies; None: none may.
    """

    models: Mapping[str, Model]
    token: str
    gate: Gate
    secret: bytes = b""
    metering: Metering = field(default_factory=Metering)
    bounds: Bounds = field(default_factory=Bounds)
    waits: Waits = field(default_factory=Waits)
    priorities: Classes = field(default_factory=Classes)
    cors: Cors | None = None

    audit: AuditLog | None = None
    traces: Traces | None = None

    def __post_init__(self) -> None:
        self.num_running = 0
        self.num_cut = 0  # requests that ended in an error, as the drain of their group was over
        self.keepers = Keepers()
        self.background = Background(self.metering)
        self.relaying: set[asyncio.Task[None]] = set()
        self.turn = asyncio.Lock()  # of large bodies
        self.is_stopping = False  # each reply is the last one of its connection, so that clients connect elsewhere
        self.is_cut = False
        self.names = Names(self.models)
        self.telemetry = Telemetry(list({model.name: model for model in self.models.values()}.values()))
        for collector in self.metering.collectors:
            self.telemetry.registry.register(collector)
        if self.audit is not None:
            self.telemetry.registry.register(AuditMetrics(self.audit))
        self.pages = Pages(
            names=lambda: self.names.lengths,
            mode=self.gate.mode,
            usage=self.metering.usage,
            traces=self.traces,
            of_worker=lambda: described_by_a_worker(list(self.models.values())),
        )

    def cut(self) -> None:
        """Tell all that is under way that there is no more time for it. It ends soon after."""
        self.is_cut = True
        for task in self.relaying:
            task.cancel()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: they are also where no group is, for they wait."""
        return bool(self.models)
