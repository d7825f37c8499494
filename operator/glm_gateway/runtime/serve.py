"""A gateway from its start to its end."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from glm_edge.version import VERSION
from glm_gateway.app import Gateway
from glm_gateway.audit.log import AuditLog
from glm_gateway.config.changes import held_back, merged
from glm_gateway.config.config import GatewayConfig
from glm_gateway.config.secrets import Secrets
from glm_gateway.config.source import ConfigSource
from glm_gateway.management.demand import Demands
from glm_gateway.management.port import Management
from glm_gateway.management.pulse import Pulse
from glm_gateway.management.standing import Standing
from glm_gateway.models.model import Model
from glm_gateway.runtime.apply import apply
from glm_gateway.runtime.drain import drained, left_after
from glm_gateway.runtime.gate import gate_of, num_keys
from glm_gateway.runtime.metering import metering_of
from glm_gateway.runtime.models import Models
from glm_gateway.runtime.servers import of_clients, of_management
from glm_gateway.runtime.tls import with_clients, with_workers

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the file."""

ENDPOINTS_FOLLOW_S = 3.0
"""How long requests are still taken after it has been told to stop: who sends them hears of it a moment later."""


LAST_WORD_S = 2.0
"""How long whom a drain has cut may take to read that it was, and what it used to be counted."""


class Runtime:
    """All that runs. Made by `started`; config: what holds now."""

    def __init__(self, source: ConfigSource, gateway: Gateway, models: Models, management: Management) -> None:
        self.config = source.current.config
        self.gateway = gateway
        self.management = management
        self._source = source
        self._models = models
        self._failure: str | None = None  # why a file that is good could not be gone by

    @classmethod
    async def started(cls, source: ConfigSource, secrets: Secrets, stack: contextlib.AsyncExitStack) -> "Runtime":
        """Return it with all models of the file. What it starts ends with the stack. Raises OSError."""
        config = source.current.config
        pulse, served = Pulse(), dict[str, Model]()
        audit = None
        if config.audit is not None:
            audit = AuditLog.opened(config.audit)
            stack.callback(audit.close)
        gateway = Gateway(
            served,
            secrets.token,
            await gate_of(config.auth, secrets.secret, stack, audit),
            secret=secrets.secret,
            metering=await metering_of(config, stack),
            audit=audit,
        )
        telemetry = gateway.telemetry
        tls = with_workers(config, stack)
        models = Models(pulse.beat, added=telemetry.add, dropped=telemetry.drop, served=served, tls=tls)
        stack.push_async_callback(models.close)
        management = Management(
            gateway,
            models=lambda: models.running,
            demands=Demands(lambda: models.running, pulse, began_s=asyncio.get_running_loop().time()),
            standing=Standing(source.current.digest),
            num_keys=lambda: num_keys(gateway.gate),
        )
        runtime = cls(source, gateway, models, management)
        runtime._go_by(config)
        return runtime

    async def keep_current(self, *, look_s: float = LOOK_S) -> None:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(look_s)
            try:
                if await asyncio.to_thread(self._source.look) or self._failure is not None:
                    self._take()
                await self._models.sweep()
            except Exception:  # a mistake of ours must not end who is served
                log.exception("a look at the file failed; the next one is in %g s", look_s)

    def _take(self) -> None:
        """Go by the file as it is now, as far as that can be."""
        source, standing = self._source, self.management.standing
        if source.current.digest != standing.digest:
            self._change()
        fault = source.fault or self._failure
        if fault is None and (held := held_back(self.config, source.current.config)):
            fault = f"{', '.join(held)}: cannot change while it runs; start it anew"
        if fault is not None and fault != standing.fault:
            log.error("not all of the file is in use: %s", fault)
        elif fault is None and standing.fault is not None:
            log.info("all of the file is in use")
        if fault != standing.fault:
            self.note("config_fault", fault=fault)
        standing.fault = fault
        self.gateway.telemetry.tell_current(is_current=fault is None)

    def _change(self) -> None:
        """Go by a new good file. Where that fails, as what it names cannot be read, the one before holds on."""
        found = self._source.current
        try:
            self._go_by(merged(self.config, found.config))
        except Exception as error:  # whatever it is: who is served goes on being served
            if self._failure is None:
                log.exception("the file is good and cannot be gone by; the one before holds on")
            self._failure = f"it cannot be gone by: {error or type(error).__name__}"
            with contextlib.suppress(Exception):
                self._go_by(self.config)
            return
        self._failure = None
        self.config = merged(self.config, found.config)
        self.management.standing.digest = found.digest
        log.info("the file has changed: now by %s", found.digest[:12])
        self.note("config_reloaded", digest=found.digest, models=[model.name for model in self.config.models])

    def note(self, event: str, **facts: Any) -> None:
        """Add an event to the audit log, where there is one."""
        if self.gateway.audit is not None:
            self.gateway.audit.add(event, **facts)

    def _go_by(self, config: GatewayConfig) -> None:
        """Go by this from now on, all at once: no request sees half of it."""
        self._models.take(config.models)
        apply(config, self.gateway)


async def serve(
    source: ConfigSource, secrets: Secrets, stopping: asyncio.Event, *, follow_s: float = ENDPOINTS_FOLLOW_S
) -> None:
    """Serve until told to stop, then wait for the requests under way. Raises OSError."""
    async with contextlib.AsyncExitStack() as stack:
        runtime = await Runtime.started(source, secrets, stack)
        gateway, management = runtime.gateway, runtime.management
        tls = with_clients(runtime.config, stack)
        public = of_clients(gateway, management, runtime.config, tls)
        private = of_management(management, runtime.config)
        management.is_open = lambda: public.started
        serving = [asyncio.create_task(server.serve()) for server in (public, private)]
        following = asyncio.create_task(runtime.keep_current())
        names = [model.name for model in runtime.config.models]
        runtime.note("gateway_started", version=VERSION, digest=management.standing.digest, models=names)
        try:
            await _first([asyncio.create_task(stopping.wait()), *serving, following])
        finally:
            gateway.is_stopping = True  # not ready: nobody new is sent here
            following.cancel()
            await asyncio.sleep(follow_s)
            runtime.note("gateway_draining", running=gateway.num_running)
            public.should_exit = True  # takes nothing new, and ends each connection after its reply
            if num_cut := await drained(lambda: gateway.num_running, runtime.config.drain_seconds):
                gateway.telemetry.cut(num_cut)
                gateway.cut()
                if left := await left_after(lambda: gateway.num_running, LAST_WORD_S):
                    log.error("requests that did not end: %d; what they used is not counted", left)
                public.force_exit = True
            runtime.note("gateway_stopped", cut=num_cut)
            await asyncio.wait(serving[:1])
            await gateway.background.close()  # while what counts is there
            private.should_exit = private.force_exit = True
            await asyncio.gather(*serving, following, return_exceptions=True)


async def _first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the first of these to end. Raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
