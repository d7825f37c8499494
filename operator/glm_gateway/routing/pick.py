"""pick(request, groups, book, now) -> Choice: which group a request goes to. It is charged in the same call.

A group costs a request the seconds until its first token there, and those that it takes from others: what a full cache
forgets for it is computed again. What is ahead is computed first, and that takes no less than the oldest request there
has waited already, whatever it is that it waits for.

A request stays where most of its prompt has been computed, while that costs it no more than computing that part again
would take; else it goes to whom of the least costly knows most of it. A prefix that many use at once spreads: computing
it again serves all of them, so each one that is in flight with it makes the next less patient.

What this gateway has not placed, another replica of it may have: the part of others in what is in flight says whether
there is one. So the first block that nobody here knows has a home by its name, the same at all replicas, where the rest
of the prompt counts as known as far as there are others. A conversation that changes the replica mostly finds what it
has begun, and nobody tells anybody anything.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from glm_gateway.routing.book import BYTES_PER_TOKEN, Account, Book, Charge, others_share
from glm_gateway.routing.prefix import ENDS, Prefix
from glm_gateway.routing.rendezvous import number_of, spread

SILENCE_S = 3.0
"""A group that pushes, and has been silent for so long, is suspect: it is used behind all others, and what it said
last of its load counts no more."""

HELD_WEIGHT = 0.1
"""What a token in flight counts for, against one that must still be computed. A running request delays a first token by
far less than its tokens (on an H200 by a thousandth), but it takes KV blocks and slows every answer; and load that
counts for nothing is never evened out: with 0 the fullest of four groups has 1.5 times the mean, with 0.05 to 0.25 it
has 1.0 to 1.2. With 1 a tenth of the prefix hits is lost (benchmarks/routing_simulated.py --held-weight)."""

FORGET_WEIGHT = 2.0
"""What a token counts for that a full cache must forget, against one that must be computed. Somebody computes it again,
and that pushes out as much once more. On groups of speeds 2, 1, 1 and 0.5 the fast one gets most conversations and
forgets them before their next turn: with 0, 1 and 2 the hits are 0.861, 0.891 and 0.932 of the ideal, where all are
alike and busy 0.944, 0.952 and 0.962, with no later first tokens (benchmarks/routing_simulated.py --loads uneven)."""

OTHERS_WEIGHT = 2.0
"""Where others have half of what is in flight, or more, what nobody here knows of a prompt counts as known at its home
altogether: where it is the half, with 1 in place of 2, two replicas find 0.896 of the ideal instead of 0.925, and busy
ones 0.798 instead of 0.864 (benchmarks/routing_simulated.py, "ours x2")."""

NEARLY = 1.1
"""Costs up to this many times the least one are as good: they are estimates."""

NO_WAITS: Mapping[str, float] = MappingProxyType({})

Why = Literal["prefix", "least_loaded", "only", "arm"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of a request to place it.

    key: breaks ties between groups where the prompt has no whole block; any text, as the request's id.
    sticky: who is to stay on an arm of an experiment, as a key, a tenant, a user; empty: each request is on its own.
    avoid: groups at which it has failed: they are taken when there is no other.
    """

    key: str
    prompt_tokens: int
    prefix: Prefix = Prefix()
    sticky: str = ""
    avoid: frozenset[str] = frozenset()


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of a group to send it a request, besides what the book says.

    heard_s: when it pushed last; None: it never does, for its workers are from before, and only own charges count.
    """

    name: str
    is_ready: bool = True
    is_leaving: bool = False
    heard_s: float | None = None
    deployment: str = ""
    revision: str = ""

    @property
    def takes_requests(self) -> bool:
        return self.is_ready and not self.is_leaving


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes. why: a label of metrics.

    prefix: most of its prompt is known there. least_loaded: it waits least there. only: there was no other.
    arm: an experiment left no other. wait_s: the seconds until its first token, as they are expected.
    """

    group: str
    why: Why
    wait_s: float
    known_tokens: int  # of the prompt, that need not be computed
    charge: Charge


class _Candidate(msgspec.Struct):
    """A group as this request finds it.

    wait_s: until its first token. cost_s: that, and what it takes from others. num_known: blocks of its prompt.
    """

    name: str
    account: Account
    wait_s: float
    cost_s: float
    num_known: int
    known_tokens: int

    def patience_s(self, prefix: Prefix) -> float:
        """Return what computing the known part again would take there, for each of those that would use it."""
        sharers = self.account.sharing[prefix.hashes[self.num_known - 1]] if self.num_known else 0
        return self.known_tokens / self.account.tokens_per_s / (1 + sharers)


def pick(
    request: Request, groups: Iterable[Group], book: Book, now: float, waits_s: Mapping[str, float] = NO_WAITS
) -> Choice | None:
    """Place a request and charge it there; None when no group takes requests.

    now: seconds of a clock that never goes back, the one of Group.heard_s. waits_s: by group, how long a request waits
    there until one more is run. The caller releases Choice.charge.
    """
    foremost, are_heard = _foremost(request, groups, now)
    candidates = [
        _candidate(request, group.name, book.account(group.name), now, waits_s.get(group.name, 0.0), are_heard)
        for group in foremost
    ]
    if not candidates:
        return None
    chosen, is_home = _chosen(candidates, request)
    hashes = request.prefix.hashes
    charge = book.charge(
        chosen.name,
        owed=request.prompt_tokens - chosen.known_tokens,
        held=request.prompt_tokens,
        shares=hashes[chosen.num_known - 1] if chosen.num_known else None,
    )
    book.use(chosen.name, request.prefix, now)
    return Choice(
        group=chosen.name,
        why="only" if len(candidates) == 1 else "prefix" if is_home else "least_loaded",
        wait_s=chosen.wait_s,
        known_tokens=chosen.known_tokens,
        charge=charge,
    )


def owed_tokens(request: Request, groups: Iterable[Group], book: Book, now: float) -> int:
    """Return the prompt tokens that are still to be computed where most of the prompt is known; nothing is charged."""
    able = [book.account(group.name) for group in groups if group.takes_requests]
    num_known = max((account.holdings.num_known(request.prefix, now) for account in able), default=0)
    return request.prompt_tokens - (_known_tokens(request, num_known) if num_known else 0)


def _foremost(request: Request, groups: Iterable[Group], now: float) -> tuple[list[Group], bool]:
    """Return the groups that take requests; of them those where it has not failed, then those that are heard.

    And whether they are: what silent ones said last is no word of now.
    """
    tiers: dict[int, list[Group]] = {}
    for group in groups:
        if group.is_ready and not group.is_leaving:
            is_suspect = group.heard_s is not None and now - group.heard_s > SILENCE_S
            tier = 2 * (group.name in request.avoid) + is_suspect
            tiers.setdefault(tier, []).append(group)
    if not tiers:
        return [], False
    foremost = min(tiers)
    return tiers[foremost], not foremost % 2


def _candidate(
    request: Request, name: str, account: Account, now: float, slot_wait_s: float, is_heard: bool
) -> _Candidate:
    holdings, speed = account.holdings, account.tokens_per_s
    num_known = holdings.num_known(request.prefix, now)
    known_tokens = _known_tokens(request, num_known) if num_known else 0
    new_tokens = request.prompt_tokens - known_tokens
    ahead, oldest_wait_s = account.owed + HELD_WEIGHT * account.held, 0.0
    if is_heard:
        ahead += account.others_owed + HELD_WEIGHT * account.others_held
        oldest_wait_s = account.oldest_wait_s
    wait_s = max(ahead / speed, oldest_wait_s, slot_wait_s) + new_tokens / speed
    forgotten_tokens = new_tokens - holdings.free_bytes / BYTES_PER_TOKEN
    cost_s = wait_s + FORGET_WEIGHT * forgotten_tokens / speed if forgotten_tokens > 0 else wait_s
    return _Candidate(name, account, wait_s, cost_s, num_known, known_tokens)


def _known_tokens(request: Request, num_known: int) -> int:
    """Return the tokens of a prompt that need not be computed where so many blocks of it, 1 or more, are known.

    The last is computed in any case: its logits are the answer's first.
    """
    prompt_tokens = request.prompt_tokens
    return max(0, min(prompt_tokens * ENDS[num_known - 1] // request.prefix.num_bytes, prompt_tokens - 1))


def _chosen(candidates: list[_Candidate], request: Request) -> tuple[_Candidate, bool]:
    """Return who gets it, and whether that is because it knows most of the prompt."""
    if len(candidates) == 1:
        return candidates[0], False
    best = max(candidates, key=lambda each: each.num_known)
    seed = _seed(request, best.num_known)
    if best.num_known < len(request.prefix.hashes) and (share := others_share(each.account for each in candidates)):
        named = _first_by_name(candidates, seed)
        unknown_s = (request.prompt_tokens - best.known_tokens) / named.account.tokens_per_s
        named.cost_s -= min(1.0, OTHERS_WEIGHT * share) * unknown_s
    if best.known_tokens > 0:
        home = _first_of([each for each in candidates if each.known_tokens == best.known_tokens], seed)
        if home.cost_s - min(each.cost_s for each in candidates) <= home.patience_s(request.prefix):
            return home, True
    near = _least_costly(candidates)
    most_known = max(each.known_tokens for each in near)
    return _first_of([each for each in near if each.known_tokens == most_known], seed), False


def _seed(request: Request, num_known: int) -> int:
    """Return by what ties go: the first block that no group knows.

    So prompts that begin alike come to the same group, also at another replica of this gateway, and of conversations
    that begin with the same instructions each has its own.
    """
    hashes = request.prefix.hashes
    if not hashes:
        return number_of(request.key)
    return hashes[num_known if num_known < len(hashes) else 0]


def _least_costly(candidates: list[_Candidate]) -> list[_Candidate]:
    if len(candidates) == 1:
        return candidates
    near_s = NEARLY * min(each.cost_s for each in candidates)
    return [each for each in candidates if each.cost_s <= near_s]


def _first_of(candidates: list[_Candidate], seed: int) -> _Candidate:
    """Return the one of the least costly that comes first by its name, whatever the order of the groups."""
    near = _least_costly(candidates)
    return near[0] if len(near) == 1 else _first_by_name(near, seed)


def _first_by_name(candidates: list[_Candidate], seed: int) -> _Candidate:
    return max(candidates, key=lambda each: (spread(seed ^ number_of(each.name)), each.name))
