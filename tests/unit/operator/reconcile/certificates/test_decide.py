"""When certificates are renewed, and the law that renewals keep."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.reconcile.certificates.decide import (
    LAST_SIGNED,
    LEAF_LEFT,
    LEAF_LIFE,
    ROOT_LEFT,
    ROOT_LIFE,
    SKEW,
    SPREAD,
    Leaf,
    Root,
    Step,
    kept,
    needs_next,
    signer,
    step,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
STALE = timedelta(hours=1)
SOON = timedelta(seconds=1)


def a_root(name: str = "first", made: datetime = T0, *, signs: bool = True) -> Root:
    return Root(name, made - SKEW, made + ROOT_LIFE, signs)


def a_leaf(by: Root, made: datetime = T0, *, trusts: Iterable[Root] = (), since: datetime | None = None) -> Leaf:
    ids = frozenset(root.id for root in trusts) or frozenset({by.id})
    return Leaf(by.id, made - SKEW, min(made + LEAF_LIFE, by.ends), ids, since or made)


def test_the_first_root_is_made_where_there_is_none() -> None:
    assert needs_next([], T0)
    assert not needs_next([a_root()], T0)


def test_the_next_root_is_made_when_a_year_is_left_and_only_once() -> None:
    first = a_root()
    due = first.ends - ROOT_LEFT
    assert not needs_next([first], due - SOON)
    assert needs_next([first], due)
    assert not needs_next([first, a_root("next", due)], due)


def test_the_next_root_signs_after_a_day_in_which_all_trusted_it() -> None:
    first = a_root()
    made = first.ends - ROOT_LEFT
    following = a_root("next", made)
    both = [first, following]
    leafs = [a_leaf(first, made, trusts=both, since=made) for _ in range(2)]
    assert signer(both, leafs, made + SPREAD - SOON) == first
    assert signer(both, leafs, made + SPREAD) == following


def test_who_was_away_lets_all_trust_the_next_root_before_it_signs() -> None:
    first = a_root()
    made = first.ends - ROOT_LEFT
    both = [first, a_root("next", made)]
    late = made + timedelta(days=20)
    assert signer(both, [a_leaf(first, made)], late) == first


def test_a_root_signs_nothing_any_more_when_another_one_does_and_it_ends_soon() -> None:
    first = a_root()
    following = a_root("next", first.ends - ROOT_LEFT)
    late = first.ends - LAST_SIGNED
    assert [root.signs for root in kept([following, first], late)] == [False, True]
    assert [root.signs for root in kept([first], late)] == [True]


def test_a_root_is_trusted_until_it_ends() -> None:
    first = a_root(signs=False)
    following = a_root("next", first.ends - ROOT_LEFT)
    assert len(kept([first, following], first.ends - SOON)) == 2
    assert kept([first, following], first.ends) == [following]


def test_a_leaf_is_renewed_when_a_third_is_left() -> None:
    root = a_root()
    leaf = a_leaf(root)
    due = leaf.ends - LEAF_LEFT
    assert step(leaf, [root], due - SOON) is Step.KEEP
    assert step(leaf, [root], due) is Step.ISSUE


def test_a_leaf_is_made_anew_where_there_is_none_or_its_root_is_gone_or_a_clock_was_wrong() -> None:
    root = a_root()
    assert step(None, [root], T0) is Step.ISSUE
    assert step(a_leaf(a_root("gone")), [root], T0) is Step.ISSUE
    assert step(a_leaf(root, T0 + timedelta(days=2)), [root], T0) is Step.ISSUE


def test_a_leaf_gets_new_roots_beside_it_and_stays_itself() -> None:
    root = a_root()
    assert step(a_leaf(root), [root, a_root("next", T0)], T0) is Step.TRUST


@dataclass
class Pods:
    """What the files of a deployment's gateway and workers were, and since when."""

    history: list[tuple[datetime, Leaf, Leaf]] = field(default_factory=list)

    def seen_at(self, when: datetime) -> list[tuple[datetime, Leaf, Leaf]]:
        """Return what may lie in some pod: what was written last, and what was there within the time before."""
        now = [each for each in self.history if each[0] <= when]
        return [each for n, each in enumerate(now) if n + 1 == len(now) or now[n + 1][0] >= when - STALE]


@dataclass
class Operator:
    """Does what the decisions say, to a namespace with two deployments."""

    roots: list[Root] = field(default_factory=list)
    pods: tuple[Pods, Pods] = field(default_factory=lambda: (Pods(), Pods()))

    def look(self, which: Pods, now: datetime, *, are_deleted: bool = False) -> None:
        """are_deleted: somebody has deleted both Secrets of the leafs; pods have what was in them."""
        self.roots = kept(self.roots, now)
        if needs_next(self.roots, now):
            self.roots.append(a_root(f"root {now}", now))
        held = which.history[-1][1:] if which.history and not are_deleted else ()
        by = signer(self.roots, held, now)
        made = []
        for leaf in held or (None, None):
            what = step(leaf, self.roots, now)
            if what is Step.KEEP and leaf is not None:
                made.append(leaf)
                continue
            ids = frozenset(root.id for root in self.roots)
            since = leaf.trusts_since if leaf is not None and leaf.trusts == ids else now
            fresh = a_leaf(by, now)
            base = leaf if what is Step.TRUST and leaf is not None else fresh
            made.append(Leaf(base.signer, base.starts, base.ends, ids, since))
        if tuple(made) != held:
            which.history.append((now, made[0], made[1]))

    def check(self, now: datetime) -> None:
        ends = {root.id: root.ends for root in self.roots}
        workers = [each[1] for pods in self.pods for each in pods.seen_at(now)]
        gateways = [each[2] for pods in self.pods for each in pods.seen_at(now)]
        for worker in workers:
            for gateway in gateways:
                assert gateway.signer in worker.trusts, "a worker refuses a gateway"
                assert worker.signer in gateway.trusts, "a gateway refuses a worker"
        for leaf in (*workers, *gateways):
            assert leaf.starts <= now < leaf.ends, "a certificate is not good"
            assert now < ends[leaf.signer], "what signed it is not good"


AWAY_DAYS = 20
OLDEST_DAYS = (ROOT_LIFE - ROOT_LEFT).days + AWAY_DAYS
"""Of the only root there is: an operator that is never away for longer has made the next one by then."""

GAPS = st.one_of(
    st.integers(5, 20).map(lambda minutes: timedelta(minutes=minutes)),
    st.integers(1, 48).map(lambda hours: timedelta(hours=hours)),
    st.integers(2, AWAY_DAYS).map(lambda days: timedelta(days=days)),
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(GAPS, st.booleans()), min_size=10, max_size=60),
    st.integers(1, 10 * 60),
    st.integers(0, OLDEST_DAYS),
)
def test_what_is_an_hour_old_is_accepted_by_what_is_an_hour_old_over_years_of_renewals(
    turns: list[tuple[timedelta, bool]], between_s: int, begins_days: int
) -> None:
    """Gaps up to 20 days: the operator was away. between_s: from the look at one deployment to that at the other."""
    operator, now, between = Operator(), T0, timedelta(seconds=between_s)
    operator.roots.append(a_root("first", T0 - timedelta(days=begins_days)))
    ends_at, turn = now + timedelta(days=4500), 0
    while now < ends_at:
        gap, are_deleted = turns[turn % len(turns)]
        gap = max(gap, 2 * between) if turn % 5 else timedelta(days=19)
        for number, pods in enumerate(operator.pods):
            operator.look(pods, now + number * between, are_deleted=are_deleted)
        for later in (timedelta(minutes=30), timedelta(minutes=61), gap - SOON):
            if between < later < gap:
                operator.check(now + later)
        operator.check(now + between)
        now, turn = now + gap, turn + 1
