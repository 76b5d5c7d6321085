"""The report as a page: well-formed, complete, escaped, and in need of nothing else."""

import math
import re
import sys
from html.parser import HTMLParser

import pytest

from flaxformer_edu import cli
from flaxformer_edu.commands import compare as command
from flaxformer_edu.compare import Diagnosis, Report, Row

EMPTY = {"meta", "link", "wbr"}  # elements without an end
NASTY = "<script>alert('x')</script>&\"quoted\""


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text; fails where an element is not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def having(self, tag, name):
        """The elements of a kind that have a class."""
        return [attrs for kind, attrs in self.elements if kind == tag and name in (attrs.get("class") or "").split()]


def row(layer, error=1e-8, **changes):
    given = {"shape": (2, 9, 16), "their_shape": (2, 9, 16), "tolerance": 1e-5, **changes}
    return Row(layer=layer, theirs=f"their.{layer}", max_abs=2 * error, max_rel=error, cosine=0.5, **given)


def blocks(count, error=lambda i: 1e-8):
    parts = ("norm1", "attention.query", "mlp.up", "")
    return [row(f"encoder.blocks.{i}.{part}".rstrip("."), error(i)) for i in range(count) for part in parts]


def test_a_pair_that_agrees():
    page = Page(Report(parameters=(row("head.kernel"),), layers=(row("stem"), *blocks(3), row(""))).to_html())
    assert "They agree" in page.text
    assert "all 14 layers agree" in page.text
    assert "differ" not in page.text.replace("the largest difference", "").replace("shapes differ", "")
    assert len(page.having("tr", "agrees")) == 14


@pytest.mark.parametrize("count", [1, 50])
def test_every_layer_is_in_the_map_and_in_the_table(count):
    layers = (row("stem"), *blocks(count, lambda i: 1e-8 if i < count - 1 else 1e-3), row("head", 1e-2))
    report = Report(parameters=(), layers=layers)
    page = Page(report.to_html())
    cells = [attrs for tag, attrs in page.elements if tag == "a"]
    names = [cell["title"].partition(":")[0] for cell in cells]
    anchors = {attrs["id"] for tag, attrs in page.elements if tag == "tr" and "id" in attrs}
    assert sorted(names) == sorted(r.layer for r in layers)
    assert {cell["href"].removeprefix("#") for cell in cells} == anchors
    assert len(cells) == len(anchors) == len(layers)
    (first,) = page.having("td", "first")
    assert first["class"] == "e5 first"
    (marked,) = page.having("tr", "first")
    assert marked["id"] == f"layer{layers.index(report.first_divergence)}"
    assert ("wide" in page.having("table", "heat")[0]["class"]) == (count == 50)


def test_colours_tell_the_distance_from_the_tolerance():
    errors = {"e0": 1e-9, "e1": 1e-7, "e3": 1e-5, "e4": 1.1e-5, "e7": 1e3, "inf": math.inf}
    layers = [row(name, error) for name, error in errors.items()]
    layers.append(row("shapes", math.inf, their_shape=(2, 16)))
    page = Page(Report(parameters=(), layers=tuple(layers)).to_html())
    cells = [attrs["class"].split()[0] for tag, attrs in page.elements if tag == "td"]
    assert [name for name in cells if name not in ("number", "verdict")] == [*errors, "inf"]
    assert "\N{INFINITY}" in page.text
    assert "2 \N{MULTIPLICATION SIGN} 9 \N{MULTIPLICATION SIGN} 16, theirs 2 \N{MULTIPLICATION SIGN} 16" in page.text


def test_without_tolerance():
    page = Page(Report(parameters=(), layers=(row("same", 0.0, tolerance=0.0), row("b", tolerance=0.0))).to_html())
    assert [attrs["class"] for tag, attrs in page.elements if tag == "td"][:2] == ["e0", "e7 first"]


def test_a_layer_that_some_blocks_lack():
    layers = [r for r in blocks(3) if r.layer != "encoder.blocks.1.mlp.up"]
    page = Page(Report(parameters=(), layers=tuple(layers)).to_html())
    assert len(page.having("td", "none")) == 1


def test_names_are_escaped():
    diagnosis = Diagnosis(cause="activation", explanation=f"it is {NASTY}", where=NASTY, rest="the output agrees")
    report = Report(parameters=(row(NASTY, 1.0),), layers=(row(NASTY, 1.0), row(f"a.0.{NASTY}")), diagnosis=diagnosis)
    text = report.to_html()
    page = Page(text)
    assert NASTY not in text
    assert text.count("<script") == 0
    assert page.text.count(NASTY) >= 5
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_gradients_and_a_step():
    gradients = (row("head", 1e-7), row("encoder.blocks.0.mlp.up.kernel", 1e-2))
    stepped = (row("bias", 1e-1), row("scale"))
    page = Page(Report(parameters=(), layers=(row("head"),), gradients=gradients, stepped=stepped).to_html())
    assert "They differ" in page.text
    assert "1 of 2 parameters differ after one step" in page.text
    assert [attrs["id"] for attrs in page.having("tr", "first")] == ["gradient1"]
    assert "scale" not in page.text


def test_nothing_is_fetched():
    text = Report(parameters=(), layers=tuple(blocks(2))).to_html()
    page = Page(text)
    links = [value for _, attrs in page.elements for name, value in attrs.items() if name in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\(|@import|https?:|<script", text)
    assert any("default-src 'none'" in attrs.get("content", "") for _, attrs in page.elements)


def test_the_file(tmp_path):
    report = Report(parameters=(), layers=(row("head"),))
    path = tmp_path / "report.html"
    path.write_text("old")
    assert report.to_html(path) == path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert report.to_html(str(path)) == path.read_text(encoding="utf-8")


def test_on_the_command_line(monkeypatch, tmp_path):
    report = Report(parameters=(), layers=(row("head", 1.0),))
    monkeypatch.setattr(command, "open_model", lambda path: (None, None))
    monkeypatch.setattr(command, "_open_theirs", lambda *given, **options: (None, None))
    monkeypatch.setattr(command.comparison, "models", lambda *given, **options: report)
    arguments = ["--ours", "folder", "--theirs", "run.npz", "--html", str(tmp_path / "report.html")]
    monkeypatch.setattr(sys, "argv", ["flaxformer-edu", "compare", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report.to_html()
