"""Text with tags in it, as one string: each tag is one character that no decoded text has, half of a surrogate pair.

So a tag and text that is spelled like it stay apart, and a reader can look ahead over both with string searches.
"""

import re

from glm_worker.server.text.lexer import Piece, Tag

MARK = {tag: chr(0xD800 + number) for number, tag in enumerate(Tag)}
TAG = {mark: tag for tag, mark in MARK.items()}
ANY_MARK = re.compile("[" + "".join(TAG) + "]")


def marked(piece: Piece) -> str:
    return piece.text if piece.tag is None else MARK[piece.tag]


def spelled(text: str) -> str:
    """Return marked text as it is written."""
    return ANY_MARK.sub(lambda mark: TAG[mark[0]].value, text)
