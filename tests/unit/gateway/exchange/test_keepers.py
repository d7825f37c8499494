"""A response is kept by the group that its id names, or by the one that went on with it."""

from glm_gateway.exchange.keepers import Keepers


def test_an_id_names_its_group() -> None:
    assert Keepers().of("resp_chat-g0_0f") == "chat-g0"
    assert Keepers().of("no id") == ""


def test_who_went_on_with_it_has_it_until_another_one_does() -> None:
    keepers = Keepers()
    keepers.note("resp_g0_1", "g1")
    assert (keepers.of("resp_g0_1"), keepers.of("resp_g0_2")) == ("g1", "g0")
    keepers.note("resp_g0_1", "g0")
    assert keepers.of("resp_g0_1") == "g0"


def test_what_moved_first_is_forgotten_first() -> None:
    keepers = Keepers(most=2)
    for number in range(3):
        keepers.note(f"resp_g0_{number}", "g1")
    assert [keepers.of(f"resp_g0_{number}") for number in range(3)] == ["g0", "g1", "g1"]
