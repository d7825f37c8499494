"""What certificates say, and who is let in by them: OpenSSL judges, without a socket."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from glm_operator.reconcile.certificates.issue import Pair, Use, key_pem, leaf, new_key, root

NOW = datetime.now(UTC)
HOST = "chat-worker.models.svc"


def a_leaf(by: Pair, use: Use, now: datetime = NOW) -> Pair:
    return leaf(by, use, HOST, new_key(), now)


def context(folder: Path, protocol: int, pair: Pair, *trusted: Pair) -> ssl.SSLContext:
    found = ssl.SSLContext(protocol)
    found.check_hostname = protocol == ssl.PROTOCOL_TLS_CLIENT
    found.verify_mode = ssl.CERT_REQUIRED
    found.load_verify_locations(cadata=b"".join(each.pem for each in trusted).decode())
    assert pair.key is not None
    (folder / "tls.crt").write_bytes(pair.pem)
    (folder / "tls.key").write_bytes(key_pem(pair.key))
    found.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return found


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST) -> None:
    """Raises what either side has against the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    left = list(sides)
    for _ in range(10):
        for side in list(left):
            try:
                side.do_handshake()
                left.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not left


def test_gateway_and_workers_accept_each_other_and_a_day_later_with_another_root(tmp_path: Path) -> None:
    first, following = root(new_key(), NOW), root(new_key(), NOW)
    for by in (first, following):
        client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, a_leaf(by, Use.GATEWAY), first, following)
        server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, a_leaf(first, Use.WORKERS), first, following)
        shake_hands(client, server)
        with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
            shake_hands(client, server, "other-worker.models.svc")


@pytest.mark.parametrize("swapped", list(Use))
def test_neither_can_pass_for_the_other(tmp_path: Path, swapped: Use) -> None:
    by = root(new_key(), NOW)
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, a_leaf(by, swapped), by)
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, a_leaf(by, swapped), by)
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server)


def test_a_leaf_signs_nothing(tmp_path: Path) -> None:
    by = root(new_key(), NOW)
    signed_by_leaf = leaf(a_leaf(by, Use.GATEWAY), Use.GATEWAY, HOST, new_key(), NOW)
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, signed_by_leaf, by)
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, a_leaf(by, Use.WORKERS), by)
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server)


def test_a_leaf_is_good_for_no_longer_than_its_root() -> None:
    by = root(new_key(), NOW)
    late = by.certificate.not_valid_after_utc - timedelta(days=10)
    assert a_leaf(by, Use.WORKERS, late).certificate.not_valid_after_utc == by.certificate.not_valid_after_utc


def test_certificates_begin_an_hour_early_for_clocks_that_are_late() -> None:
    for pair in (root(new_key(), NOW), a_leaf(root(new_key(), NOW), Use.GATEWAY)):
        assert timedelta(minutes=59) < NOW - pair.certificate.not_valid_before_utc < timedelta(minutes=61)


def test_a_leaf_of_a_key_and_a_time_says_the_same_each_time() -> None:
    by, key = root(new_key(), NOW), new_key()
    one, two = (leaf(by, Use.WORKERS, HOST, key, NOW).certificate for _ in range(2))
    assert one.tbs_certificate_bytes == two.tbs_certificate_bytes
    assert one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).critical
