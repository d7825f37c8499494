"""An authority and its leafs as Secrets: read, and written. Pure.

glm-authority of a namespace: ca.crt, all roots that are trusted; ca.key, the keys of those that sign. A leaf is a
Secret of kubernetes.io/tls with the roots beside it, as a gateway and a worker read it from a folder.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from glm_operator import names
from glm_operator.manifest import Manifest
from glm_operator.observe.ownership import owner_reference
from glm_operator.reconcile.certificates.decide import Leaf, Root
from glm_operator.reconcile.certificates.issue import Key, Pair, Use, key_pem
from glm_operator.render.labels import labels

AUTHORITIES, KEYS, CERTIFICATE, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
_KEY = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


class Unreadable(ValueError):
    """What a Secret holds is not what we write."""


@dataclass(frozen=True)
class Authority:
    """What signs in a namespace. pairs: the oldest first."""

    pairs: Sequence[Pair] = ()

    @property
    def roots(self) -> list[Root]:
        return [
            Root(
                pair.id,
                pair.certificate.not_valid_before_utc,
                pair.certificate.not_valid_after_utc,
                signs=pair.key is not None,
            )
            for pair in self.pairs
        ]

    @property
    def bundle(self) -> bytes:
        return b"".join(pair.pem for pair in self.pairs)

    def pair(self, id_: str) -> Pair:
        return next(pair for pair in self.pairs if pair.id == id_)

    def only(self, roots: Iterable[Root]) -> "Authority":
        """Return what is left of it."""
        pairs = [(self.pair(root.id), root.signs) for root in roots]
        return Authority([pair if signs else Pair(pair.certificate, None) for pair, signs in pairs])


@dataclass(frozen=True)
class Held:
    """A leaf with its key, as its Secret has it."""

    pair: Pair
    leaf: Leaf


def read_authority(secret: Manifest) -> Authority:
    """Return what a Secret says. Raises Unreadable."""
    try:
        certificates = x509.load_pem_x509_certificates(_item(secret, AUTHORITIES))
        keys = [_key(text) for text in _KEY.findall(_item(secret, KEYS))]
    except (ValueError, TypeError) as error:
        raise Unreadable(f"{AUTHORITIES} and {KEYS} cannot be read: {error}") from None
    by_public = {key.public_key().public_numbers(): key for key in keys}
    pairs = [Pair(each, by_public.get(_numbers(each))) for each in certificates]
    if not any(pair.key is not None for pair in pairs):
        raise Unreadable(f"{KEYS} has no key of a certificate in {AUTHORITIES}")
    return Authority(sorted(pairs, key=lambda pair: pair.certificate.not_valid_before_utc))


def authority_secret(namespace: str, authority: Authority, owners: Sequence[Manifest]) -> Manifest:
    """Return the Secret. owners: references of the deployments that use it; it goes with the last."""
    keys = b"".join(key_pem(pair.key) for pair in authority.pairs if pair.key is not None)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.AUTHORITY_SECRET,
            "namespace": namespace,
            "labels": {
                names.NAME_LABEL: "glm-operator",
                names.COMPONENT_LABEL: "authority",
                names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
            },
            "ownerReferences": list(owners),
        },
        "type": "Opaque",
        "data": {AUTHORITIES: _coded(authority.bundle), KEYS: _coded(keys)},
    }


def user_reference(body: Manifest) -> Manifest:
    """Return the reference to one of several owners."""
    return {**owner_reference(body), "controller": False}


def is_ours(secret: Manifest) -> bool:
    """Tell whether we have made a Secret."""
    found = secret["metadata"].get("labels") or {}
    return bool(found.get(names.MANAGED_BY_LABEL) == names.FIELD_MANAGER)


def read_leaf(secret: Manifest, authority: Authority, use: Use, host: str) -> Held | None:
    """Return the leaf of a Secret; None: it has none, or one that is for somebody else."""
    try:
        certificate = x509.load_pem_x509_certificate(_item(secret, CERTIFICATE))
        key = _key(_item(secret, KEY))
        beside = [Pair(each, None).id for each in x509.load_pem_x509_certificates(_item(secret, AUTHORITIES))]
        annotations = secret["metadata"].get("annotations") or {}
        since = datetime.strptime(annotations[names.TRUSTED_ANNOTATION], _STAMP).replace(tzinfo=UTC)
        if key.public_key().public_numbers() != _numbers(certificate) or not _is_for(certificate, use, host):
            return None
    except (ValueError, TypeError, KeyError, x509.ExtensionNotFound):
        return None
    by = next((pair.id for pair in authority.pairs if _is_by(certificate, pair.certificate)), "")
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Held(Pair(certificate, key), Leaf(by, starts, ends, frozenset(beside), since))


def leaf_secret(body: Manifest, use: Use, pair: Pair, authority: Authority, since: datetime) -> Manifest:
    """Return the Secret of a leaf. since: when the roots beside it became these."""
    assert pair.key is not None
    name, metadata = body["metadata"]["name"], body["metadata"]
    role = names.WORKER_ROLE if use is Use.WORKERS else names.GATEWAY_ROLE
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name_of_leaf(name, use),
            "namespace": metadata["namespace"],
            "labels": labels(name, role),
            "annotations": {names.TRUSTED_ANNOTATION: since.strftime(_STAMP)},
            "ownerReferences": [owner_reference(body)],
        },
        "type": "kubernetes.io/tls",
        "data": {
            AUTHORITIES: _coded(authority.bundle),
            CERTIFICATE: _coded(pair.pem),
            KEY: _coded(key_pem(pair.key)),
        },
    }


def name_of_leaf(deployment: str, use: Use) -> str:
    return names.workers_certificate(deployment) if use is Use.WORKERS else names.gateway_certificate(deployment)


def host_of_leaf(deployment: str, namespace: str, use: Use) -> str:
    """Return the name in a certificate. That of a gateway is for people: nobody asks for it."""
    if use is Use.WORKERS:
        return names.workers_host(deployment, namespace)
    return f"{names.gateway_name(deployment)}.{namespace}.svc"


def _is_for(certificate: x509.Certificate, use: Use, host: str) -> bool:
    extensions = certificate.extensions
    uses = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    hosts = extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    return uses == [use.value] and hosts == [host]


def _is_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _numbers(certificate: x509.Certificate) -> ec.EllipticCurvePublicNumbers:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unreadable("a certificate has a key of another kind than we make")
    return key.public_numbers()


def _key(text: bytes) -> Key:
    key = serialization.load_pem_private_key(text, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unreadable("a key is of another kind than we make")
    return key


def _item(secret: Manifest, name: str) -> bytes:
    data: Any = secret.get("data") or {}
    if name not in data:
        raise Unreadable(f"{name} is missing")
    try:
        return base64.b64decode(data[name], validate=True)
    except binascii.Error:
        raise Unreadable(f"{name} is no base64") from None


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()
