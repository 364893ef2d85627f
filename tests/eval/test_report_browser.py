"""The report as people see it: in Chromium, on a desktop, on a phone and printed."""

import re

import pytest
from PIL import Image, ImageColor

from codellm_eval.bench.records.record import Gap
from codellm_eval.report import canvas
from codellm_eval.report.report import write_report
from support import chromium, recorded

NASTY = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=document.title='owned'>"
WIDTHS = {"desktop": 1280, "phone": 390}
PAPER = 688
"""CSS pixels of A4 without the margins."""


@pytest.fixture(scope="module")
def browser():
    with chromium.there("the report") as running:
        yield running


def demo():
    return [recorded.growing(f"llama-cpp:q{n}_0", bits_per_byte=0.7 + n / 50) for n in range(6)]


def nasty():
    names = [f"llama-cpp:q{n}_0:note={NASTY},path=/{'long' * 40}/{n}" for n in range(20)]
    rows = [recorded.row(name, model=NASTY, bits_per_byte=0.7 + n / 50) for n, name in enumerate(names)]
    return [*rows, recorded.failed("llama-cpp:f16", NASTY), rows[0].with_gap("pass_at_1", Gap(NASTY, "x" * 500))]


@pytest.fixture(scope="module", params=[demo, nasty], ids=["demo", "nasty"])
def page(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    return write_report(recorded.write(folder, request.param(), cpu="AMD EPYC"))


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_it_fits_the_window_and_nothing_complains(browser, page, width):
    browser.open(page, width)
    assert browser.value("document.documentElement.scrollWidth") == browser.value("innerWidth") == width
    assert browser.complaints() == []
    assert browser.requested() == [page.resolve().as_uri()]
    assert browser.value("document.title") != "owned"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pictures_and_tables_are_there(browser, page, width):
    browser.open(page, width)
    sizes = browser.value("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().toJSON())")
    assert len(sizes) == len(list((page.parent / "plots").glob("*.svg"))) >= 3
    for size in sizes:
        assert width / 3 < size["width"] <= width
        assert size["height"] > 100
        assert size["left"] >= 0
        assert size["right"] <= width
    # what is drawn by reference, as letters are, is found in its own picture
    found = "e => e.closest('svg').contains(document.getElementById(e.href.baseVal.slice(1)))"
    assert browser.value(f"[...document.querySelectorAll('figure use')].filter({found}).length") > 100
    assert browser.value(f"[...document.querySelectorAll('figure use')].every({found})")
    cells = browser.value("[...document.querySelectorAll('td')].map(e => e.getBoundingClientRect().width)")
    assert len(cells) > 50
    assert min(cells) > 20


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_screenshot_shows_the_pictures(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    shot = page.parent / f"screenshot-{width}-{'dark' if dark else 'light'}.png"
    shot.write_bytes(browser.screenshot())
    image = Image.open(shot).convert("RGB")
    assert image.size == (width, browser.value("document.documentElement.scrollHeight"))
    colours = {colour: count for count, colour in image.getcolors(1 << 24)}
    paper, ink = (browser.value(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    paper, ink = (tuple(map(int, value[4:-1].split(","))) for value in (paper, ink))
    assert colours[paper] > image.width * image.height / 4
    assert colours[ink] > 500
    assert abs(sum(ink) - sum(paper)) > 450
    assert (sum(ink) > sum(paper)) == dark
    assert colours[ImageColor.getrgb(canvas.COLOURS[0])] > 200  # the marks of the first backend


def test_it_prints(browser, page):
    browser.open(page, 1280)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 40
    browser.open(page, PAPER)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        # what is folded on a screen is open on paper, and no table is cut at the page's edge
        assert browser.value("document.querySelector('pre').getBoundingClientRect().height") > 100
        reach = browser.value("[...document.querySelectorAll('table')].map(e => e.getBoundingClientRect().right)")
        assert max(reach) <= PAPER
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")
