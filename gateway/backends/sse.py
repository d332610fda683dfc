"""Server-sent events, sans-IO: bytes in, the data of whole events out (WHATWG HTML, "Server-sent events").

Kept as bytes, because line ends are ASCII and UTF-8 never holds an ASCII byte inside a character; whoever parses the
data finds bad UTF-8. ``id`` and ``retry`` are kept for whoever resumes a stream, and read over for everybody else.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):  # noqa: N818 - says what it is
    """An event is larger than the limit before it has ended."""


class Position:
    """Where a stream has got to: the ``id`` of its last whole event, and after how many milliseconds to come again."""

    __slots__ = ("id", "retry")

    def __init__(self) -> None:
        self.id = b""
        self.retry: int | None = None


class SseParser:
    """Collects events of the type ``message``, the only one that carries MCP, or of other ``kinds``.

    ``limit`` is the most bytes that an unfinished event may hold. ``position`` is kept up to date, where there is one.
    """

    __slots__ = (
        *("_after_cr", "_data", "_first", "_id", "_kinds", "_limit"),
        *("_partial", "_position", "_size", "_type"),
    )

    def __init__(
        self, limit: int, kinds: tuple[bytes, ...] = (b"", b"message"), position: Position | None = None
    ) -> None:
        self._limit = limit
        self._kinds = kinds
        self._position = position
        self._id = b""
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._type = b""
        self._first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes of the stream, cut anywhere; return the data of the events that they end.

        Raises:
            EventTooLarge: the stream is not to be read on.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = self._whole_lines(chunk)
        events = [event for line in lines if (event := self._line(line)) is not None]
        if self._size + len(self._partial) > self._limit:
            raise EventTooLarge
        return events

    def _whole_lines(self, chunk: bytes) -> list[bytes]:
        lines = chunk.splitlines()
        whole = chunk.endswith((b"\n", b"\r"))
        if self._partial and (whole or len(lines) > 1):
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        if not whole:
            self._partial += lines.pop()
        return lines

    def _line(self, line: bytes) -> bytes | None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > self._limit:
                raise EventTooLarge
            self._data.append(value)
        elif field == b"event":
            self._type = value
        elif self._position is not None:
            self._locate(self._position, field, value)
        return None

    def _locate(self, position: Position, field: bytes, value: bytes) -> None:
        if field == b"id" and b"\0" not in value:
            self._id = value
        elif field == b"retry" and value.isdigit():
            position.retry = int(value[:9])

    def _dispatch(self) -> bytes | None:
        if self._position is not None:
            self._position.id = self._id
        data, kind = self._data, self._type
        self._data, self._type, self._size = [], b"", 0
        return b"\n".join(data) if data and kind in self._kinds else None
