"""What a token must be, to the signature; each refusal says what is wrong and nothing of what is in it."""

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from glm_gateway.access.tokens import MAX_BYTES, BadKeySet, BadToken, TokenHead, claims_of, head_of, key_set_in

ISSUER, AUDIENCE = "https://issuer.example", "glm"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
KINDS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def public(algorithm: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(KINDS[algorithm].to_jwk(PRIVATE[algorithm].public_key()))
    return {**made, "kid": algorithm.lower(), **fields}


KEYS = key_set_in({"keys": [public(each) for each in PRIVATE]})


class FromNow(int):
    """Seconds from the moment at which a token is made."""


def claims(**fields: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "iat": now, "sub": "me", **fields}
    said = {name: value for name, value in made.items() if value is not None}
    return {name: now + value if isinstance(value, FromNow) else value for name, value in said.items()}


def token(algorithm: str = "RS256", *, head: Any = None, key: Any = None, **fields: Any) -> str:
    headers = {"kid": algorithm.lower(), **(head or {})}
    return jwt.encode(claims(**fields), key or PRIVATE[algorithm], algorithm=algorithm, headers=headers)


def read(sent: str) -> Any:
    key = KEYS.find(head_of(sent))
    assert key is not None
    return claims_of(sent, key, issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_signed_by_a_key_of_the_issuer_is_read(algorithm: str) -> None:
    assert read(token(algorithm))["sub"] == "me"
    assert read(token(algorithm, aud=["other", AUDIENCE]))["sub"] == "me"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"exp": FromNow(-31)}, "has expired"),
        ({"nbf": FromNow(90)}, "not good yet"),
        ({"iat": FromNow(90)}, "not good yet"),
        ({"aud": "elsewhere"}, "another audience"),
        ({"aud": 7}, "another audience"),
        ({"iss": "https://elsewhere.example"}, "another issuer"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"exp": None}, "lacks one of the claims"),
        ({"aud": None}, "lacks one of the claims"),
        ({"iss": None}, "lacks one of the claims"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"sub": 7}, "malformed"),
    ],
)
def test_what_does_not_hold_now_is_refused_in_a_sentence_without_its_value(fields: Any, said: str) -> None:
    with pytest.raises(BadToken, match=said) as caught:
        read(token(**fields))
    assert "elsewhere" not in str(caught.value)


def test_clocks_may_be_apart_by_half_a_minute() -> None:
    now = int(time.time())
    assert read(token(exp=now - 25))["sub"] == "me"
    assert read(token(nbf=now + 25))["sub"] == "me"


def test_another_key_of_the_same_name_opens_nothing() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(BadToken, match="signature is not right"):
        read(token(key=other))


def test_the_public_key_is_no_secret_of_an_hmac() -> None:
    """The oldest trick: HS256 with the public key as its secret."""
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    said = [part({"alg": "HS256", "kid": "rs256"}), part(claims())]
    signature = hmac.digest(pem, ".".join(said).encode(), "sha256")
    with pytest.raises(BadToken, match="another way"):
        head_of(".".join([*said, base64.urlsafe_b64encode(signature).decode().rstrip("=")]))


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "glm-abc",
        "a.b.c",
        "...",
        f"{part({'alg': 'none'})}.{part(claims())}.",
        f"{part({'alg': 'None'})}.{part(claims())}.",
        f"{part({'alg': ['RS256']})}.{part(claims())}.x",
        f"{part([1])}.{part(claims())}.x",
        f"{part({'alg': 'RS512'})}.{part(claims())}.x",
        "[" * 12_000 + "." + "." + "",
        base64.urlsafe_b64encode(b"[" * 10_000).decode() + "..",
        "x" * (MAX_BYTES + 1),
        "\udc80.\udc80.\udc80",
    ],
)
def test_what_is_no_token_of_ours_is_refused_before_any_key_is_looked_for(sent: str) -> None:
    with pytest.raises(BadToken):
        head_of(sent)


def test_a_token_cannot_bring_a_key_or_say_where_one_is() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key()))
    sent = token(key=other, head={"jwk": own, "jku": "https://evil.example/keys", "x5u": "https://evil.example"})
    with pytest.raises(BadToken, match="signature is not right"):
        read(sent)


def test_a_key_is_found_by_its_name_and_its_algorithm() -> None:
    assert KEYS.find(TokenHead("rs256", "ES256")) is None
    assert KEYS.find(TokenHead("other", "RS256")) is None
    assert KEYS.find(TokenHead(None, "RS256")) is not None
    two = key_set_in({"keys": [public("RS256"), public("RS256", kid="two")]})
    assert two.find(TokenHead(None, "RS256")) is None


def test_keys_that_are_not_for_signatures_are_left_out() -> None:
    small = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))
    bad: list[Any] = [
        public("RS256", use="enc"),
        {"kty": "oct", "k": "AAAA", "kid": "o"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kid": "x"},
        7,
        {**small, "kid": "small"},
        public("RS256", alg="HS256"),
        public("RS256", alg="nonsense"),
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA)),
    ]
    with pytest.raises(BadKeySet, match="no key for signatures"):
        key_set_in({"keys": bad})
    assert key_set_in({"keys": [*bad, public("EdDSA")]}).num_keys == 1


@pytest.mark.parametrize("said", [None, [], {}, {"keys": {}}, {"keys": []}, {"keys": [{}] * 101}])
def test_what_is_no_set_of_keys_is_told(said: object) -> None:
    with pytest.raises(BadKeySet):
        key_set_in(said)
