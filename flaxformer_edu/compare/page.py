"""A report as one page that needs nothing else: no script, no network, light or dark as the reader's system is."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

from flaxformer_edu.compare.page_style import STYLE
from flaxformer_edu.compare.rows import Row

WITHIN, BEYOND = 4, 4  # how many colours there are up to the tolerance, and from there
WIDE = 12  # more columns than that show no numbers where the page is narrow
NUMBERS = ("max abs", "max rel", "tolerance", "float64", "cosine")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(report: Any) -> str:
    """The whole page as text: what was found, a heat map of all layers, and the numbers."""
    title = "They agree" if report.agrees else "They differ"
    gradients, stepped = report.gradients or (), report.stepped or ()
    compiled = report.compiled.all_rows if report.compiled else ()
    first, first_gradient = report.first_divergence, report.first_gradient_divergence
    parts = [
        _summary(report, title),
        _section("Error by layer", report.layers, lambda rows: _heat_map(rows, "layer", first)),
        _section("Error by gradient", gradients, lambda rows: _heat_map(rows, "gradient", first_gradient)),
        _section("Parameters that differ", _different(report.parameters), _table),
        _section("Layers, in the order of computation", report.layers, lambda rows: _table(rows, "layer", first)),
        _section("Gradients, backwards", gradients, lambda rows: _table(rows, "gradient", first_gradient)),
        _section("Parameters that differ after one step", _different(stepped), _table),
        _section("Compiled (as ours) and eager, where they differ", _different(compiled), _table),
    ]
    return PAGE.format(title=f"{title}: layer by layer", style=STYLE, body="\n".join(filter(None, parts)))


def _different(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.agrees]


def _summary(report: Any, title: str) -> str:
    verdict = "agrees" if report.agrees else "differs"
    lines = "".join(f"<p>{_breakable(line)}</p>" for line in report.summary.splitlines())
    ends = sorted({f"{end([row.tolerance for row in report.layers]):.0e}" for end in (min, max) if report.layers})
    tolerances = " to ".join(reversed(ends)) or "none"
    counts = f"{len(report.layers)} layers, {len(report.parameters)} parameters"
    return (
        f'<header class="{verdict}"><h1>{title}</h1>{lines}'
        f'<p class="note">{counts}; tolerance {tolerances}, relative to a layer\'s largest value</p></header>'
    )


def _section(heading: str, rows: Sequence[Row], content: Callable[[Sequence[Row]], str]) -> str:
    return f"<section><h2>{heading}</h2>{content(rows)}</section>" if rows else ""


def _heat_map(rows: Sequence[Row], anchor: str, first: Row | None) -> str:
    """A line for each row; of layers with a number in their names, as blocks have, a column for each number."""
    levels, numbers = _levels(rows), {id(row): i for i, row in enumerate(rows)}
    lines, most = [], 0
    for stack, group in groupby(rows, lambda row: _numbered(row.layer)[0]):
        cells = {
            _numbered(row.layer)[1:]: _cell(row, f"{anchor}{numbers[id(row)]}", levels, row is first) for row in group
        }
        columns, names = (list(dict.fromkeys(keys)) for keys in zip(*cells, strict=True))
        most = max(most, len(columns))
        if stack is not None:
            head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
            lines.append(f'<tr class="stack"><th scope="row">{_breakable(stack)}</th>{head}</tr>')
        for name in names:
            label = name or ("as a whole" if stack is not None else "the output")
            drawn = "".join(cells.get((column, name), '<td class="none"></td>') for column in columns)
            lines.append(f'<tr><th scope="row">{_breakable(label)}</th>{drawn}</tr>')
    kind = "heat wide" if most > WIDE else "heat"
    table = f'<div class="scroll"><table class="{kind}"><tbody>{"".join(lines)}</tbody></table></div>'
    return table + _legend(levels)


def _numbered(layer: str) -> tuple[str | None, str, str]:
    """`encoder.blocks.3.mlp.up` as (encoder.blocks, 3, mlp.up): the stack, the number and the rest."""
    parts = layer.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if index is None:
        return None, "", layer
    return ".".join(parts[:index]), parts[index], ".".join(parts[index + 1 :])


def _levels(rows: Iterable[Row]) -> list[int]:
    """Up to which power of ten, in units of the tolerance, each colour but the last goes: up to the largest error."""
    ratios = [_ratio(row) for row in rows]
    largest = max((math.log10(ratio) for ratio in ratios if 0 < ratio < math.inf), default=0.0)
    step = max(1, math.ceil(largest / BEYOND))
    return [*range(1 - WITHIN, 1), *(step * i for i in range(1, BEYOND))]


def _ratio(row: Row) -> float:
    """In units of the tolerance; of the float64 runs, where these differ by more."""
    exact = _over(row.float64, row.float64_tolerance)
    return max(_over(row.max_rel, row.tolerance), exact if exact > 1 else 0.0)


def _over(error: float | None, tolerance: float | None) -> float:
    if not error:
        return 0.0
    return error / tolerance if tolerance else math.inf


def _cell(row: Row, target: str, levels: Sequence[int], first: bool) -> str:
    """Its colour tells how far the error is from the tolerance, its number the error's power of ten."""
    if row.shape != row.their_shape:
        sign, text = "\N{NOT EQUAL TO}", "shapes differ"
    elif not math.isfinite(row.max_rel):
        sign, text = "\N{INFINITY}", "not finite on one side"
    else:
        sign = f"{math.floor(math.log10(row.max_rel))}".replace("-", "\N{MINUS SIGN}") if row.max_rel else "0"
        text = f"{row.max_rel:.1e}, {'agrees' if row.agrees else 'differs'}"
    text = escape(f"{row.layer or 'the output'}: {text}")
    level = "inf" if not math.isfinite(row.max_rel) else f"e{sum(_ratio(row) > 10.0**n for n in levels)}"
    link = f'<a href="#{target}" title="{text}" aria-label="{text}">{sign}</a>'
    return f'<td class="{level}{" first" if first else ""}">{link}</td>'


def _legend(levels: Sequence[int]) -> str:
    labels = [f"10<sup>{n}</sup>" if abs(n) > 1 else f"{10.0**n:g}" for n in levels]
    colours = "".join(f'<li><i class="e{i}"></i>{label}</li>' for i, label in enumerate([*labels, "more"]))
    return (
        f'<ul class="legend"><li>Times the tolerance, up to</li>{colours}'
        '<li><i class="inf"></i>\N{INFINITY} not finite, \N{NOT EQUAL TO} shapes differ</li>'
        '<li><i class="none"></i>not there</li><li><i class="first"></i>first divergence</li></ul>'
        '<p class="note">In each cell: the power of ten of the largest difference, relative to the largest value.</p>'
    )


def _table(rows: Iterable[Row], anchor: str | None = None, first: Row | None = None) -> str:
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in NUMBERS)
    body = "".join(_row(row, f"{anchor}{i}" if anchor else None, row is first) for i, row in enumerate(rows))
    head = f'<tr><th scope="col">ours, theirs, shape</th>{head}<th scope="col">verdict</th></tr>'
    return f'<table class="rows"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _row(row: Row, anchor: str | None, first: bool) -> str:
    mark = '<b class="badge">first divergence</b>' if first else ""
    verdict, sign = ("agrees", "\N{CHECK MARK}") if row.agrees else ("differs", "\N{MULTIPLICATION X}")
    shape = _shape(row.shape)
    if row.shape != row.their_shape:
        shape += f", theirs {_shape(row.their_shape)}"
    exact = "" if row.float64 is None else f"{row.float64:.1e}"
    numbers = (f"{row.max_abs:.1e}", f"{row.max_rel:.1e}", f"{row.tolerance:.1e}", exact, f"{row.cosine:.6f}")
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return (
        f'<tr{f" id={anchor}" if anchor else ""} class="{verdict}{" first" if first else ""}">'
        f'<th scope="row">{_breakable(row.layer or "the output")}{mark}'
        f"<small>{_breakable(row.theirs or 'the output')} <span>{shape}</span></small></th>"
        f'{cells}<td class="verdict">{sign}<span> {verdict}</span></td></tr>'
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) or "one number"


def _breakable(text: str) -> str:
    """Escaped, and free to go on in a new line behind each dot and underscore."""
    return escape(text).replace(".", ".<wbr>").replace("_", "_<wbr>")
