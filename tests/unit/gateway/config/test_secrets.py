"""The secrets come from the environment; what is none is refused without a word of it."""

import pytest

from glm_gateway.config.file import BadConfig
from glm_gateway.config.secrets import SECRET_NAME, TOKEN_NAME, secrets_in

TOKEN, SECRET = "token-of-the-gateway", "0aff" * 8
GOOD = {TOKEN_NAME: TOKEN, SECRET_NAME: SECRET}


def test_both_are_taken_and_not_told_again() -> None:
    found = secrets_in(GOOD)
    assert (found.token, found.secret) == (TOKEN, bytes.fromhex(SECRET))
    assert TOKEN not in repr(found)
    assert "255" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (TOKEN_NAME, "", "GLM_GATEWAY_TOKEN is missing"),
        (SECRET_NAME, " ", "GLM_GATEWAY_SECRET is missing"),
        (TOKEN_NAME, "short", "has 5 characters; it must be at least 16"),
        (TOKEN_NAME, "two words and more of them", "no blanks"),
        (SECRET_NAME, "0aff" * 7, "has 28 characters; it must be hexadecimal digits"),
        (SECRET_NAME, "0aff" * 8 + "f", "an even number of at least 32"),
        (SECRET_NAME, "x" * 32, "hexadecimal digits"),
    ],
)
def test_what_is_no_secret_is_refused_by_its_name(name: str, value: str, sentence: str) -> None:
    with pytest.raises(BadConfig) as caught:
        secrets_in({**GOOD, name: value})
    assert sentence in str(caught.value)
    assert not value.strip() or value not in str(caught.value).replace("GLM_GATEWAY_SECRET", "")
