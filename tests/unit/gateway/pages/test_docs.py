import pytest

from glm_gateway.pages import docs


def test_the_page_asks_no_other_host() -> None:
    page = docs.docs_page()
    assert b"openapi.json" in page.body
    assert b"//" not in page.body.replace(b"<!doctype", b"")
    for name in docs.DOCS_FILES:
        assert name.encode() in page.body
        found = docs.docs_file(name)
        assert found is not None
        assert found.body


def test_an_image_without_swagger_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "_PACKAGE", "not_installed_here")
    docs.docs_file.cache_clear()
    page = docs.docs_page()
    assert b"lacks Swagger UI" in page.body
    assert b"openapi.json" in page.body
    assert docs.docs_file(docs.DOCS_FILES[0]) is None
    docs.docs_file.cache_clear()


def test_no_other_file_is_told() -> None:
    assert docs.docs_file("../__init__.py") is None
