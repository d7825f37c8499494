"""What keys and groups of keys have spent of a month, by what is written down. Pure.

The ledger knows no groups: a key may change its group, and what it spent stays with the group that it had then.
"""

from dataclasses import dataclass, field

from glm_gateway.limits.config import group_scope, key_scope
from glm_gateway.limits.limit import Unit
from glm_gateway.usage.entry import Entry


def scopes_of(entry: Entry) -> list[str]:
    """Return the names of the scopes whose budgets an entry counts in."""
    return [key_scope(entry.key)] + ([group_scope(entry.group_of_keys)] if entry.group_of_keys else [])


def tokens_of(entry: Entry) -> int:
    """Return how many tokens an entry counts in a budget."""
    return entry.prompt + entry.answer + entry.thinking


@dataclass
class Spent:
    """Of each scope and month. A Prior of stores. Entries are added once: the ledger says which are new."""

    _tokens: dict[tuple[str, str], int] = field(default_factory=dict)  # by month and scope
    _cost: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, entry: Entry, sign: int = 1) -> None:
        """sign: -1 takes an entry back."""
        month, tokens = entry.day[:7], tokens_of(entry)
        for scope in scopes_of(entry):
            account = month, scope
            self._tokens[account] = self._tokens.get(account, 0) + sign * tokens
            self._cost[account] = self._cost.get(account, 0) + sign * entry.cost

    def __call__(self, scope: str, unit: Unit, month: str) -> int:
        return (self._tokens if unit is Unit.TOKENS else self._cost).get((month, scope), 0)

    def forget_before(self, month: str) -> None:
        self._tokens = {account: sum_ for account, sum_ in self._tokens.items() if account[0] >= month}
        self._cost = {account: sum_ for account, sum_ in self._cost.items() if account[0] >= month}
