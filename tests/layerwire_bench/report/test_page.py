"""The page as text: complete, self-contained, and names in it stay text."""

from __future__ import annotations

import functools
import html
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

from layerwire.cli.tables import plain
from layerwire_bench.report import numbers
from layerwire_bench.report.page import plots, to_html
from layerwire_bench.report.summary import REST, summaries
from layerwire_bench.result import Load
from tests.layerwire_bench.report import results
from tests.layerwire_bench.report.model import LOCAL, STREAM, UNARY, point

VOID = {"meta", "path", "rect", "use"}
HTML = {"html", "head", "meta", "title", "style", "body", "header", "main", "section", "p", "h1", "h2", "h3", "small"}
HTML |= {
    "dl",
    "dt",
    "dd",
    "div",
    "figure",
    "figcaption",
    "ul",
    "li",
    "span",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
HTML |= {"pre", "code"}
SVG = {"svg", "g", "path", "rect", "use", "defs", "clippath", "text", "desc", "title"}

# What a page of each run shows, in order.
SHOWN = {
    "sweep": ["throughput-latency", "percentiles", "phases", "shares", "timeline", "batches", "processor"],
    "rates": ["throughput-latency", "percentiles", "phases", "shares", "timeline", "batches", "processor"],
    "comparison": ["throughput", "latency", "ratios", "phases", "timeline"],
    "comparison-of-loads": [
        "throughput-latency",
        "ratios",
        "phases",
        "shares",
        "percentiles",
        "timeline",
        "batches",
        "processor",
    ],
    "search": ["tried", "percentiles", "phases", "shares", "timeline", "batches", "processor"],
    "mix": ["throughput-latency", "percentiles", "phases", "shares", "timeline", "batches", "processor", "parts"],
    "single": ["latency", "phases", "timeline"],
    "broken": ["throughput-latency", "percentiles", "phases", "shares", "timeline", "batches", "processor"],
    "hopeless": ["timeline"],
    "nothing": [],
}


@functools.cache
def page(name):
    return to_html(results.EVERY[name]())


@functools.cache
def elements_of(name):
    return Elements(page(name))


@dataclass(frozen=True)
class Shown:
    """A plot as the page has it."""

    name: str
    keys: list[str]
    svgs: list[str]


@functools.cache
def drawn(name):
    made = []
    for figure in page(name).split("<figure")[1:]:
        svgs = re.findall(r"<svg (?=[^>]*role=\"img\").*?</svg>", figure, re.DOTALL)
        keys = [html.unescape(key) for key in re.findall(r"<span>([^<]*)</span></li>", figure)]
        made.append(Shown(re.search(r'id="([^"]+)"', svgs[0])[1], keys, svgs))
    return made


class Elements(HTMLParser):
    """Every element with its attributes, and all text by the element that it stands in."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def text(self, tag):
        return [text for found, text in self.texts if found == tag]


@pytest.mark.parametrize("name", results.EVERY)
def test_elements_are_those_of_the_template_and_close(name):
    elements = elements_of(name)
    assert not elements.open
    assert {tag for tag, _ in elements.found} <= HTML | SVG
    assert [tag for tag, _ in elements.found].count("h1") == 1


@pytest.mark.parametrize("name", results.EVERY)
def test_nothing_in_it_is_fetched_or_run(name):
    for tag, attributes in elements_of(name).found:
        assert not {key for key in attributes if key.startswith("on") or key in {"src", "srcset", "action", "data"}}
        for key, value in attributes.items():
            if "href" in key:
                assert value.startswith("#"), (tag, value)
            assert re.fullmatch(r"(?:[^(]|url\(#|\b(?!url)\w+\()*", value or "") or key in {"aria-label", "id"}
    style = "".join(elements_of(name).text("style"))
    assert "@import" not in style
    assert "url(" not in style


@pytest.mark.parametrize("name", sorted(set(results.EVERY) - {"hostile"}))
def test_it_names_no_address_of_the_web(name):
    assert "://" not in page(name)


@pytest.mark.parametrize("name", results.EVERY)
def test_ids_are_unique_and_what_is_referred_to_is_there(name):
    found = [attributes["id"] for _, attributes in elements_of(name).found if "id" in attributes]
    assert len(found) == len(set(found))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page(name))) <= {
        pair for each in found for pair in ((each, ""), ("", each))
    }
    for _, attributes in elements_of(name).found:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(found)


@pytest.mark.parametrize(("name", "shown"), SHOWN.items(), ids=SHOWN)
def test_plots_are_those_that_there_are_figures_for(name, shown):
    assert [each.name for each in drawn(name)] == shown
    elements = elements_of(name)
    images = [attributes for tag, attributes in elements.found if tag == "svg" and attributes.get("role") == "img"]
    assert [image["id"] for image in images if not image["id"].endswith("-wide")] == shown


@pytest.mark.parametrize("name", sorted(set(SHOWN) - {"nothing"}))
def test_every_plot_draws_something_and_says_what(name):
    for each in drawn(name):
        for svg in each.svgs:
            told = re.findall(r"<(title|desc) id=[^>]*>([^<]+)<", svg)
            assert [tag for tag, _ in told] == ["title", "desc"]
            assert all(len(words) > 5 for _, words in told)
            # axes and grid are grey; a figure without any other colour shows nothing
            colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
            assert colours - {"#5b6573", "#dfe3e8", "#ffffff", "#f1f3f5", "#b9c0c8"}, each.name


@pytest.mark.parametrize("name", sorted(set(SHOWN) - {"nothing"}))
def test_text_of_plots_is_text_of_eleven_units(name):
    for each in drawn(name):
        sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", each.svgs[0])}
        assert sizes
        assert min(sizes) >= 10.5
        assert each.svgs[0].count("<text") > 3


def plot(name, of):
    return next(each for each in drawn(of) if each.name == name)


def test_the_timeline_shows_errors_by_status_and_wrong_answers_first():
    assert plot("timeline", "broken").keys == [
        "p50",
        "p99",
        "wrong answers",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "warm-up",
    ]
    assert plot("timeline", "sweep").keys == ["p50", "p99", "warm-up"]
    assert "errors/s" in plot("timeline", "broken").svgs[0]
    assert "errors/s" not in plot("timeline", "sweep").svgs[0]


def test_phases_end_at_the_mean_that_the_client_saw():
    written = plot("phases", "sweep").svgs[0]
    for summary in summaries(results.sweep()):
        assert f">{numbers.milliseconds(summary.latency.mean_seconds)}</text>" in written
    assert plot("phases", "sweep").keys == ["queue", "copy in", "kernel", "copy out", REST]


def test_points_of_throughput_are_labelled_with_their_loads():
    texts = re.findall(r">([^<]+)</text>", plot("throughput-latency", "sweep").svgs[0])
    assert {"1", "2", "4", "8", "16", "32", "64"} <= set(texts)


def test_a_legend_has_what_is_drawn_and_no_more():
    assert plot("processor", "sweep").keys == ["server", "load tester"]
    assert plot("batches", "comparison-of-loads").keys == [STREAM, UNARY]
    points = [point(LOCAL, Load("closed", callers=count), 0, 1) for count in (1, 2, 4)]
    alone = {each.name: each for each in plots(results.run("sweep", "", points))}
    assert [key.text for key in alone["processor"].keys] == ["load tester"]
    assert re.findall(r">([\d.]+)</text>", alone["processor"].svg)[:3] == ["1", "2", "4"]


def test_names_stay_text():
    run = results.hostile()
    elements = elements_of("hostile")
    everything = "".join(text for _, text in elements.texts)
    for name in results.HOSTILE:
        assert plain(name) in everything
    assert plain(run.command) in elements.text("code")
    within = " ".join(elements.text("text"))
    assert r"$\frac{1}{0}$ $\undefined$" in within
    assert "_hidden" in within
    assert "49" not in elements.text("h1")[0]
    assert not {char for text in everything for char in text if not char.isprintable()} - {"\n", "\xa0"}
    page("hostile").encode()


def test_wrong_answers_errors_and_notes_come_before_the_answer():
    text = page("broken")
    places = [text.index(words) for words in ('box wrong"', 'box alarm"', 'box note"', 'class="answer"', "<figure")]
    assert places == sorted(places)
    assert 'class="box' not in page("sweep")


def test_it_says_how_to_do_it_again():
    text = page("mix")
    assert "layerwire bench 127.0.0.1:50051 mix mix.toml --concurrency 4:64:x4" in text
    for words in ("AMD EPYC 9454P", "62.8 GiB", "grpcio", "1.85.1", "/metrics of 127.0.0.1:9464", "with torch 2.13.0"):
        assert words in text
    assert all(entry in text for entry in results.mix().workload)


def test_the_same_run_makes_the_same_page():
    assert to_html(results.sweep()) == page("sweep")


def test_it_is_small():
    assert len(page("sweep").encode()) < 200_000
    assert max(len(page(name).encode()) for name in results.EVERY) < 500_000


def test_more_targets_than_colours_are_still_in_the_tables():
    found = results.single().points[0]
    many = replace(
        results.single(), points=tuple(replace(found, target=f"stream@10.0.0.{index}:50051") for index in range(12))
    )
    text = to_html(many)
    assert all(f"stream@10.0.0.{index}:50051</td>" in text for index in range(12))


def test_matplotlib_is_left_as_it_was():
    before = dict(mpl.rcParams)
    plots(results.single())
    assert dict(mpl.rcParams) == before
