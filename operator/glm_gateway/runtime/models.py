"""The models that run: each with its groups, and who finds and hears them. Added and removed while requests run."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from glm_gateway.config.models import GroupsConfig, ModelConfig
from glm_gateway.groups.directory import Directory
from glm_gateway.groups.found import Found
from glm_gateway.groups.roster import Roster
from glm_gateway.models.model import Model
from glm_gateway.runtime.groups import source_of
from glm_gateway.tls.to_workers import ToWorkers

log = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a model that is served no more is kept at least: a request may have chosen it, and not be placed yet."""

AGAIN_S = 5.0


@dataclass
class _Followed:
    """A model, and the task that finds its groups. retired_s: since when it is served no more; None: it is."""

    model: Model
    roster: Roster
    where: GroupsConfig | None = None
    following: asyncio.Task[None] | None = None
    retired_s: float | None = None
    ending: set[asyncio.Task[None]] = field(default_factory=set)  # that found its groups elsewhere
    found: list[Found] = field(default_factory=list)
    unable: set[str] = field(default_factory=set)  # groups that speak what we do not

    def follow(self, where: GroupsConfig) -> None:
        """Find groups there from now on; those known stay until others are found."""
        if where == self.where:
            return
        if self.following is not None:
            self.following.cancel()
            self.ending.add(self.following)
            self.following.add_done_callback(self.ending.discard)
        self.where = where
        self.following = asyncio.create_task(self._find(where))

    async def _find(self, where: GroupsConfig) -> None:
        while True:
            try:
                await source_of(where, self.take, os.environ).run()
            except Exception:  # a mistake of ours: those known hold on, and a later look may go well
                log.exception("the groups of %s cannot be found; looking again in %g s", self.model.name, AGAIN_S)
            await asyncio.sleep(AGAIN_S)

    def take(self, found: list[Found]) -> None:
        """Take the groups that there are now, but for those that cannot be spoken to."""
        tls = self.model.directory.tls
        is_able = tls is not None and (not isinstance(tls, ToWorkers) or tls.is_ready)
        able = [each for each in found if not each.speaks_tls or is_able]
        unable = {each.name for each in found}.difference(each.name for each in able)
        lack = "the file has no workers.tlsFolder" if tls is None else "there is no certificate for it yet"
        for name in sorted(unable - self.unable):
            log.error("group %s speaks TLS, and %s: it gets nothing", name, lack)
        self.found = found
        self.unable = unable
        self.roster.take(able)

    async def close(self) -> None:
        if self.following is not None:
            self.following.cancel()
            self.ending.add(self.following)
        await asyncio.gather(*self.ending, return_exceptions=True)
        await self.roster.close()
        self.model.directory.close()


@dataclass
class Models:
    """served: by name, those of the file; a gateway looks there for each request. changed: told of each change.

    added, dropped: told of a model that begins, and of one that has ended. tls: for groups that speak it; None: such
    groups get nothing.
    """

    changed: Callable[[], None]
    added: Callable[[Model], None]
    dropped: Callable[[str], None]
    served: dict[str, Model] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    linger_s: float = LINGER_S
    _followed: dict[str, _Followed] = field(default_factory=dict)

    @property
    def running(self) -> list[Model]:
        """All that have groups: those that are served, and those that have requests from before."""
        return [each.model for each in self._followed.values()]

    def __post_init__(self) -> None:
        if isinstance(self.tls, ToWorkers):
            self.tls.when_ready.append(self._take_again)

    def _take_again(self) -> None:
        """Take groups that could not be spoken to as they were found."""
        for each in self._followed.values():
            each.take(each.found)

    def take(self, configs: Iterable[ModelConfig]) -> None:
        """Serve these from now on, and no others. Requests under way to others end as they began."""
        wanted = {each.name: each for each in configs}
        for name in [name for name in self.served if name not in wanted]:
            del self.served[name]
            self._followed[name].retired_s = asyncio.get_running_loop().time()
            log.info("model %s is served no more", name)
        for name, config in wanted.items():
            followed = self._followed.get(name)
            if followed is None:
                model = Model(name, Directory(self.tls), changed=self.changed)
                followed = self._followed[name] = _Followed(model, Roster(model))
                self.added(model)
            if name not in self.served:
                log.info("model %s is served", name)
            followed.retired_s = None
            followed.model.deployment, followed.model.token = config.deployment, config.token
            self.served[name] = followed.model
            followed.follow(config.groups)
        self.changed()

    async def sweep(self) -> None:
        """End those that are served no more and have no requests left."""
        now = asyncio.get_running_loop().time()
        for name, each in list(self._followed.items()):
            is_idle = not each.model.in_flight and not each.model.room
            if each.retired_s is not None and is_idle and now - each.retired_s >= self.linger_s:
                del self._followed[name]
                await each.close()
                self.dropped(name)

    async def close(self) -> None:
        """End all, whatever they have."""
        self.served.clear()
        for each in self._followed.values():
            await each.close()
        self._followed.clear()
