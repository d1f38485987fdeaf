"""The comparison as one HTML page without a server or a network: rules, warnings, picture, tables."""

from collections.abc import Sequence
from html import escape
from typing import Any

from tools.compare.statistics import ALL_CLASSES
from tools.compare.text import heading, label, means_table, pairs_table, ranks_line

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #59636e; --edge: #d1d9e0; --warn: #fff4e0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #14181d; --faint: #9aa6b2; --edge: #3a444f; --warn: #3b2a10 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 60rem; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto; margin: .8rem 0 } svg { max-width: 100%; height: auto; min-width: 34rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .6rem 0 .2rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--edge); text-align: right; white-space: nowrap }
th:first-child, td:first-child, .words { text-align: left; white-space: normal }
.warn { background: var(--warn); padding: .5rem 1rem .5rem 2rem; border-radius: .4rem }
small { color: var(--faint) }
"""


def html_page(comparison: dict[str, Any], picture: str) -> str:
    """in: the comparison and its SVG, which is placed inside the page"""
    several = len(comparison["classes"]) > 1
    scopes = [ALL_CLASSES, *(comparison["classes"] if several else [])]
    parts = ["<h1>Comparison of results</h1>", f"<p>{escape(heading(comparison))}</p>"]
    if comparison["warnings"]:
        listed = "".join(f"<li>{escape(warning)}</li>" for warning in comparison["warnings"])
        parts.append(f'<ul class="warn" aria-label="Warnings">{listed}</ul>')
    folders = [[s["name"], str(s["num_seeds"]), ", ".join(s["folders"])] for s in comparison["settings"]]
    parts += ["<h2>Settings</h2>", table([["setting", "seeds", "results"], *folders])]
    parts += [table(means_table(comparison, scope)) for scope in scopes]
    if comparison["ranks"]:
        parts += ["<h2>Ranks and differences</h2>", f'<div class="wide" tabindex="0">{picture}</div>']
    for metric in comparison["ranks"]:
        caption = f"{label(metric)}, {comparison['metrics'][metric]} is better"
        parts += [table(pairs_table(comparison, metric), caption), f"<p>{escape(ranks_line(comparison, metric))}</p>"]
    if comparison["ranks"]:
        parts.append(f"<p><small>* p &lt; 0.05 after correction. {escape(comparison['methods'])}</small></p>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Comparison of results</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def table(lines: Sequence[Sequence[str]], caption: str | None = None) -> str:
    """The first line as header."""
    kinds = [' class="words"' if cell in ("pair", "results") else "" for cell in lines[0]]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(lines[0], kinds))
    rows = ("".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(line, kinds)) for line in lines[1:])
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    inner = f"<table>{words}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{inner}</div>'
