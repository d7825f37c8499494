"""Texts that name somebody or something, bounded."""

from typing import Annotated

from pydantic import Field

from glm_worker.server.openai.bounds import MAX_ID_CHARS, MAX_LABEL_CHARS, MAX_NAME_CHARS

Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS)]
Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
Id = Annotated[str, Field(max_length=MAX_ID_CHARS)]
