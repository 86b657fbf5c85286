"""JSON in, bounded in size and depth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.utils.json import strict_constant

from ticket_priority.api.errors import BodyTooLarge


class BoundedJSONParser(JSONParser):
    """Reads UTF-8 JSON of at most DATA_UPLOAD_MAX_MEMORY_SIZE bytes.

    Django applies that limit to forms only. A charset in the content type is ignored: JSON is
    UTF-8, and Python would decompress for a charset called zlib.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(body) > limit:
            raise BodyTooLarge
        try:
            return json.loads(body.decode("utf-8"), parse_constant=strict_constant)
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {type(error).__name__}.") from error
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error
