"""/docs: Swagger UI over /openapi.json, from this package's own neighbours and no other host.

The operator's image has no Swagger UI: there the page says so, and where the description is.
"""

from functools import cache
from importlib.resources import files
from importlib.util import find_spec

from glm_gateway.pages.page import HTML, Page
from glm_gateway.surfaces.routes import DOCS_FILES

_PACKAGE = "fastapi_swagger"
_KINDS = {"js": b"text/javascript", "css": b"text/css", "png": b"image/png"}
_DAY_S = 86_400
_BUNDLE, _STYLE, _ICON = DOCS_FILES

_SWAGGER = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>GLM gateway</title>
<link rel="stylesheet" href="docs/{_STYLE}">
<link rel="icon" href="docs/{_ICON}">
</head>
<body>
<div id="page"></div>
<script src="docs/{_BUNDLE}"></script>
<script>SwaggerUIBundle({{url: "openapi.json", dom_id: "#page", deepLinking: true}})</script>
</body>
</html>
"""
_PLAIN = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>GLM gateway</title></head>
<body>
<p>The API is described in <a href="openapi.json">openapi.json</a>, for any reader of OpenAPI 3.1.</p>
<p>A page to try it is not part of this image (it lacks Swagger UI).</p>
</body>
</html>
"""


def has_swagger() -> bool:
    """Tell whether what the page is made of is installed."""
    return find_spec(_PACKAGE) is not None


def docs_page() -> Page:
    return Page(200, (_SWAGGER if has_swagger() else _PLAIN).encode(), HTML)


@cache
def docs_file(name: str) -> Page | None:
    """Return one of DOCS_FILES; None: it is not installed."""
    if name not in DOCS_FILES or not has_swagger():
        return None
    content = files(f"{_PACKAGE}.resources").joinpath(name).read_bytes()
    return Page(200, content, _KINDS[name.rpartition(".")[2]], max_age_s=_DAY_S)
