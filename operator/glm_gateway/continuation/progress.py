"""How far one reply has come, as its client has seen it, and whether another group may go on with it."""

from dataclasses import dataclass, field

from glm_edge.frames import AnswerSoFar, Close, Continuation, Fail, Idle, Meaning, Open, Tokens


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much is done to save one reply. max_times 0: nothing."""

    max_times: int = 1
    max_tokens: int = 131_072  # of all answers together; ids are kept at 8 bytes each
    max_age_s: float = 600.0  # since the request came; who waits longer is hardly there


@dataclass(frozen=True)
class GoOn:
    """Ask another group to go on."""

    continuation: Continuation


@dataclass(frozen=True)
class Again:
    """Nothing was said: ask another group as if it were the first."""


@dataclass(frozen=True)
class GiveUp:
    """Tell the client that there is no more, and why."""

    reason: str


Verdict = GoOn | Again | GiveUp


@dataclass
class Progress:
    """One reply from its first frame to its last, over all groups that write it. began_s: when the request came."""

    bounds: Bounds
    began_s: float
    num_times: int = 0  # that another group was to go on
    num_taken_up: int = 0  # that one did
    opened: Open | None = None
    closed: Close | None = None
    failed: Fail | None = None
    num_tokens: int = 0
    _answers: dict[int, list[int]] = field(default_factory=dict)
    _ended: dict[int, str] = field(default_factory=dict)
    _state: bytes = b""
    _tokens_at_last_loss: int | None = None

    def take(self, meaning: Meaning) -> None:
        """Note a frame whose bytes the client gets. What a later group opens with is what the first one did."""
        match meaning:
            case Open():
                self.num_taken_up += self.opened is not None
                self.opened = self.opened or meaning
            case Tokens():
                for index, ids in meaning.ids:
                    self._answers.setdefault(index, []).extend(ids)
                    self.num_tokens += len(ids)
                if meaning.ended:
                    self._ended |= dict(meaning.ended)
                self._state = meaning.state
            case Close():
                self.closed = meaning
            case Fail():
                self.failed = meaning
            case Idle():
                pass

    @property
    def is_over(self) -> bool:
        """Whether the client has got an end: a whole reply, or an error that another group cannot mend."""
        return self.closed is not None or (self.failed is not None and not self.failed.can_continue)

    def lose(self, now: float) -> Verdict:
        """Note that the group that writes is gone, and say what to do.

        A reply that was lost twice without a token in between may be what kills groups: it is given up.
        """
        self.failed = None
        if self.opened is None:
            return Again()
        if not self.opened.can_continue:
            return GiveUp("ids are not all that another group would need")
        if not self.bounds.max_times:
            return GiveUp("continuation is off")
        if self.num_times >= self.bounds.max_times:
            return GiveUp(f"{self.num_times} groups went on with it, and no more may")
        if self._tokens_at_last_loss == self.num_tokens:
            return GiveUp("two groups were lost at the same token")
        if self.num_tokens > self.bounds.max_tokens:
            return GiveUp(f"{self.num_tokens} tokens were written; more than {self.bounds.max_tokens} are not kept")
        if now - self.began_s > self.bounds.max_age_s:
            return GiveUp(f"the request is older than {self.bounds.max_age_s:.0f} s")
        self.num_times += 1
        self._tokens_at_last_loss = self.num_tokens
        return GoOn(self._continuation(self.opened))

    def _continuation(self, opened: Open) -> Continuation:
        return Continuation(
            id=opened.id,
            created=opened.created,
            seeds=opened.seeds,
            answers=[self._answer(index) for index in range(len(opened.seeds))],
            fingerprint=opened.fingerprint,
            state=self._state,
        )

    def _answer(self, index: int) -> AnswerSoFar:
        return AnswerSoFar(ids=self._answers.get(index, []), reason=self._ended.get(index))
