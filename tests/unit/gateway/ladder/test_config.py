"""What gives way is taken as it is meant, or refused by the name of its field."""

import pytest
from pydantic import ValidationError

from glm_gateway.ladder.config import OverloadConfig


def test_the_defaults_are_the_ladders() -> None:
    steps = OverloadConfig().steps()
    assert (steps.short_thoughts, steps.shed, steps.calm_s, steps.max_thinking_tokens) == (1.0, 4.0, 10.0, 512)


def test_rungs_that_go_down_are_refused() -> None:
    with pytest.raises(ValidationError, match="must not go down"):
        OverloadConfig(short_thoughts=3.0)
