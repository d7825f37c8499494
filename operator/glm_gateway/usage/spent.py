"""What keys and groups of keys have spent of a month, by what is written down. Pure.

The ledger knows no groups: a key may change its group, and what it spent stays with the group that it had then.
"""

from dataclasses import dataclass, field

from glm_gateway.limits.config import group_scope, key_scope
from glm_gateway.limits.limit import Unit
from glm_gateway.usage.entry import Entry


@dataclass
class Spent:
    """Of each scope and month. A Prior of stores. Entries are added once: the ledger says which are new."""

    _tokens: dict[tuple[str, str], int] = field(default_factory=dict)  # by month and scope
    _cost: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        scopes = [key_scope(entry.key)] + ([group_scope(entry.group_of_keys)] if entry.group_of_keys else [])
        month, tokens = entry.day[:7], entry.prompt + entry.answer + entry.thinking
        for scope in scopes:
            account = month, scope
            self._tokens[account] = self._tokens.get(account, 0) + tokens
            self._cost[account] = self._cost.get(account, 0) + entry.cost

    def __call__(self, scope: str, unit: Unit, month: str) -> int:
        return (self._tokens if unit is Unit.TOKENS else self._cost).get((month, scope), 0)

    def forget_before(self, month: str) -> None:
        self._tokens = {account: sum_ for account, sum_ in self._tokens.items() if account[0] >= month}
        self._cost = {account: sum_ for account, sum_ in self._cost.items() if account[0] >= month}
