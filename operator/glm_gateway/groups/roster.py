"""Joins where groups are, as a source says it, with what each says of itself, and tells a model.

A group knows best whether it is ready, as long as it is heard: a probe is seconds behind. Once its stream is lost, it
gets requests only if its last word and the source agree; when that was long ago, the source's word counts.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from glm_gateway.groups.directory import Member
from glm_gateway.groups.found import Found
from glm_gateway.groups.load import LoadReader, Pace
from glm_gateway.groups.report import Report
from glm_gateway.proxy.pool import Pool
from glm_gateway.routing.book import Load
from glm_gateway.routing.pick import Group

log = logging.getLogger(__name__)

LAST_WORD_S = 10.0
"""How long the last word of a group that is not heard any more counts."""


class Hearing(Protocol):
    """What is told: a Model."""

    def replace(self, members: Iterable[Member]) -> None: ...
    def hear(self, group: str, load: Load, heard_s: float) -> None: ...
    def hear_running(self, group: str, max_running: int) -> None: ...
    def hear_start(self, start_s: float) -> None: ...


@dataclass
class _Known:
    """A group, and how it was heard. report: its last word; None: none that counts."""

    found: Found
    reading: asyncio.Task[None] | None = None
    report: Report | None = None
    heard_s: float | None = None
    is_lost: bool = False
    tells_no_load: bool = False


def member_of(found: Found, report: Report | None, heard_s: float | None, *, is_lost: bool, now: float) -> Member:
    """Return a group as routing is to see it. is_lost: since report, which came at heard_s, nothing is heard."""
    is_ready, is_leaving = found.is_ready, found.is_leaving
    if report is not None and heard_s is not None and not (is_lost and now - heard_s > LAST_WORD_S):
        if report.ready is not None:
            is_ready = report.ready and (found.is_ready or not is_lost)
        is_leaving = is_leaving or bool(report.leaving)
    group = Group(
        name=found.name,
        is_ready=is_ready,
        is_leaving=is_leaving,
        heard_s=heard_s,
        deployment=found.deployment,
        revision=found.revision or (report and report.revision) or "",
    )
    return Member(
        group,
        found.host,
        found.port,
        incarnation=(report and report.incarnation) or "",
        speaks_tls=found.speaks_tls,
        server_name=found.server_name,
        served=(report and report.model) or "",
        max_model_len=None if report is None else report.max_model_len,
    )


@dataclass
class Roster:
    """Use it from one event loop, and close it. tls: of the management port; None: plain HTTP."""

    hearing: Hearing
    tls: ssl.SSLContext | None = None
    pace: Pace = field(default_factory=Pace)
    _known: dict[str, _Known] = field(default_factory=dict)
    _told: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clock = asyncio.get_running_loop().time

    def take(self, found: Iterable[Found]) -> None:
        """Take the groups that there are now, by a source."""
        now = {each.name: each for each in found}
        for name in [name for name in self._known if name not in now]:
            self._stop(self._known.pop(name))
            log.info("group %s is gone", name)
        for name, each in now.items():
            known = self._known.get(name)
            if known is not None and _place(known.found) == _place(each):
                known.found = each
                continue
            if known is not None:
                self._stop(known)
            log.info("group %s is at %s:%d", name, each.host, each.port)
            self._known[name] = known = _Known(each)
            known.reading = asyncio.create_task(self._reader(known).run())
        self._tell()

    def report(self, name: str) -> Report | None:
        """Return the last word of a group; None: it has said nothing, or there is no such group."""
        known = self._known.get(name)
        return None if known is None else known.report

    @property
    def start_s(self) -> float | None:
        """How long the slowest start took of those that groups have measured; None: none has."""
        reports = [each.report for each in self._known.values() if each.report is not None]
        return max((each.start_s for each in reports if each.start_s is not None), default=None)

    async def close(self) -> None:
        """Hear nobody any more."""
        readings = [each.reading for each in self._known.values() if each.reading is not None]
        for known in self._known.values():
            self._stop(known)
        self._known.clear()
        await asyncio.gather(*readings, return_exceptions=True)

    def _reader(self, known: _Known) -> LoadReader:
        found = known.found
        return LoadReader(
            found.name,
            Pool(found.host, found.management_port, self.tls, max_idle=0),
            hear=lambda report: self._hear(known, report),
            lost=lambda: self._lose(known),
            unable=lambda: self._give_up(known),
            pace=self.pace,
        )

    def _hear(self, known: _Known, report: Report) -> None:
        name, before = known.found.name, known.report
        known.report, known.heard_s, known.is_lost, known.tells_no_load = report, self._clock(), False, False
        if report.max_running is not None and (before is None or before.max_running != report.max_running):
            self.hearing.hear_running(name, report.max_running)  # first: who has waited is placed as the group comes
        self._tell(name)
        self.hearing.hear(name, report.load, known.heard_s)
        if report.start_s is not None and (start_s := self.start_s) is not None:
            self.hearing.hear_start(start_s)

    def _lose(self, known: _Known) -> None:
        known.is_lost = True
        self._tell(known.found.name)

    def _give_up(self, known: _Known) -> None:
        known.report = known.heard_s = None
        known.is_lost, known.tells_no_load = False, True
        self._tell(known.found.name)

    def _tell(self, changed: str | None = None) -> bool:
        """Tell what members there are, if they are others but for when they were heard; return whether they are.

        changed: the only group that may be another one than before; None: any.
        """
        now = self._clock()
        members = dict(self._told) if changed is not None else {}
        for name in self._known if changed is None else [changed]:
            known = self._known[name]
            member = member_of(known.found, known.report, known.heard_s, is_lost=known.is_lost, now=now)
            members[name] = replace(member, tells_no_load=known.tells_no_load)
        if changed is not None and changed in self._told:
            is_new = _routed(members[changed]) != _routed(self._told[changed])
        else:
            is_new = {name: _routed(each) for name, each in members.items()} != {
                name: _routed(each) for name, each in self._told.items()
            }
        self._told = members
        if is_new:
            self.hearing.replace(members.values())
        return is_new

    @staticmethod
    def _stop(known: _Known) -> None:
        if known.reading is not None:
            known.reading.cancel()


def _place(found: Found) -> tuple[str, int, int]:
    return found.host, found.port, found.management_port


def _routed(member: Member) -> Member:
    """Return a member but for when it was heard, which is told apart."""
    heard_s = None if member.group.heard_s is None else 0.0
    return replace(member, group=msgspec.structs.replace(member.group, heard_s=heard_s))
