"""What is out is out of every arm; what becomes of a request is known to all who must know."""

from collections import Counter
from math import inf

import msgspec
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from glm_gateway.routing.arms import Split
from glm_gateway.routing.book import Load
from glm_gateway.routing.config import CanaryConfig
from glm_gateway.routing.ejection import FAILURES, FIRST_S
from glm_gateway.routing.names import canary_of
from glm_gateway.routing.pick import SILENCE_S, Choice, Group, Request
from glm_gateway.routing.prefix import ENDS, Prefix
from glm_gateway.routing.router import Router, Splits

AB = Splits(deployments=Split(name="ab", weights={"a": 50, "b": 50}))
GROUPS = [Group(name=f"{arm}-g{number}", deployment=arm, revision=f"r{number}") for arm in "ab" for number in range(2)]


def a_request(number: int = 0, **given: str) -> Request:
    return Request(key=f"r{number}", prompt_tokens=1000, **{"sticky": f"user-{number}", **given})  # type: ignore[arg-type]


def routed(router: Router, request: Request, groups: list[Group] = GROUPS, now: float = 0.0) -> Choice:
    choice = router.route(request, groups, now)
    assert choice is not None
    return choice


def fail(router: Router, group: str, now: float = 0.0) -> None:
    for _ in range(FAILURES):
        router.ejection.fail(group, now)


def test_a_user_stays_on_an_arm_and_arms_get_their_shares() -> None:
    router = Router(AB)
    chosen = [{routed(router, a_request(number)).group[0] for _ in range(3)} for number in range(200)]
    assert all(len(each) == 1 for each in chosen)
    assert 70 <= sum(each == {"a"} for each in chosen) <= 130


def test_requests_that_stick_to_nothing_are_divided_one_by_one() -> None:
    router = Router(AB)
    counts = Counter(routed(router, a_request(number, sticky="")).group[0] for number in range(200))
    assert min(counts["a"], counts["b"]) > 70


def test_revisions_have_their_own_split_in_each_deployment() -> None:
    splits = Splits(revisions={"a": Split(name="canary", weights={"r0": 90, "r1": 10})})
    router = Router(msgspec.structs.replace(splits, deployments=AB.deployments))
    counts = Counter(routed(router, a_request(number)).group for number in range(400))
    assert 0.04 < counts["a-g1"] / (counts["a-g0"] + counts["a-g1"]) < 0.18
    assert 0.4 < counts["b-g1"] / (counts["b-g0"] + counts["b-g1"]) < 0.6


def a_canary(weight: float, *, may_fall: bool = True) -> Router:
    split = canary_of(CanaryConfig(revision="new", weight=weight, may_fall=may_fall))
    return Router(Splits(revisions={"chat": split}))


OLD, OLDER, NEW = (
    Group(name=f"chat-{revision}", deployment="chat", revision=revision) for revision in ("old", "older", "new")
)
UNHEARD = Group(name="chat-unheard", deployment="chat")
MANY = [a_request(number) for number in range(400)]


def test_the_newest_revision_gets_its_part_of_the_callers_and_each_stays() -> None:
    router = a_canary(10)
    counts = Counter(routed(router, each, [OLD, OLDER, NEW]).group for each in MANY)
    assert 0.05 < counts["chat-new"] / len(MANY) < 0.16
    assert min(counts["chat-old"], counts["chat-older"]) > 0.3 * len(MANY), "the others share by load"
    assert len({routed(router, a_request(7), [OLD, NEW]).group for _ in range(20)}) == 1
    wider, moved = a_canary(30), 0
    for each in MANY:
        before, after = (routed(one, each, [OLD, NEW]).group for one in (router, wider))
        assert (before, after) != ("chat-new", "chat-old"), "who had the new one keeps it when its weight grows"
        moved += before != after
    assert 0.12 < moved / len(MANY) < 0.28


def test_none_and_all_are_parts_as_well() -> None:
    assert {routed(a_canary(0), each, [OLD, NEW]).group for each in MANY} == {"chat-old"}
    assert {routed(a_canary(100), each, [OLD, NEW]).group for each in MANY} == {"chat-new"}


def test_the_last_revision_that_is_left_gets_everything() -> None:
    for weight, last in ((0, NEW), (100, OLD)):
        for may_fall in (True, False):
            assert {routed(a_canary(weight, may_fall=may_fall), each, [last]).group for each in MANY} == {last.name}
    leaving = msgspec.structs.replace(OLD, is_leaving=True)
    assert {routed(a_canary(0), each, [leaving, NEW]).group for each in MANY} == {"chat-new"}
    starting = msgspec.structs.replace(UNHEARD, is_ready=False)
    assert {routed(a_canary(0), each, [starting, NEW]).group for each in MANY} == {"chat-new"}, "it may be a new one"


def test_callers_of_a_revision_without_a_ready_group_fall_or_wait_as_was_said() -> None:
    down = msgspec.structs.replace(NEW, is_ready=False)
    assert {routed(a_canary(50), each, [OLD, down]).group for each in MANY} == {"chat-old"}
    waiting = [a_canary(50, may_fall=False).route(each, [OLD, down], 0.0) is None for each in MANY]
    assert 0.4 < sum(waiting) / len(MANY) < 0.6


def test_where_the_newest_revision_has_all_the_others_serve_while_it_cannot() -> None:
    down = msgspec.structs.replace(NEW, is_ready=False)
    assert {routed(a_canary(100), each, [OLD, down]).group for each in MANY} == {"chat-old"}
    assert {a_canary(100, may_fall=False).route(each, [OLD, down], 0.0) for each in MANY} == {None}
    assert {a_canary(0).route(each, [msgspec.structs.replace(OLD, is_ready=False), NEW], 0.0) for each in MANY} == {
        None
    }
    router, failing = a_canary(100), [OLD, OLDER, NEW]
    while (choice := routed(router, MANY[0], failing)).group == "chat-new":
        router.fail(choice, 0.0)
        router.end(choice)
    assert choice.group in ("chat-old", "chat-older"), "who fails is out, and not all callers with it"


def test_a_group_that_serves_and_never_said_its_revision_is_none_of_the_newest() -> None:
    counts = Counter(routed(a_canary(10), each, [UNHEARD, NEW]).group for each in MANY)
    assert counts["chat-unheard"] > 0.8 * len(MANY)


def test_an_arm_that_leaves_one_group_of_several_is_why() -> None:
    splits = Splits(deployments=Split(name="ab", weights={"a": 1}), revisions={"a": Split(name="c", weights={"r1": 1})})
    choice = routed(Router(splits), a_request())
    assert (choice.group, choice.why) == ("a-g1", "arm")
    assert routed(Router(), a_request(), GROUPS[:1]).why == "only"


def test_an_arm_whose_only_group_is_out_falls_to_the_other() -> None:
    router = Router(AB)
    one_each = [GROUPS[0], GROUPS[2]]
    fail(router, "a-g0")
    assert {routed(router, a_request(number), one_each).group for number in range(20)} == {"b-g0"}


def test_who_may_not_fall_waits() -> None:
    router = Router(Splits(deployments=Split(name="ab", weights={"a": 1, "b": 1}, may_fall=False)))
    found = [router.route(a_request(number), GROUPS[:2], 0.0) for number in range(40)]
    assert 8 < sum(choice is None for choice in found) < 32


def test_a_group_that_fails_gets_nothing_and_then_one_request_until_that_works() -> None:
    router = Router()
    fail(router, "a-g0")
    assert "a-g0" not in {routed(router, a_request(number)).group for number in range(40)}
    probe = next(
        each
        for each in (routed(router, a_request(number), now=FIRST_S) for number in range(40))
        if each.group == "a-g0"
    )
    assert "a-g0" not in {routed(router, a_request(number), now=FIRST_S).group for number in range(40)}
    router.succeed(probe, FIRST_S)
    assert "a-g0" in {routed(router, a_request(number), now=FIRST_S).group for number in range(40)}


def test_a_group_that_takes_requests_in_and_answers_none_of_them_is_out_all_the_same() -> None:
    router, groups = Router(), [GROUPS[0], GROUPS[2]]
    request = msgspec.structs.replace(a_request(), avoid=frozenset({"b-g0"}))
    for _ in range(FAILURES):
        choice = routed(router, request, groups)
        assert choice.group == "a-g0"
        router.succeed(choice, 0.0, 1000)
        router.fail(choice, 0.0)
        router.end(choice)
    assert {routed(router, a_request(number), groups).group for number in range(20)} == {"b-g0"}
    probe = routed(router, request, groups, now=FIRST_S)
    router.succeed(probe, FIRST_S, 1000)
    assert router.ejection.num_out(["a-g0", "b-g0"], FIRST_S) == 1, "it has shown nothing yet"
    router.grow(probe, 1, FIRST_S)
    assert router.ejection.num_out(["a-g0", "b-g0"], FIRST_S) == 0


def test_a_probe_that_ends_without_a_word_leaves_the_place_to_another_one() -> None:
    router = Router()
    fail(router, "a-g0")
    probes = [routed(router, a_request(number), now=FIRST_S) for number in range(40)]
    for choice in probes:
        router.end(choice)
    assert sum(choice.group == "a-g0" for choice in probes) == 1
    assert "a-g0" in {routed(router, a_request(number), now=FIRST_S).group for number in range(40)}


def test_a_group_that_begins_anew_is_as_if_never_seen() -> None:
    router = Router()
    fail(router, "a-g0")
    router.forget("a-g0")
    assert "a-g0" in {routed(router, a_request(number)).group for number in range(40)}


def test_the_head_of_a_reply_counts_the_prompt_the_first_token_settles_it_and_the_end_settles_all() -> None:
    router = Router()
    choice = routed(router, a_request())
    account = router.book.account(choice.group)
    router.succeed(choice, 1.0, 1100)
    assert (account.owed, account.held) == (1100, 1100)
    router.grow(choice, 1, 2.0)
    assert (account.owed, account.held) == (0, 1101)
    router.end(choice)
    router.end(choice)
    assert (account.owed, account.held) == (0, 0)


class RandomSchedules(RuleBasedStateMachine):
    """Groups come, go, fall silent and fail while requests come and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.now = 0.0
        self.open: list[Choice] = []
        self.number = 0

    @initialize(num_groups=st.integers(1, 6))
    def start(self, num_groups: int) -> None:
        self.groups = {f"g{number}": Group(name=f"g{number}", heard_s=0.0) for number in range(num_groups)}

    @rule(blocks=st.integers(0, 20), of=st.integers(0, 3), tokens=st.integers(1, 5000), avoided=st.integers(-6, 5))
    def come(self, blocks: int, of: int, tokens: int, avoided: int) -> None:
        self.number += 1
        prefix = Prefix(tuple(100 * of + place for place in range(blocks)), ENDS[blocks - 1] if blocks else 0)
        request = Request(key=f"r{self.number}", prompt_tokens=tokens, prefix=prefix, avoid=frozenset({f"g{avoided}"}))
        groups = list(self.groups.values())
        able = [group for group in groups if group.takes_requests]
        before = {group.name: self.router.book.account(group.name).held for group in groups}
        choice = self.router.route(request, groups, self.now)
        assert (choice is None) == (not able)
        if choice is None:
            return
        event(choice.why)
        self.open.append(choice)
        assert self.groups[choice.group].takes_requests
        assert choice.group not in request.avoid or self.all_others_are_worse(choice.group, able)
        assert 0 <= choice.known_tokens < tokens
        assert 0 < choice.wait_s < inf
        assert self.router.book.account(choice.group).held == before[choice.group] + tokens
        assert self.router.ejection.num_out((group.name for group in able), self.now) <= len(able) // 2

    def all_others_are_worse(self, chosen: str, able: list[Group]) -> bool:
        """Where it failed is gone back to only when the others are out."""
        admitted = set(self.router.ejection.admitted([group.name for group in able], self.now))
        return admitted <= {chosen} or self.router.ejection.num_out([group.name for group in able], self.now) > 0

    @rule(which=st.integers(0, 5), is_ready=st.booleans(), is_leaving=st.booleans())
    def change(self, which: int, is_ready: bool, is_leaving: bool) -> None:
        name = f"g{which}"
        self.groups[name] = Group(name=name, is_ready=is_ready, is_leaving=is_leaving, heard_s=self.now)

    @rule(
        which=st.integers(0, 5),
        load=st.builds(
            Load,
            in_flight_tokens=st.none() | st.integers(0, 10**6),
            tokens_to_prefill=st.none() | st.integers(0, 10**6),
            prefill_tokens_per_s=st.none() | st.floats(),
            oldest_wait_s=st.none() | st.floats(),
            kv_tokens=st.none() | st.integers(-1, 10**6),
        ),
    )
    def push(self, which: int, load: Load) -> None:
        self.router.book.hear(f"g{which}", load)

    @rule(which=st.integers(0, 5))
    def forget(self, which: int) -> None:
        self.router.forget(f"g{which}")

    @rule(seconds=st.floats(0, SILENCE_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0), prompt_tokens=st.none() | st.integers(0, 9000), num_tokens=st.integers(0, 5))
    @precondition(lambda self: self.open)
    def begin(self, which: int, prompt_tokens: int | None, num_tokens: int) -> None:
        choice = self.open[which % len(self.open)]
        self.router.succeed(choice, self.now, prompt_tokens)
        self.router.grow(choice, num_tokens, self.now)

    @rule(which=st.integers(0), has_failed=st.booleans(), twice=st.booleans())
    @precondition(lambda self: self.open)
    def end(self, which: int, has_failed: bool, twice: bool) -> None:
        choice = self.open.pop(which % len(self.open))
        if has_failed:
            self.router.fail(choice, self.now)
        self.router.end(choice)
        if twice:
            self.router.end(choice)
        self.router.book.check()

    def teardown(self) -> None:
        self.router.book.check()
        for choice in self.open:
            self.router.end(choice)
        self.router.book.check()
        assert self.router.book.num_charges == 0
        for which in range(6):
            account = self.router.book.account(f"g{which}")
            assert (account.owed, account.held) == (0, 0)


TestRandomSchedules = RandomSchedules.TestCase
TestRandomSchedules.settings = settings(max_examples=100, stateful_step_count=60, deadline=None, derandomize=True)
