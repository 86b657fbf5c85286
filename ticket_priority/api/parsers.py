from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.utils.json import strict_constant


class StrictJSONParser(JSONParser):
    """Read UTF-8 JSON; nesting that is too deep is an error of the client.

    A charset in the content type is ignored: JSON is UTF-8, and Python would decompress the body
    for a charset called zlib.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return json.loads(stream.read().decode("utf-8"), parse_constant=strict_constant)
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {type(error).__name__}.") from error
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error
