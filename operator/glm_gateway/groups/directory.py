"""The groups of one model's name, as they are now: where they are, and a pool of connections to each."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from glm_gateway.proxy.pool import Patience, Pool
from glm_gateway.routing.pick import Group


@dataclass(frozen=True)
class Member:
    """One group: what routing must know, and its address.

    incarnation: another one, and it has an empty cache; empty: not known. speaks_tls: at port. server_name: that its
    certificate must say; empty: any.
    tells_no_load: it said so, as a worker from before frames does. served: the name that it knows its model by; empty:
    it did not say. max_model_len: tokens of prompt and answer together; None: it did not say.
    """

    group: Group
    host: str
    port: int
    incarnation: str = ""
    speaks_tls: bool = False
    server_name: str = ""
    tells_no_load: bool = False
    served: str = ""
    max_model_len: int | None = None


@dataclass
class Directory:
    """Use it from one event loop. tls: for groups that speak it."""

    tls: ssl.SSLContext | None = None
    patience: Patience = field(default_factory=Patience)
    _members: dict[str, Member] = field(default_factory=dict)
    _pools: dict[str, Pool] = field(default_factory=dict)

    def replace(self, members: Iterable[Member]) -> list[str]:
        """Take what there is now. Return who is gone, or began anew: what was known of them is true no more.

        Requests under way to a group that is gone are not cut: it may be draining.
        """
        now = {member.group.name: member for member in members}
        changed = [
            name
            for name, before in self._members.items()
            if (after := now.get(name)) is None
            or _spoken_to(after) != _spoken_to(before)
            or (before.incarnation and after.incarnation != before.incarnation)
        ]
        for name in changed:
            if (pool := self._pools.pop(name, None)) is not None:
                pool.close()
        self._members = now
        return changed

    def hear(self, name: str, heard_s: float) -> None:
        """Note when a group pushed last. Word of one that is gone changes nothing."""
        member = self._members.get(name)
        if member is not None:
            group = msgspec.structs.replace(member.group, heard_s=heard_s)
            self._members[name] = replace(member, group=group)

    @property
    def groups(self) -> list[Group]:
        return [member.group for member in self._members.values()]

    def tells_no_load(self, name: str) -> bool:
        member = self._members.get(name)
        return member is not None and member.tells_no_load

    def served_as(self, name: str) -> str:
        """Return the name that a group knows its model by; empty: it is not there, or did not say."""
        member = self._members.get(name)
        return "" if member is None else member.served

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and answer that fit every group which has said how many fit; None: none has."""
        said = [each.max_model_len for each in self._members.values() if each.max_model_len is not None]
        return min(said, default=None)

    def pool(self, name: str) -> Pool:
        """Return the connections to a group. Raises KeyError when it is gone."""
        found = self._pools.get(name)
        if found is None:
            member = self._members[name]
            tls = self.tls if member.speaks_tls else None
            found = self._pools[name] = Pool(
                member.host, member.port, tls, self.patience, server_name=member.server_name
            )
        return found

    def close(self) -> None:
        """Close what is idle."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


def _spoken_to(member: Member) -> tuple[str, int, bool, str]:
    """Return what a connection to a group goes by."""
    return member.host, member.port, member.speaks_tls, member.server_name
