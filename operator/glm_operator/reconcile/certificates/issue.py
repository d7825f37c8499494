"""Makes certificates from keys and a time. ECDSA over P-256, signed with SHA-256."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glm_operator.reconcile.certificates.decide import LEAF_LIFE, ROOT_LIFE, SKEW

Key = ec.EllipticCurvePrivateKey


class Use(Enum):
    """Who shows a certificate, to whom: it is good for nothing else."""

    WORKERS = ExtendedKeyUsageOID.SERVER_AUTH
    GATEWAY = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Pair:
    """A certificate and its key. key: None: it was thrown away."""

    certificate: x509.Certificate
    key: Key | None

    @property
    def id(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def root(key: Key, now: datetime) -> Pair:
    """Return what signs leafs. Its name holds a piece of its key: two of one name would be taken for one another."""
    public = key.public_key()
    name = _name(f"glm-authority {_digest(public)[:16]}")
    made = (
        _builder(name, name, public, now, now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(made, key)


def leaf(signer: Pair, use: Use, host: str, key: Key, now: datetime) -> Pair:
    """Return a certificate for one use, that is good for no longer than its signer is. host: whose it is, as DNS."""
    assert signer.key is not None
    ends = min(now + LEAF_LIFE, signer.certificate.not_valid_after_utc)
    who = _name("glm workers" if use is Use.WORKERS else "glm gateway")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    made = (
        _builder(who, signer.certificate.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use.value]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(authority, critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return Pair(made, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    serial = int.from_bytes(hashlib.sha256(f"{_digest(key)} {now.timestamp()}".encode()).digest()[:16], "big") + 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _digest(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )
