import struct

import pytest

from glm_cluster.dns import decode_addresses, encode_query

NAME = "nano-g0-0.nano-ranks.models.svc.cluster.local"


def answer(query: bytes, addresses: list[str], *, query_id: int = 7) -> bytes:
    """Build an answer as servers do: the question again, then records whose name points to it."""
    header = struct.pack("!6H", query_id, 0x8180, 1, len(addresses), 0, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!2HIH", 1, 1, 5, 4) + bytes(int(part) for part in address.split("."))
        for address in addresses
    )
    return header + query[12:] + records


def test_a_query_spells_the_name_in_labels() -> None:
    query = encode_query(7, "a.bc.")
    assert query == struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x01a\x02bc\x00" + struct.pack("!2H", 1, 1)


@pytest.mark.parametrize("addresses", [[], ["10.244.0.5"], ["10.244.0.5", "10.244.0.6"]])
def test_addresses_are_read_in_the_answers_order(addresses: list[str]) -> None:
    assert decode_addresses(7, answer(encode_query(7, NAME), addresses)) == addresses


def test_an_alias_before_the_address_is_passed_over() -> None:
    query = encode_query(7, "a.b")
    alias = b"\xc0\x0c" + struct.pack("!2HIH", 5, 1, 5, 2) + b"\xc0\x0e"
    packet = answer(query, ["10.0.0.1"])
    header = struct.pack("!6H", 7, 0x8180, 1, 2, 0, 0)
    assert decode_addresses(7, header + query[12:] + alias + packet[len(query) :]) == ["10.0.0.1"]


def test_the_answer_to_another_question_is_refused() -> None:
    with pytest.raises(OSError, match="answer 8 to question 7"):
        decode_addresses(7, answer(encode_query(8, NAME), ["10.0.0.1"], query_id=8))
