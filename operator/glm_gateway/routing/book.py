"""What a gateway believes of each group: its load, its speed, and the prefixes in its KV cache.

Two numbers make the load. One is what this gateway has there: charged by each pick, corrected as the reply comes, and
released exactly once; no push of the group overwrites it. The other is what others have there: what the group says,
less what was this gateway's at that moment.

Tokens are of two kinds. Those *owed* are prompt tokens that no step has computed: whoever comes later waits for them.
Those *held* are all tokens of requests in flight, which the group calls in_flight_tokens: prompts, and answers so far.
"""

from collections import Counter
from collections.abc import Iterable
from statistics import median_low

import msgspec

from glm_gateway.routing.holdings import Holdings
from glm_gateway.routing.prefix import Prefix

PRIOR_TOKENS_PER_S = 4_000.0
"""Speed of groups of which none has said its own. Only expected waits depend on it, no choice between groups does."""

FARTHEST = 4.0
"""No group is taken for this many times slower or faster than the usual one. A group that got only crumbs has measured
crumbs, and would never get more: nobody would find out that it is as fast as the others."""

LARGEST = 1e9
"""Of a speed or a wait that is believed: more, or no number at all, was measured by nobody."""

PRIOR_KV_TOKENS = 100_000
BYTES_PER_TOKEN = 4.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a group says of itself. None: it does not say that; a worker from before lacks some, and none of it is 0."""

    in_flight_tokens: int | None = None
    tokens_to_prefill: int | None = None  # of them, prompt tokens that no cache holds and no step has computed
    oldest_wait_s: float | None = None  # of the requests of which no step has computed anything; 0: none waits
    prefill_tokens_per_s: float | None = None  # while it computes prompts, not on average: an idle group is not slow
    kv_tokens: int | None = None  # that its cache holds when full


class Charge(msgspec.Struct, frozen=True):
    """One request's tokens at one group. Keep it, and release it whatever happens."""

    number: int
    group: str


class _Owing(msgspec.Struct):
    """What a charge amounts to now."""

    owed: int
    held: int
    shares: int | None = None  # the last block of its prompt that was known there
    has_grown: bool = False


class Account:
    """All that is believed of one group. Read by pick; changed by the book only."""

    __slots__ = (
        "held",
        "holdings",
        "is_gone",
        "measured",
        "num_charges",
        "oldest_wait_s",
        "others_held",
        "others_owed",
        "owed",
        "sharing",
        "tokens_per_s",
    )

    def __init__(self) -> None:
        self.owed = self.held = self.num_charges = 0
        self.is_gone = False
        self.oldest_wait_s = 0.0
        self.others_owed = self.others_held = 0
        self.measured: float | None = None
        self.tokens_per_s = PRIOR_TOKENS_PER_S
        self.holdings = Holdings(PRIOR_KV_TOKENS * BYTES_PER_TOKEN)
        self.sharing: Counter[int] = Counter()  # requests in flight by the last block of theirs that was known here

    @property
    def in_flight_tokens(self) -> int:
        """Tokens in flight at the group: this gateway's, and those of others."""
        return self.held + self.others_held


def others_share(accounts: Iterable[Account]) -> float:
    """Return which part of the tokens in flight at some groups is not this gateway's; 0: nothing is in flight."""
    ours = others = 0
    for account in accounts:
        ours += account.held
        others += account.others_held
    return others / (ours + others) if others else 0.0


class Book:
    """The accounts of all groups by name. One a gateway; every call is O(1) but hear, which is O(groups)."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._charges: dict[int, tuple[Account, _Owing]] = {}
        self._next = 0

    def account(self, group: str) -> Account:
        """Return the account of a group, a new one if it is not known."""
        found = self._accounts.get(group)
        if found is None:
            found = self._accounts[group] = Account()
            self._set_speeds()
        found.is_gone = False
        return found

    @property
    def num_charges(self) -> int:
        return len(self._charges)

    def oldest_wait_s(self, group: str) -> float:
        """Return how long the oldest request waits at a group, by its last word; 0: none does, or nothing is known."""
        account = self._accounts.get(group)
        return 0.0 if account is None else account.oldest_wait_s

    def held_of(self, charge: Charge) -> int:
        """Return the tokens of one request, its prompt and its answer so far; 0: it has ended."""
        found = self._charges.get(charge.number)
        return 0 if found is None else found[1].held

    # what groups say

    def hear(self, group: str, load: Load) -> None:
        """Note a push. A number that can be none counts as not said: below 0, not finite, a speed below 1."""
        account = self.account(group)
        if load.in_flight_tokens is not None:
            account.others_held = max(0, load.in_flight_tokens - account.held)
        if load.tokens_to_prefill is not None:
            account.others_owed = max(0, load.tokens_to_prefill - account.owed)
        if load.oldest_wait_s is not None and 0.0 <= load.oldest_wait_s <= LARGEST:
            account.oldest_wait_s = load.oldest_wait_s
        if load.kv_tokens is not None and load.kv_tokens > 0:
            account.holdings.resize(load.kv_tokens * BYTES_PER_TOKEN)
        speed = load.prefill_tokens_per_s
        if speed is not None and 1.0 <= speed <= LARGEST and speed != account.measured:
            account.measured = speed
            self._set_speeds()

    def forget(self, group: str) -> None:
        """Forget what a group holds, says and measured: it is gone, or began anew with an empty cache.

        What this gateway has there stays charged until it is released: those requests have not ended by themselves.
        """
        account = self._accounts.get(group)
        if account is None:
            return
        account.others_owed = account.others_held = 0
        account.oldest_wait_s = 0.0
        account.measured = None
        account.holdings = Holdings(account.holdings.capacity_bytes)
        account.is_gone = True
        self._drop_if_settled(group, account)
        self._set_speeds()

    def _drop_if_settled(self, group: str, account: Account) -> None:
        if account.is_gone and not account.num_charges:
            del self._accounts[group]

    def _set_speeds(self) -> None:
        """A group that has not measured is as fast as the usual one: most likely it is the same machine."""
        measured = [each.measured for each in self._accounts.values() if each.measured is not None]
        usual = median_low(measured) if measured else PRIOR_TOKENS_PER_S
        for account in self._accounts.values():
            speed = usual if account.measured is None else account.measured
            account.tokens_per_s = min(max(speed, usual / FARTHEST), usual * FARTHEST)

    # what this gateway has there

    def charge(self, group: str, *, owed: int, held: int, shares: int | None = None) -> Charge:
        """Charge a request: owed prompt tokens that the group must compute, held in all.

        shares: the last block of its prompt that the group has computed for others; None: there is none.
        """
        account = self.account(group)
        account.num_charges += 1
        self._next += 1
        owing = _Owing(max(0, owed), max(0, held), shares)
        if shares is not None:
            account.sharing[shares] += 1
        account.owed += owing.owed
        account.held += owing.held
        self._charges[self._next] = (account, owing)
        return Charge(self._next, group)

    def begin(self, charge: Charge, prompt_tokens: int | None = None) -> None:
        """Note that a reply has begun. prompt_tokens: as the group counted them, which it says before it computes them;
        None: it was silent until its first token, and nothing is owed any more."""
        found = self._charges.get(charge.number)
        if found is None:
            return
        account, owing = found
        if prompt_tokens is None or prompt_tokens < 0:
            self._settle(account, owing)
            return
        owed = min(prompt_tokens, owing.owed * prompt_tokens // max(1, owing.held))
        account.owed += owed - owing.owed
        account.held += prompt_tokens - owing.held
        owing.owed, owing.held = owed, prompt_tokens

    def grow(self, charge: Charge, num_tokens: int) -> bool:
        """Note tokens of the answer: the group holds them as well, and has computed the whole prompt.

        Return whether they are the first.
        """
        found = self._charges.get(charge.number)
        if found is None or num_tokens <= 0:
            return False
        account, owing = found
        self._settle(account, owing)
        account.held += num_tokens
        owing.held += num_tokens
        is_first, owing.has_grown = not owing.has_grown, True
        return is_first

    @staticmethod
    def _settle(account: Account, owing: _Owing) -> None:
        account.owed -= owing.owed
        owing.owed = 0

    def release(self, charge: Charge) -> bool:
        """Take a charge back, once. False: that was done before, and nothing changes."""
        found = self._charges.pop(charge.number, None)
        if found is None:
            return False
        account, owing = found
        account.owed -= owing.owed
        account.held -= owing.held
        account.num_charges -= 1
        if owing.shares is not None:
            account.sharing[owing.shares] -= 1
            if not account.sharing[owing.shares]:
                del account.sharing[owing.shares]
        self._drop_if_settled(charge.group, account)
        return True

    # what groups hold

    def use(self, group: str, prefix: Prefix, now: float) -> None:
        """Note that a group was sent a prompt, and will hold it."""
        self.account(group).holdings.use(prefix, now)

    def check(self) -> None:
        """Raise AssertionError unless the accounts add up to the charges."""
        for name, account in self._accounts.items():
            here = [owing for owner, owing in self._charges.values() if owner is account]
            assert account.owed == sum(each.owed for each in here), name
            assert account.held == sum(each.held for each in here), name
            assert account.num_charges == len(here), name
            assert min(account.owed, account.held, account.others_owed, account.others_held) >= 0, name
            account.holdings.check()
