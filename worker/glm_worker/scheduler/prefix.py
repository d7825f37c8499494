"""What a full KV block holds, as a key of 32 bytes: sha256 over the key of the block before and the block's tokens.

So a key speaks for every token from the beginning on, and for the seed that the chain begins with: whoever has another
seed finds nothing. The server hashes prompts once, in a thread; ranks go on with the chain for tokens they generate.
"""

from hashlib import sha256

from glm_worker.request import TokenIds

KEY_BYTES = 32


def seed_of(tenant: str) -> bytes:
    """Return where the chain of a tenant's prompts begins. Requests without a tenant are all of one, named ""."""
    return sha256(b"glm-worker prefix cache 1\0" + tenant.encode()).digest()


def next_key(before: bytes, token_ids: bytes | memoryview) -> bytes:
    """Return the key of a block. before: that of the block before, or the seed. token_ids: int32, little-endian."""
    return sha256(before + token_ids).digest()


def hashes_of(token_ids: TokenIds, seed: bytes, block_size: int) -> bytes:
    """Return the keys of all full blocks, one after the other. Some 0.7 us a block."""
    data, size, keys, key = memoryview(token_ids.data), 4 * block_size, bytearray(), seed
    for end in range(size, len(data) + 1, size):
        key = next_key(key, data[end - size : end])
        keys += key
    return bytes(keys)
