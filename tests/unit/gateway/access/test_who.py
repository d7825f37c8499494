from typing import Any

import pytest

from glm_gateway.access.who import BadWho, Who, who_in


def found(**said: Any) -> Who:
    return who_in(said, name="sub", group="groups", role="role")


def test_fields_that_are_named_are_read_and_others_are_not() -> None:
    assert found(sub="me@example.com", groups="research", role="dev", name="x") == Who(
        "me@example.com", "research", "dev"
    )
    assert who_in({"name": "a", "group": "b"}, name="name", group=None, role=None) == Who("a", None, None)


def test_a_list_counts_by_its_first_and_an_empty_one_is_none() -> None:
    assert found(sub="a", groups=["x", "y"]).group == "x"
    assert found(sub="a", groups=[]).group is None


@pytest.mark.parametrize("name", [None, "", 7, "a\nb", "a\x00", "x" * 256, ["a"], {"a": 1}])
def test_what_is_no_name_names_its_field_and_no_value(name: object) -> None:
    with pytest.raises(BadWho, match=r"^sub must be") as caught:
        found(sub=name)
    assert "x" * 50 not in str(caught.value)


@pytest.mark.parametrize("role", ["", "a b", "é", "x" * 65, "a\r\nx-glm-tenant: b", 7, [7], [["a"]], {}])
def test_what_a_header_cannot_carry_is_no_role(role: object) -> None:
    with pytest.raises(BadWho, match=r"^role must be"):
        found(sub="a", role=role)
