"""From the states of both sides to distances and a verdict. Pure. Shape suffixes as in states.py."""

from dataclasses import dataclass

import torch
from torch import Tensor

from glm_worker.check.bounds import Bounds
from glm_worker.check.states import Routing, States

CLEAR = 4  # times the error of a logit that is allowed, by which the likeliest token must lead


@dataclass(frozen=True)
class Distance:
    """How far both sides are apart at one place, given the same input of it.

    relative, cosine: of the token that bounds.share of all tokens are better than. relative: to the size of the layer's
    update, or of what is compared where nothing is updated. from_start: the same where each side went its own way since
    the embedding. share_of_allowed: above 1 they differ; of that token, or of the worst one of those judged singly.
    num_singly: tokens that are judged each by itself: all, but for those whose experts rounding may choose.
    """

    name: str
    max_abs: float
    relative: float
    cosine: float
    from_start: float
    share_of_allowed: float
    num_singly: int

    @property
    def differs(self) -> bool:
        return not self.share_of_allowed <= 1  # what is no number differs


@dataclass(frozen=True)
class Greedy:
    """Whether both sides choose the same token. Clear: where errors as large as the bound allows do not decide it."""

    num_places: int
    num_equal: int
    num_clear: int
    num_clear_equal: int


@dataclass(frozen=True)
class Verdict:
    places: list[Distance]  # the embedding, each layer, the head
    logits: Distance  # where each side went its own way
    greedy: Greedy
    greedy_share: float  # of the clear places that must agree

    @property
    def first_that_differs(self) -> Distance | None:
        return next((place for place in self.places if place.differs), None)

    @property
    def is_within(self) -> bool:
        """Whether both sides are the same model, within what the type allows."""
        greedy_agrees = self.greedy.num_clear_equal >= self.greedy_share * self.greedy.num_clear
        return self.first_that_differs is None and not self.logits.differs and greedy_agrees


def judged(ours: States, alone: States, fed: States, bounds: Bounds, kinds: list[str]) -> Verdict:
    """Return the distances. alone: what transformers makes of the texts; fed: given our input of each layer.

    kinds: of each layer, a word.
    """
    num_layers = len(kinds)
    routings = fed.routings or [None] * num_layers
    embedding = _compared("embedding", ours.hidden_TD[0], fed.hidden_TD[0], alone.hidden_TD[0], None, None, bounds)
    layers = [
        _compared(f"layer {i} ({kind})", ours.hidden_TD[i + 1], fed.hidden_TD[i + 1], alone.hidden_TD[i + 1],
                  ours.hidden_TD[i], routings[i], bounds)
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    head = _compared("norm and head", ours.logits_SV, fed.logits_SV, alone.logits_SV, None, None, bounds)
    allowed = bounds.of_logits(num_layers)
    logits = _logits(ours.logits_SV, alone.logits_SV, allowed, bounds.share)
    greedy = _greedy(ours.logits_SV, alone.logits_SV, allowed)
    return Verdict([embedding, *layers, head], logits, greedy, bounds.greedy_share)


def _compared(
    name: str,
    ours: Tensor,
    fed: Tensor,
    alone: Tensor,
    entered: Tensor | None,
    routing: Routing | None,
    bounds: Bounds,
) -> Distance:
    ours, fed, alone = ours.float(), fed.float(), alone.float()
    update = fed if entered is None else fed - entered.float()
    size, off = update.norm(dim=-1), (ours - fed).norm(dim=-1)
    allowed = bounds.of_update * size + (0 if entered is None else bounds.of_residual * fed.norm(dim=-1))
    of_allowed = off / allowed.clamp_min(1e-30)
    singly = of_allowed if routing is None else of_allowed[routing.lead_T > bounds.of_choice]
    return Distance(
        name=name,
        max_abs=(ours - fed).abs().max().item(),
        relative=_at(off / size.clamp_min(1e-30), bounds.share),
        cosine=1 - _at(1 - torch.cosine_similarity(ours.double(), fed.double(), dim=-1), bounds.share),
        from_start=_at((ours - alone).norm(dim=-1) / alone.norm(dim=-1).clamp_min(1e-30), bounds.share),
        share_of_allowed=max(_at(of_allowed, bounds.share), _at(singly, 1) if len(singly) else 0.0),
        num_singly=len(singly),
    )


def _logits(ours_SV: Tensor, alone_SV: Tensor, allowed: float, share: float) -> Distance:
    spread_S = (alone_SV - alone_SV.mean(dim=-1, keepdim=True)).norm(dim=-1)
    relative = _at((ours_SV - alone_SV).norm(dim=-1) / spread_S.clamp_min(1e-30), share)
    return Distance(
        name="logits",
        max_abs=(ours_SV - alone_SV).abs().max().item(),
        relative=relative,
        cosine=1 - _at(1 - torch.cosine_similarity(ours_SV.double(), alone_SV.double(), dim=-1), share),
        from_start=relative,
        share_of_allowed=relative / allowed,
        num_singly=0,
    )


def _greedy(ours_SV: Tensor, alone_SV: Tensor, allowed: float) -> Greedy:
    best_two = alone_SV.topk(2, dim=-1).values
    is_clear = best_two[:, 0] - best_two[:, 1] > CLEAR * allowed * alone_SV.std(dim=-1)
    is_equal = ours_SV.argmax(dim=-1) == alone_SV.argmax(dim=-1)
    return Greedy(
        num_places=len(ours_SV),
        num_equal=int(is_equal.sum()),
        num_clear=int(is_clear.sum()),
        num_clear_equal=int((is_clear & is_equal).sum()),
    )


def _at(values: Tensor, share: float) -> float:
    """Return the value that this share of all values do not exceed. What is no number counts as the largest."""
    ordered = torch.where(values.isnan(), torch.inf, values).sort().values
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))].item()
