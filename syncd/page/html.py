"""Elements of HTML. What is not markup already is escaped, and loses the addresses in it: there is no other way in."""

from html import escape

from syncd.core.words import without_addresses

LONG = 24  # characters: a text that may be broken into lines
VOID = frozenset({"br", "hr", "link", "meta", "rect"})


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def text(child: object) -> Html:
    """A child as markup; None is nothing."""
    if isinstance(child, Html):
        return child
    return Html("" if child is None else escape(without_addresses(str(child))))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name attributes>children</name>`: `class_` is class, `aria_label` aria-label. Of None there is no attribute, of True no value."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{given}>" if name != "rect" else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{''.join(text(child) for child in children)}</{name}>")


def joined(*children: object) -> Html:
    """One after the other."""
    return Html("".join(text(child) for child in children))


def table(caption: str, headings: list[str], rows: list[list[object]], numbers: frozenset[int] = frozenset()) -> Html:
    """A table whose first cells head their rows; `numbers` are the columns that are set to the right. It scrolls by itself on a phone."""

    def cell(column: int, value: object) -> Html:
        long = isinstance(value, str) and not isinstance(value, Html) and len(value) > LONG
        kind = "n" if column in numbers else "long" if long else None
        return element("th", value, scope="row", class_=kind) if column == 0 else element("td", value, class_=kind)

    head = element("tr", *(element("th", each, scope="col", class_="n" if n in numbers else None) for n, each in enumerate(headings)))
    body = [element("tr", *(cell(column, value) for column, value in enumerate(row))) for row in rows]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)
