"""An authority that a test makes, and folders of certificates as the kubelet mounts a Secret."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Purpose = Literal["server", "client"]
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


@dataclass
class Authority:
    """Signs certificates of 127.0.0.1."""

    name: str = "authority"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        own = _builder(subject, subject, self._key.public_key())
        self._own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.certificate = self._own.public_bytes(serialization.Encoding.PEM)

    def sign(self, purpose: Purpose) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, purpose)])
        made = (
            _builder(subject, self._own.subject, key.public_key())
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[purpose]]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Pair(made.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def client(self, folder: Path, trusted: "Authority | None" = None, purpose: Purpose = "client") -> ssl.SSLContext:
        """Return the context of a client with a certificate of ours. trusted: who has signed the server's."""
        context = ssl.create_default_context(cadata=(trusted or self).certificate.decode())
        pair = self.sign(purpose)
        (folder / "client.crt").write_bytes(pair.certificate)
        (folder / "client.key").write_bytes(pair.key)
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
        return context


def private_pem(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    locked: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def mount(folder: Path, authority: bytes, pair: Pair) -> None:
    """Put ca.crt, tls.crt and tls.key into a folder, all at once, in place of those before."""
    folder.mkdir(exist_ok=True)
    data = folder / f"..{len(list(folder.iterdir()))}-data"
    data.mkdir()
    (data / "ca.crt").write_bytes(authority)
    (data / "tls.crt").write_bytes(pair.certificate)
    (data / "tls.key").write_bytes(pair.key)
    (folder / "..next").symlink_to(data.name)
    (folder / "..next").replace(folder / "..data")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
