"""The group of a caller's key says who goes first."""

from glm_gateway.routing.config import PriorityConfig
from glm_gateway.routing.priorities import classes_of

BATCH = PriorityConfig(name="batch", priority=10, key_groups=("jobs", "nightly"), promise_seconds=60)


def test_a_caller_is_of_the_class_that_names_its_group() -> None:
    classes = classes_of([BATCH])
    for group in ("jobs", "nightly"):
        found = classes.of_group(group)
        assert (found.name, found.priority, found.promise_s) == ("batch", 10, 60)


def test_everybody_else_is_of_the_default_class() -> None:
    classes = classes_of([BATCH])
    assert [classes.of_group(group).name for group in (None, "batch", "other")] == ["default"] * 3


def test_a_class_named_default_is_everybodys() -> None:
    classes = classes_of([PriorityConfig(name="default", priority=3)])
    assert classes.of_group("anything").priority == 3
