"""The bytes of an extract's file (protocol 3.1): whether they are well-formed, and the rows of those that are not.

A well-formed file (RFC 4180) goes to Postgres as it is. But COPY drops inner quotes without a word, or takes what stands between two
of them for one cell: so every quote is looked at before.
"""

import codecs
import re

BOM = codecs.BOM_UTF8
LONGEST_CELL = 1_000_000
"""Bytes of one quoted cell; a longer one is no cell, but a quote that nobody closes."""

# Cells without a quote, and whole quoted cells between two separators: as many of them as there are. A quote at the end of a piece may
# be the first of two; only at the end of the file it is the last.
_OPENS = rb'(?:(?<=[,\n])|(?<![\s\S]))"[^"]*+(?:""[^"]*+)*+'
_CELLS = re.compile(rb'(?:[^"]*+%b"(?=[,\r\n]))*+[^"]*+' % _OPENS)
_LAST_CELLS = re.compile(rb'(?:[^"]*+%b"(?=[,\r\n]|\Z))*+[^"]*+' % _OPENS)
_BEGUN = re.compile(rb'%b"?\Z' % _OPENS)


class QuoteCheck:
    """Looks at every quote of a file that comes in pieces. Not to be asked again once it has found one where none may stand."""

    def __init__(self) -> None:
        self._rest = b""
        """What the next piece is looked at with: the byte before it, or a quoted cell that has not ended, with the byte before that."""
        self._begun = False

    def feed(self, piece: bytes) -> bool:
        """Whether all is well in the next bytes, as far as they tell."""
        if not piece:
            return True
        if not self._begun and b'"' not in piece:
            self._rest = piece[-1:]
            return True
        seen = self._rest + piece
        match = _CELLS.match(seen)
        assert match is not None, "it matches nothing at least"
        end = match.end()
        self._begun = end < len(seen)
        self._rest = seen[max(end - 1, 0) :] if self._begun else seen[-1:]
        return not self._begun or (len(self._rest) <= LONGEST_CELL and _BEGUN.match(seen, end) is not None)

    def finish(self) -> bool:
        """Whether all was well, now that the file has ended."""
        return _LAST_CELLS.fullmatch(self._rest) is not None


class LenientReader:
    """The rows of a file that comes in pieces, its header first: of a well-formed one those that the csv module reads.

    Invalid UTF-8 is replaced. A quote in a quoted cell that neither stands before a separator nor is doubled belongs to the value; from
    then on so do doubled ones, as who writes the one does not double the other. A CR is part of a value unless it ends a line as
    in the header. `columns` is how many cells a row has; rows of more or fewer are left out, and counted.
    """

    def __init__(self, columns: int) -> None:
        self.misshapen = 0
        self._columns = columns
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._text = ""
        self._line_end = ""

    def feed(self, piece: bytes, final: bool = False) -> list[list[str]]:
        """The rows that end in the next bytes."""
        self._text += self._decode(piece, final)
        rows: list[list[str]] = []
        at, end = 0, len(self._text)
        while at < end and (read := self._record(at, final)) is not None:
            cells, at = read
            if len(cells) == self._columns:
                rows.append(cells)
            elif cells != [""]:
                self.misshapen += 1
        self._text = self._text[at:]
        return rows

    def _record(self, at: int, final: bool) -> tuple[list[str], int] | None:
        """The cells of the record that begins there, and where the next begins; None when its end has not come yet."""
        text, cells = self._text, []
        while True:
            cell = self._quoted(at + 1, final) if text.startswith('"', at) else self._plain(at, final)
            if cell is None:
                return None
            value, at = cell
            cells.append(value)
            if not text.startswith(",", at):
                if not self._line_end:
                    self._line_end = "\r\n" if text.startswith("\r\n", at) else "\n"
                return cells, at + (2 if text.startswith("\r", at) else 1)
            at += 1

    def _plain(self, at: int, final: bool) -> tuple[str, int] | None:
        text = self._text
        comma, line = text.find(",", at), text.find("\n", at)
        if comma >= 0 and (line < 0 or comma < line):
            return (text[at:comma], comma) if line >= 0 or final or comma < len(text) else None
        if line < 0:
            return (text[at:], len(text)) if final else None
        if text.startswith("\r", line - 1) and line > at and self._line_end != "\n":
            line -= 1
        return text[at:line], line

    def _quoted(self, at: int, final: bool) -> tuple[str, int] | None:
        text, raw = self._text, False
        parts: list[str] = []
        while True:
            quote = text.find('"', at)
            if quote < 0:
                return ("".join((*parts, text[at:])), len(text)) if final else None
            after = quote + 1
            while text.startswith('"', after):
                after += 1
            ends = self._ends(after, final)
            if ends is None:
                return None
            quotes = after - quote
            closes = ends and (raw or quotes % 2 == 1)
            raw = raw or (quotes % 2 == 1 and not ends)
            parts += (text[at:quote], '"' * (quotes - closes if raw else quotes // 2))
            if closes:
                return "".join(parts), after
            at = after

    def _ends(self, at: int, final: bool) -> bool | None:
        """Whether a cell may end there; None when that is yet to come."""
        following = self._text[at : at + 2]
        if not final and following in ("", "\r"):
            return None
        return following in ("", "\r") or following[0] in ",\n" or following == "\r\n"


def header_of(beginning: bytes, columns: int) -> list[str] | None:
    """The first row of a file of which this is the beginning; None while its end has not come."""
    reader = LenientReader(columns)
    rows = reader.feed(beginning)
    return rows[0] if rows else [] if reader.misshapen else None
