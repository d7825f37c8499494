"""The end of what a request holds: counted once, before its client knows of the end, or after it left."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from glm_gateway.admission.metering import Metering
from glm_gateway.admission.reserved import Reserved
from glm_gateway.exchange.background import Background, Begun
from glm_gateway.exchange.destination import Placed
from glm_gateway.exchange.keepers import Keepers
from glm_gateway.models.only import ToUpstream
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.usage.entry import Entry


@dataclass
class Settling:
    """Call it when a reply ends, and when its request has, however. headers: that say who we are, and who asks.

    entry: what was written down; None: nothing yet, or the reply is about a response that goes on without its client.
    began_s: when the request came, by the clock of the loop.
    """

    metering: Metering
    background: Background
    keepers: Keepers
    reserved: Reserved
    relay: Relay
    placing: Placed
    headers: Sequence[tuple[bytes, bytes]]
    request_id: str
    began_s: float
    entry: Entry | None = None
    _goes_on: bool = False
    _counting: asyncio.Task[Entry] | None = None

    async def __call__(self) -> None:
        if self._goes_on:
            return
        if self._counting is None:
            self._note_keeper()
            if (begun := self._begun()) is not None:
                self._goes_on = True
                self.background.follow(begun)
                return
            self._counting = asyncio.create_task(self._count())
        self.entry = await asyncio.shield(self._counting)

    def _note_keeper(self) -> None:
        """Note who keeps a response that another group went on with than its id names."""
        opened = self.relay.result.progress.opened
        if opened is not None and self.relay.result.progress.num_times and opened.id.startswith("resp_"):
            self.keepers.note(opened.id, self.relay.result.group)

    async def _count(self) -> Entry:
        first_s = self.relay.result.first_token_at
        return await self.metering.settle(
            self.reserved,
            self.request_id,
            self.relay.result,
            e2e_s=asyncio.get_running_loop().time() - self.began_s,
            ttft_s=None if first_s is None else first_s - self.began_s,
        )

    def _begun(self) -> Begun | None:
        """Return the response that is made now; None: the reply is about none."""
        stored = self.relay.stored if self.reserved.in_background else None
        if stored is None or stored.is_over or isinstance(self.placing, ToUpstream):
            return None
        return Begun(
            id=stored.id,
            reserved=self.reserved,
            request_id=self.request_id,
            model=self.placing.model,
            group=self.relay.result.group,
            headers=self.headers,
            began_s=self.began_s,
        )
