"""Keys of blocks: what makes two prompts share, and what keeps them apart. And the compact form of prompts."""

from array import array

import msgspec
import numpy as np
import pytest

from glm_worker.request import EngineRequest, TokenIds
from glm_worker.scheduler.prefix import KEY_BYTES, hashes_of, seed_of

IDS = TokenIds.of(range(100, 111))


def keys(token_ids: TokenIds, tenant: str = "", block_size: int = 4) -> list[bytes]:
    packed = hashes_of(token_ids, seed_of(tenant), block_size)
    return [packed[i : i + KEY_BYTES] for i in range(0, len(packed), KEY_BYTES)]


@pytest.mark.parametrize(("num_tokens", "num_keys"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)])
def test_only_full_blocks_have_keys(num_tokens: int, num_keys: int) -> None:
    assert len(keys(TokenIds.of(range(num_tokens)))) == num_keys


def test_equal_beginnings_have_equal_keys_up_to_the_first_difference() -> None:
    other = TokenIds.of([*range(100, 105), 7, *range(106, 111)])
    assert (keys(other)[0] == keys(IDS)[0], keys(other)[1] == keys(IDS)[1]) == (True, False)


def test_a_block_behind_another_beginning_has_another_key() -> None:
    assert keys(TokenIds.of([0, 0, 0, 0, *IDS[4:]]))[1] != keys(IDS)[1]


def test_tenants_share_nothing_and_those_without_one_are_a_tenant() -> None:
    assert not set(keys(IDS, "a")) & set(keys(IDS, "b"))
    assert not set(keys(IDS, "a")) & set(keys(IDS))
    assert keys(IDS) == keys(IDS, "")


def test_keys_do_not_change_with_the_version_by_accident() -> None:
    """A server and ranks of one pod are of one version; still, whoever changes this must mean it."""
    assert keys(TokenIds.of([1, 2]), "t", 2)[0].hex() == (
        "562edb1408ccd7060b1be8a89a867bf21452ffa6bb32e29f694065a58f48cb1c"
    )


@pytest.mark.parametrize("given", [[1, 2, 300_000], (1, 2, 300_000), array("i", [1, 2, 300_000])])
def test_a_request_takes_any_sequence_of_ids_and_carries_bytes(given: list[int]) -> None:
    request = EngineRequest(request_id="a", prompt_token_ids=given, max_tokens=1, stop_token_ids=[])
    assert isinstance(request.prompt_token_ids, TokenIds)
    assert request.prompt_token_ids.data == np.asarray([1, 2, 300_000], "<i4").tobytes()
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=EngineRequest)
    assert (again, again.prompt_token_ids) == (request, [1, 2, 300_000])
    assert msgspec.structs.replace(again, prompt_token_ids=[5]).prompt_token_ids == [5]


def test_a_long_prompt_takes_four_bytes_a_token_on_the_way() -> None:
    request = EngineRequest(request_id="a", prompt_token_ids=range(100_000), max_tokens=1, stop_token_ids=[])
    assert len(msgspec.msgpack.encode(request)) < 401_000


def test_compact_ids_are_a_sequence_of_ints() -> None:
    assert (len(IDS), IDS[0], IDS[-1], IDS[2:4], list(IDS)[:2]) == (11, 100, 110, [102, 103], [100, 101])
    assert (103 in IDS, 7 in IDS, IDS.count(103), IDS.index(103)) == (True, False, 1, 3)
    assert IDS == TokenIds.of(list(IDS)) == list(range(100, 111))
    assert [list(range(100, 111))] == [IDS]
    assert IDS != [1]
    assert IDS != "no ids"
    assert np.asarray(IDS).tolist() == list(IDS)
    assert "1" not in repr(IDS).replace("11 ids", "")


def test_an_id_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        TokenIds.of([2**31])
