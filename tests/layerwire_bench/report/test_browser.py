"""The page in a browser: on a phone, on a wide screen and on paper, without asking for anything."""

from __future__ import annotations

import re

import pytest

from layerwire_bench.report.page import to_html
from tests.layerwire_bench.report import results
from tests.layerwire_bench.report.browser import Browser, found

pytestmark = [
    pytest.mark.debian,
    pytest.mark.skipif(found() is None, reason="needs Chromium: Debian's package chromium"),
    pytest.mark.timeout(300),
]
PHONE, DESK = (360, 800), (1280, 900)
# A4 pages that each may take.
PAGES = {"sweep": 5, "comparison": 5, "search": 6, "mix": 6, "single": 3, "broken": 6, "hostile": 20}

PLOTS = """
[...document.querySelectorAll('svg[role=img]')].filter(svg => svg.getClientRects().length).map(svg => {
  const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll('text')];
  return {
    name: svg.id, left: box.left, right: box.right, width: box.width, height: box.height,
    type: Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize) * scale)),
    outside: texts.filter(text => {
      const place = text.getBoundingClientRect();
      return place.left < box.left - 1 || place.right > box.right + 1 ||
             place.top < box.top - 1 || place.bottom > box.bottom + 1;
    }).map(text => text.textContent),
  };
})
"""
WIDER = """
[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.right > document.documentElement.clientWidth + 1 && !element.closest('.scroll') && !element.closest('svg');
}).map(element => element.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Where each page is kept."""
    folder = tmp_path_factory.mktemp("pages")
    for name in PAGES:
        (folder / f"{name}.html").write_text(to_html(results.EVERY[name]()), encoding="utf-8")
    return folder


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_shows_its_plots_and_asks_for_nothing(browser, pages, name, size):
    path = pages / f"{name}.html"
    browser.open(path, *size)
    assert browser.requests == [path.as_uri()]
    assert browser.messages == []
    assert browser.value("document.title").endswith("layerwire bench")
    window, whole, view = browser.value(
        "(root => [innerWidth, root.scrollWidth, root.clientWidth])(document.documentElement)"
    )
    assert (window, whole) == (size[0], view)  # the view is narrower than the window by a scroll bar
    assert browser.value(WIDER) == []
    shown = browser.value(PLOTS)
    assert len(shown) == browser.value("document.querySelectorAll('figure').length") > 0
    for plot in shown:
        assert plot["width"] >= 300, plot
        assert plot["height"] >= 60, plot
        assert plot["type"] >= 9, plot
        assert plot["outside"] == [], plot
    assert {plot["name"] for plot in shown if plot["name"].startswith("timeline")} == {
        "timeline" if size is PHONE else "timeline-wide"
    }


def test_tables_scroll_in_their_own_box_on_a_phone(browser, pages):
    browser.open(pages / "sweep.html", *PHONE)
    boxes = browser.value("[...document.querySelectorAll('.scroll')].map(e => [e.clientWidth, e.scrollWidth])")
    assert boxes
    assert all(inner <= PHONE[0] for inner, _ in boxes)
    assert any(whole > inner for inner, whole in boxes)


def test_a_page_that_asked_for_something_or_was_too_wide_would_be_noticed(browser, tmp_path):
    path = tmp_path / "page.html"
    viewport = "<meta name=viewport content='width=device-width, initial-scale=1'>"
    path.write_text(f"{viewport}<img src='http://example.com/x.png'><p style='width: 500px'>wide</p>")
    browser.open(path, *PHONE)
    assert browser.requests == [path.as_uri(), "http://example.com/x.png"]
    assert len(browser.value(WIDER)) == 1
    path.write_text(to_html(results.single()).replace("</main>", "<script>document.title = 'ran'</script></main>"))
    browser.open(path, *PHONE)
    assert browser.value("document.title") != "ran"
    assert "Content Security Policy" in browser.messages[0]


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_it_takes_a_few_pages(browser, pages, name):
    browser.open(pages / f"{name}.html", *DESK)
    printed = browser.print()
    assert printed.startswith(b"%PDF")
    sheets = re.findall(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", printed)
    assert 1 <= len(re.findall(rb"/Type /Page\b(?!s)", printed)) <= PAGES[name]
    for width, height in sheets:
        assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)


def test_on_paper_no_plot_is_cut(browser, pages):
    browser.open(pages / "sweep.html", *DESK)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        rules = browser.value(
            "[...document.querySelectorAll('figure')].map(figure => getComputedStyle(figure).breakInside)"
        )
        background = browser.value("getComputedStyle(document.body).backgroundColor")
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")
    assert rules
    assert set(rules) == {"avoid"}
    assert background == "rgb(255, 255, 255)"
