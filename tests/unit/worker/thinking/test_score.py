"""The score of auto, and how well it does on prompts that it was not made for."""

import json
import re
from collections import Counter
from dataclasses import astuple, fields
from pathlib import Path

import pytest

from glm_worker.server.thinking.features import Features, PastTurn, features_of
from glm_worker.server.thinking.score import BIAS, WEIGHTS, score_of
from unit.worker.thinking.labelled import Labelled, prompts

THRESHOLD = 0.5
NOTHING = Features(*[0.0] * len(fields(Features)))


def accuracy(labelled: tuple[Labelled, ...]) -> float:
    right = [(score_of(each.features).value >= THRESHOLD) == each.thinks for each in labelled]
    return sum(right) / len(right)


def test_nine_of_ten_unseen_prompts_are_decided_as_labelled() -> None:
    assert accuracy(prompts("unseen")) >= 0.9


def test_the_prompts_to_tune_on_are_decided_no_worse() -> None:
    assert accuracy(prompts("tuning")) >= 0.95


@pytest.mark.parametrize("thinks", [True, False])
def test_neither_answer_is_right_by_being_given_always(thinks: bool) -> None:
    for name in ("tuning", "unseen"):
        right = [
            (score_of(each.features).value >= THRESHOLD) == thinks for each in prompts(name) if each.thinks == thinks
        ]
        assert sum(right) / len(right) >= 0.85


def test_the_prompts_are_many_balanced_and_of_many_languages() -> None:
    for name, least in (("tuning", 200), ("unseen", 200)):
        labelled = prompts(name)
        assert len(labelled) >= least
        assert 0.45 <= sum(each.thinks for each in labelled) / len(labelled) <= 0.55
        assert len(Counter(each.language for each in labelled)) >= 11
        assert sum(each.num_tools > 0 for each in labelled) >= 10


def test_no_unseen_prompt_is_one_to_tune_on() -> None:
    def texts(name: str) -> set[str]:
        return {json.dumps([turn._asdict() for turn in each.turns]) for each in prompts(name)}

    assert texts("tuning") & texts("unseen") == set()
    assert len(texts("unseen")) == len(prompts("unseen"))


def test_every_feature_has_a_weight() -> None:
    assert list(WEIGHTS) == [each.name for each in fields(Features)]


def test_the_score_of_nothing_is_the_bias_alone() -> None:
    score = score_of(NOTHING)
    assert score.value == pytest.approx(1 / (1 + 2.718281828**-BIAS), abs=0.005)
    assert score.reasons == ()


def test_the_reasons_are_the_features_that_weighed_most() -> None:
    found = features_of([PastTurn("user", "Translate into Greek, please.")], 0)
    weighed = {each.name: abs(WEIGHTS[each.name] * getattr(found, each.name)) for each in fields(found)}
    assert score_of(found).reasons == tuple(sorted(weighed, key=lambda name: -weighed[name])[:3])


def test_scores_stay_from_0_to_1_with_two_digits() -> None:
    for labelled in prompts("unseen"):
        value = score_of(labelled.features).value
        assert 0 <= value <= 1
        assert value == round(value, 2)


@pytest.mark.parametrize(
    ("name", "sign"), [("work", 1), ("mathematics", 1), ("causes", 1), ("light", -1), ("brevity", -1), ("fact", -1)]
)
def test_a_weight_has_the_sign_that_its_name_promises(name: str, sign: int) -> None:
    assert WEIGHTS[name] * sign > 0


def test_the_page_has_the_weights_that_count() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs/thinking.md").read_text(encoding="utf-8")
    told = {name: float(weight) for name, weight in re.findall(r"^\| `(\w+)` \| (-?[\d.]+) \|", page, re.MULTILINE)}
    assert told == {"bias": BIAS, **WEIGHTS}


def test_the_same_conversation_has_the_same_score() -> None:
    for labelled in prompts("unseen")[:20]:
        assert astuple(labelled.features) == astuple(labelled.features)
