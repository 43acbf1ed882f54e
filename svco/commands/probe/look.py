"""How the page looks: a diverging scale for colour-blind readers, by day and by night, and the little script it needs."""

from __future__ import annotations

from math import isnan

EDGES = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Nats between two steps of the scale, in both directions: fixed, so that pages and models can be compared."""

SCHEMES: dict[str, dict[str, str]] = {
    "light": {"paper": "#ffffff", "ink": "#1a1a1a", "soft": "#5a5a5a", "line": "#d9d9d9", "card": "#fafafa"},
    "dark": {"paper": "#14171a", "ink": "#ececec", "soft": "#a8adb2", "line": "#3a4046", "card": "#1b1f23"},
}
"""Colours of the page: background, text, quiet text, lines, cards."""

SCALE: dict[str, dict[str, tuple[str, str]]] = {
    "light": {
        "n5": ("#9c3d00", "#ffffff"),
        "n4": ("#d9702a", "#1a1a1a"),
        "n3": ("#ee9f6b", "#1a1a1a"),
        "n2": ("#f6c9a8", "#1a1a1a"),
        "n1": ("#fbe6d8", "#1a1a1a"),
        "z": ("#f1f1f1", "#1a1a1a"),
        "p1": ("#dcebf5", "#1a1a1a"),
        "p2": ("#b5d5ea", "#1a1a1a"),
        "p3": ("#7fb6db", "#1a1a1a"),
        "p4": ("#4a98cb", "#1a1a1a"),
        "p5": ("#00558a", "#ffffff"),
    },
    "dark": {
        "n5": ("#ffc08f", "#14171a"),
        "n4": ("#d9792f", "#14171a"),
        "n3": ("#864614", "#ececec"),
        "n2": ("#5c3519", "#ececec"),
        "n1": ("#3a2618", "#ececec"),
        "z": ("#262b30", "#ececec"),
        "p1": ("#17303f", "#ececec"),
        "p2": ("#1b465f", "#ececec"),
        "p3": ("#1f6089", "#ececec"),
        "p4": ("#3a8fc4", "#14171a"),
        "p5": ("#9cd2f5", "#14171a"),
    },
}
"""Step -> (background, text). Okabe and Ito's blue and vermilion: ``p`` more than 0 nats, ``n`` less, ``z`` near 0."""


def step(nats: float) -> str:
    """The step of the scale for a difference of ``nats``; ``none`` for NaN."""
    if isnan(nats):
        return "none"
    size = sum(abs(nats) >= edge for edge in EDGES)
    return f"{'p' if nats > 0 else 'n'}{size}" if size else "z"


def legend() -> list[tuple[str, str]]:
    """(step, its words) from the lowest to the highest."""
    texts = [f"{low:g} to {high:g}" for low, high in zip(EDGES, EDGES[1:])] + [f"{EDGES[-1]:g} and more"]
    low = [(f"n{n}", f"−{texts[n - 1]}") for n in range(len(EDGES), 0, -1)]
    return [*low, ("z", f"within ±{EDGES[0]:g}"), *((f"p{n}", f"+{texts[n - 1]}") for n in range(1, len(EDGES) + 1))]


def style(quantities: int) -> str:
    """The page's CSS for ``quantities`` quantities to choose from; classes ``q0p3`` and so on colour a token."""
    day, night = _colours("light", quantities), _colours("dark", quantities)
    return f"{day}\n@media (prefers-color-scheme: dark) {{\n{night}\n}}\n{_STYLE}"


def _colours(scheme: str, quantities: int) -> str:
    variables = ";".join(f"--{name}:{value}" for name, value in SCHEMES[scheme].items())
    rules = [f":root{{color-scheme:{scheme};{variables}}}"]
    for name, (back, text) in SCALE[scheme].items():
        chosen = ",".join([f".s{name}", *(f"[data-show='{q}'] .q{q}{name}" for q in range(quantities))])
        rules.append(f"{chosen}{{background:{back};color:{text}}}")
    return "\n".join(rules)


_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .5rem} h2{font-size:1.05rem;margin:0 0 .75rem} h3{font-size:.8rem;margin:0;color:var(--soft)}
.reading{font-size:1.1rem;font-weight:600}
.soft,figcaption,.sums{color:var(--soft);font-size:.85rem}
.bar{position:sticky;top:0;z-index:1;background:var(--paper);border-bottom:1px solid var(--line);padding:.6rem 0}
fieldset{border:0;padding:0;margin:0 0 .4rem;display:flex;flex-wrap:wrap;gap:.3rem 1.4rem}
.legend{display:flex;flex-wrap:wrap;gap:2px;font-size:.75rem;list-style:none;padding:0;margin:0}
.legend li{padding:.1rem .45rem;border-radius:3px}
section.pair{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1.2rem 0}
.kind{border:1px solid var(--line);border-radius:999px;padding:.05rem .6rem;margin-right:.5rem;font-size:.8rem;font-weight:400}
.side{display:flex;gap:1rem;margin:.8rem 0;align-items:flex-start}
figure{margin:0;flex:0 0 9rem} img{width:9rem;height:auto;display:block;border-radius:4px;border:1px solid var(--line)}
img.small{image-rendering:pixelated}
.models{display:flex;flex-wrap:wrap;gap:1rem;flex:1} .models>div{flex:1 1 17rem}
.response{margin:.2rem 0;font-size:1.1rem;line-height:2;white-space:pre-wrap;overflow-wrap:anywhere}
.t{border-radius:3px;padding:.12em 0;margin-right:1px;cursor:help}
.special{font-size:.75em}
.none{outline:1px dashed var(--line)}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid var(--line)} th:first-child,td:first-child{text-align:left}
td.word{white-space:pre}
.tables{display:flex;flex-wrap:wrap;gap:2rem}
#tip{position:fixed;display:none;z-index:2;white-space:pre;background:var(--ink);color:var(--paper);padding:.4rem .6rem;
border-radius:4px;font:13px/1.45 ui-monospace,monospace;pointer-events:none}
@media (max-width:46rem){.side{flex-direction:column}}
@media print{.bar{position:static}}
"""

SCRIPT = """
const tip = document.getElementById("tip");
for (const token of document.querySelectorAll(".t")) { token.dataset.tip = token.title; token.removeAttribute("title"); }
function show(event) {
  const token = event.target.closest && event.target.closest(".t");
  if (!token) { tip.style.display = "none"; return; }
  tip.textContent = token.dataset.tip;
  tip.style.display = "block";
  const box = token.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.left, innerWidth - size.width - 4)) + "px";
  tip.style.top = (box.bottom + size.height + 8 < innerHeight ? box.bottom + 4 : box.top - size.height - 4) + "px";
}
for (const kind of ["pointerover", "click"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { tip.style.display = "none"; }, {passive: true});
for (const choice of document.querySelectorAll("input[name=show]"))
  choice.addEventListener("change", () => { document.body.dataset.show = choice.value; });
const chosen = document.querySelector("input[name=show]:checked");
if (chosen) document.body.dataset.show = chosen.value;
"""
"""Tooltips that come at once and by touch (without it they are the browser's own), and the choice of the quantity."""
