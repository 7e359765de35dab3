"""What JavaScript reads off the status page, as it is seen."""

from dataclasses import dataclass
from typing import Any

from tests.system.browser import Tab

SEEN = r"""
(() => {
    const said = each => each.innerText.replace(/\s+/g, ' ').trim();
    const all = (within, what) => [...within.querySelectorAll(what)];
    const cards = {}, tables = {}, meters = {};
    for (const card of all(document, 'article')) {
        cards[said(card.querySelector('h4')).split(' ')[0]] =
            Object.fromEntries(all(card, 'dt').map(term => [said(term), said(term.nextElementSibling)]));
    }
    for (const table of all(document, 'table')) {
        const heads = all(table, 'thead th').map(said);
        const rows = all(table, 'tbody tr').map(row => Object.fromEntries([...row.children].map((cell, n) => [heads[n], said(cell)])));
        tables[said(table.caption)] = rows;
    }
    for (const meter of all(document, 'meter')) meters[meter.getAttribute('aria-label')] = [meter.value, meter.max];
    const windows = all(document, 'main svg').map(bar => bar.getAttribute('aria-label'));
    const slots = all(document, '.slots li').map(said), todo = all(document, '.todo li').map(said);
    return {cards, tables, meters, windows, slots, todo, words: said(document.querySelector('main'))};
})()
"""

# Each text whose colour does not stand out from what is behind it (WCAG 1.4.3).
FAINT = r"""
(() => {
    const parts = colour => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = each => {
        for (; each; each = each.parentElement) {
            const ground = parts(getComputedStyle(each).backgroundColor);
            if (ground.length < 4 || ground[3] === 1) return ground;
        }
        return [255, 255, 255];
    };
    const faint = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const each = texts.currentNode.parentElement, style = getComputedStyle(each);
        if (!texts.currentNode.data.trim() || !each.getClientRects().length) continue;
        const [one, other] = [luminance(parts(style.color)), luminance(behind(each))].sort((a, b) => b - a);
        const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        const ratio = (one + 0.05) / (other + 0.05);
        if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 40)}`);
    }
    return faint;
})()
"""

# What reaches beyond the screen, where it does not scroll by itself (WCAG 1.4.10).
BEYOND = r"""
(() => {
    const wide = document.documentElement.clientWidth;
    const out = [...document.body.querySelectorAll('*')].filter(each => !each.parentElement.closest('.wide') &&
        each.getBoundingClientRect().right > wide + 0.5).map(each => each.outerHTML.slice(0, 80));
    return document.scrollingElement.scrollWidth > wide ? [`${document.scrollingElement.scrollWidth} of ${wide}`, ...out] : out;
})()
"""

# What fingers miss (WCAG 2.5.8).
SMALL = r"""
[...document.querySelectorAll('a, button, summary, input, select')].map(each => [each, each.getBoundingClientRect()])
    .filter(([, box]) => box.width < 24 || box.height < 24).map(([each, box]) => `${each.innerText}: ${box.width} x ${box.height}`)
"""

# What lies under something else, or in too little room: texts that are cut.
CUT = r"""
[...document.querySelectorAll('main *:not(.wide), header *, footer *')].filter(each => each.tagName !== 'svg' && !each.closest('svg') &&
    getComputedStyle(each).display !== 'inline' && each.scrollWidth > each.clientWidth + 1).map(each => each.outerHTML.slice(0, 80))
"""


@dataclass(frozen=True)
class Heard:
    """A part of the page as a screen reader tells it."""

    role: str
    name: str
    level: int | None


async def heard(tab: Tab) -> list[Heard]:
    """The accessibility tree, in the order in which it is read."""
    told = await tab.call("Accessibility.getFullAXTree")
    nodes = [node for node in told["nodes"] if not node["ignored"]]
    return [Heard(_value(node, "role"), _value(node, "name"), _level(node)) for node in nodes]


def _value(node: dict[str, Any], what: str) -> str:
    return str(node.get(what, {}).get("value", ""))


def _level(node: dict[str, Any]) -> int | None:
    return next((int(each["value"]["value"]) for each in node.get("properties", ()) if each["name"] == "level"), None)
