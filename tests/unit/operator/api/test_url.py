"""URLs of a Prometheus: what is allowed, and what is shown of one."""

import pytest

from glm_operator.api.url import base_url, redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:9090/prefix", "http://host:9090/prefix"),
        ("http://me:word@host:9090/prefix", "http://...@host:9090/prefix"),
        ("https://me:w/o/r/d@host", "https://...@host"),
        ("http://me:w@rd@host", "http://...@host"),
        ("http://me:w?rd@host", "http://...@host"),
        ("me:word@host:9090", "...@host:9090"),
        ("http://host/?token=word#more", "http://host/?..."),
        ("http://host/\n?token=\nword", "http://host/\n?..."),
        ("", ""),
    ],
)
def test_user_password_and_query_are_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize("url", ["http://me:w/ord@host", "http://me:word", "http://[word", "http://ho st", "//host"])
def test_what_is_refused_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"write it as in|no query") as caught:
        base_url(url)
    assert "word" not in str(caught.value)


def test_a_url_ends_without_a_slash() -> None:
    assert base_url("https://host/team/prometheus//") == "https://host/team/prometheus"
