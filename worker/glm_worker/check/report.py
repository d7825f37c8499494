"""A verdict for people and for programs. Pure."""

import json
from dataclasses import asdict, dataclass

from glm_worker.check.judge import Distance, Verdict

_HEAD = ("place", "max abs", "relative", "cosine", "from start", "of allowed", "")


@dataclass(frozen=True)
class Report:
    """What was compared, and how it ended."""

    model: str
    reference: str
    dtype: str
    device: str
    kernels: str  # what computed our side
    num_layers: int
    num_layers_of_checkpoint: int
    num_prompts: int
    num_tokens: int
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """The verdict, and what it is about."""
        verdict = self.verdict
        what = "all layers" if self.num_layers == self.num_layers_of_checkpoint else f"{self.num_layers} layers"
        if verdict.is_within:
            return f"SAME: {what} compute what transformers computes, within what {self.dtype} allows"
        if (first := verdict.first_that_differs) is not None:
            num = sum(place.differs for place in verdict.places)
            others = f"; {num - 1} more places do" if num > 1 else ""
            return (
                f"DIFFERS: the first place that differs is {first.name}, by {first.share_of_allowed:.3g} times what"
                f" {self.dtype} allows{others}"
            )
        if verdict.logits.differs:
            return (
                f"DIFFERS: each layer is within bounds, and the logits after all are apart by"
                f" {verdict.logits.share_of_allowed:.3g} times what {self.dtype} allows"
            )
        greedy = verdict.greedy
        return f"DIFFERS: of {greedy.num_clear} clear choices of the next token {greedy.num_clear_equal} are equal"

    @property
    def text(self) -> str:
        """A table, with a line of what was compared above and the verdict below."""
        greedy = self.verdict.greedy
        rows = [_HEAD, *(_row(place) for place in self.verdict.places), _row(self.verdict.logits)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        where = f"in {self.dtype} on {self.device} by {self.kernels}"
        what = f"{self.num_layers} of {self.num_layers_of_checkpoint} layers {where}"
        clear = f"{greedy.num_clear_equal} of {greedy.num_clear} that rounding cannot change"
        head = [f"{self.model}: {what}; {self.num_prompts} prompts, {self.num_tokens} tokens"]
        if self.reference != self.model:
            head.append(f"transformers reads {self.reference}")
        tail = [f"next tokens equal: {greedy.num_equal} of {greedy.num_places}; {clear}", self.sentence]
        return "\n".join([*head, "", *lines, "", *tail])

    @property
    def json(self) -> str:
        """The same as one line of JSON. What is no number is null."""
        places = [{**asdict(place), "differs": place.differs} for place in self.verdict.places]
        first = self.verdict.first_that_differs
        fields = {name: value for name, value in asdict(self).items() if name != "verdict"}
        return json.dumps(
            {
                **fields,
                "same": self.verdict.is_within,
                "first_that_differs": None if first is None else first.name,
                "verdict": self.sentence,
                "places": [_finite(place) for place in places],
                "logits": _finite({**asdict(self.verdict.logits), "differs": self.verdict.logits.differs}),
                "greedy": asdict(self.verdict.greedy),
            }
        )


def _row(place: Distance) -> tuple[str, ...]:
    numbers = (place.max_abs, place.relative, place.from_start)
    max_abs, relative, from_start = (f"{number:.1e}" for number in numbers)
    judged = "DIFFERS" if place.differs else "ok"
    return (place.name, max_abs, relative, f"{place.cosine:.7f}", from_start, f"{place.share_of_allowed:.3f}", judged)


def _finite(fields: dict[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not abs(value) < float("inf") else value
        for name, value in fields.items()
    }
