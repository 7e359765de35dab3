"""Records of a getMultipleLeads reply that need no XML parser: they have the very form in which the protocol shows them (1.4).

A tree costs three times what the values in it cost. So what matches is read from the text, with a grammar so narrow that whatever
matches is well-formed; of anything else nothing is said here, and the parser of the whole reply decides.
"""

import re
from collections.abc import Iterator

from syncd.core.values import Attribute, LeadRecord

RECORD_END = b"</leadRecord>"
_RECORD = re.compile(
    r"[ \t\n]*<leadRecord>[ \t\n]*<Id>([0-9]{1,18})</Id>[ \t\n]*"
    r'(?:<Email>([^<]*)</Email>[ \t\n]*|<Email xsi:nil="true" ?/>[ \t\n]*)?'
    r'(?:<ForeignSysPersonId xsi:nil="true" ?/>[ \t\n]*)?'
    r'(?:<ForeignSysType xsi:nil="true" ?/>[ \t\n]*)?'
    r'(?:<leadAttributeList>[ \t\n]*(.*)</leadAttributeList>|<leadAttributeList xsi:nil="true" ?/>)?[ \t\n]*',
    re.DOTALL,
)
# An attribute that is nil means, like one that is absent, "empty now".
_NIL = (
    r"<attribute>[ \t\n]*<attrName>[^<&]+</attrName>[ \t\n]*<attrType>[^<&]+</attrType>[ \t\n]*"
    r'<attrValue xsi:nil="true" ?/>[ \t\n]*</attribute>[ \t\n]*'
)
_BEHIND_A_VALUE = re.compile(rf"[ \t\n]*</attribute>[ \t\n]*(?:{_NIL})*")
_BEFORE_A_VALUE = re.compile(
    _BEHIND_A_VALUE.pattern + r"<attribute>[ \t\n]*<attrName>([^<&]+)</attrName>[ \t\n]*<attrType>([^<&]+)</attrType>[ \t\n]*"
)
_MOST_KNOWN, _LONGEST_KNOWN = 4096, 2000  # texts, characters of one
_REFERENCE = re.compile("&(?:(amp|lt|gt|quot|apos)|#([0-9]{1,7}));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
# XML has no control characters in a text, but for "\t", "\n", and "\r", which it makes a line end.
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n")


class NotPlainError(Exception):
    """What follows has another form than the one known here; it may be right or wrong."""


def plain_records(text: bytes) -> Iterator[tuple[LeadRecord, int]]:
    """The whole records of `text`, which is UTF-8, each with the offset behind it. Raises NotPlainError."""
    if len(text.translate(None, _CONTROLS)) != len(text) or _has_what_no_text_has(text):
        raise NotPlainError
    *records, _ = text.split(RECORD_END)
    end = 0
    for record in records:
        end += len(record) + len(RECORD_END)
        try:
            yield _record(record.decode()), end
        except UnicodeDecodeError:
            raise NotPlainError from None


def _has_what_no_text_has(text: bytes) -> bool:
    """Whether `text` has what no XML text may have. Looking for one byte first is faster than looking for the three at once."""
    return (b"]" in text and b"]]>" in text) or (b"\xef" in text and (b"\xef\xbf\xbe" in text or b"\xef\xbf\xbf" in text))


def _record(text: str) -> LeadRecord:
    matched = _RECORD.fullmatch(text)
    if matched is None:
        raise NotPlainError
    lead_id, email, attributes = matched.groups()
    if email and "&" in email:
        email = _resolved(email)
    return LeadRecord(int(lead_id), email or None, _attributes(attributes) if attributes else [])


_known: dict[str, tuple[str, str]] = {}
"""What stands before a value → the name and the type in it. It is the same in all records that have the same fields."""


def _attributes(text: str) -> list[Attribute]:
    *parts, behind = f"</attribute>{text}".split("</attrValue>")
    if _BEHIND_A_VALUE.fullmatch(behind) is None:
        raise NotPlainError
    attributes = []
    for part in parts:
        before, mark, value = part.partition("<attrValue>")
        name, kind = _known.get(before) or _learned(before)
        if not mark or "<" in value:
            raise NotPlainError
        attributes.append((name, kind, _resolved(value) if "&" in value else value))
    return attributes


def _learned(before: str) -> tuple[str, str]:
    matched = _BEFORE_A_VALUE.fullmatch(before)
    if matched is None:
        raise NotPlainError
    named = matched[1], matched[2]
    if len(before) <= _LONGEST_KNOWN:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[before] = named
    return named


def _resolved(text: str) -> str:
    """`text` with its references resolved. Raises NotPlainError for an unknown one."""
    all_of_them = text.count("&")
    if text.count("&amp;") == all_of_them:  # as nearly always
        return text.replace("&amp;", "&")
    resolved, count = _REFERENCE.subn(_character, text)
    if count != all_of_them:
        raise NotPlainError
    return resolved


def _character(reference: "re.Match[str]") -> str:
    name, number = reference.groups()
    if name:
        return _NAMED[name]
    code = int(number)
    if not (0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code < 0x110000):
        raise NotPlainError
    return chr(code)
