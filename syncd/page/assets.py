"""The page's style and its script, and the policy that lets no others run."""

from base64 import b64encode
from hashlib import sha256
from typing import Final

LIGHT: Final = {
    "page": "#ffffff",
    "card": "#f4f5f7",
    "ink": "#1b1d21",
    "soft": "#565b64",
    "line": "#c9cdd4",
    "good": "#17692b",
    "warn": "#7d4a00",
    "bad": "#b3091f",
    "link": "#0b5394",
}
DARK: Final = {
    "page": "#14161a",
    "card": "#1e2127",
    "ink": "#e8eaee",
    "soft": "#a9afba",
    "line": "#3a3f48",
    "good": "#72d08c",
    "warn": "#f2bd55",
    "bad": "#ff8f8f",
    "link": "#86bdf5",
}


def _variables(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


STYLE: Final = f""":root{{color-scheme:light dark;{_variables(LIGHT)}}}
@media(prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1rem;max-width:72rem;background:var(--page);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}}
header,footer{{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline}} footer{{margin-top:2rem}}
h1{{font-size:1.5rem;margin:0}} h2{{font-size:1.3rem;margin:2rem 0 .5rem;border-bottom:2px solid var(--line)}}
h3{{font-size:1.05rem;margin:1.5rem 0 .5rem}} h4{{font-size:1rem;margin:0 0 .25rem}} p{{margin:.25rem 0}}
a{{color:var(--link)}} :focus-visible{{outline:3px solid var(--link);outline-offset:2px}}
.soft{{color:var(--soft)}} .good,.warn,.bad{{font-weight:600}} .good{{color:var(--good)}}
.warn{{color:var(--warn)}} .bad{{color:var(--bad)}} .card p{{font-weight:400;overflow-wrap:anywhere}}
.cards{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:.75rem}}
.card,.todo li{{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.75rem}}
.todo{{list-style:none;margin:0;padding:0;display:grid;gap:.5rem}} .todo .bad,.todo .warn{{display:block}}
dl{{display:grid;grid-template-columns:auto 1fr;gap:0 1rem;margin:0}} dt{{color:var(--soft)}}
dd{{margin:0;text-align:right;overflow-wrap:anywhere}}
.slots{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(12rem,45%),1fr));gap:.5rem;list-style:none;margin:.5rem 0;padding:0}}
.slots li{{border:1px solid var(--line);border-radius:.4rem;padding:.5rem;font-size:.9rem;line-height:1.3}}
.slots .ours{{background:var(--card);border:2px solid var(--good)}} .slots .others{{background:var(--card);border:2px dashed var(--warn)}}
.slots span{{display:block}}
.wide{{overflow-x:auto}} table{{border-collapse:collapse;font-size:.9rem;width:100%}} caption{{text-align:left;color:var(--soft)}}
th,td{{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}}
.long,td>code{{white-space:normal;min-width:16rem}} td>code{{display:block}}
.n{{text-align:right;font-variant-numeric:tabular-nums}}
code{{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}}
svg{{display:block;width:100%;height:1rem;background:var(--page);border:1px solid var(--line);border-radius:.2rem;margin:.25rem 0}}
.done{{fill:var(--good)}} .open{{fill:var(--warn)}} .blocked{{fill:var(--bad)}} meter{{width:100%;height:1rem}}
"""

# What has been opened or marked stays so; while something is marked, nothing moves.
SCRIPT: Final = """(function(){
var main=document.querySelector('main'),live=document.getElementById('live');
if(!window.EventSource)return;
var events=new EventSource('/events');
events.onopen=function(){live.textContent='updates live'};
events.onerror=function(){live.textContent='connection lost, trying again'};
events.onmessage=function(event){
var marked=window.getSelection();
if(marked&&!marked.isCollapsed)return;
var open=[].map.call(main.querySelectorAll('details[open]'),function(each){return each.id});
var tables=[].slice.call(main.querySelectorAll('.wide'));
var at=document.activeElement&&document.activeElement.id,on=tables.indexOf(document.activeElement);
var left=tables.map(function(each){return each.scrollLeft});
main.innerHTML=event.data;
open.forEach(function(id){var each=document.getElementById(id);if(each)each.open=true});
tables=main.querySelectorAll('.wide');
[].forEach.call(tables,function(each,n){each.scrollLeft=left[n]||0});
var focused=at?document.getElementById(at):tables[on];
if(focused)focused.focus({preventScroll:true});
};
})();"""


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: should markup of others ever get through, nothing of it runs."""
