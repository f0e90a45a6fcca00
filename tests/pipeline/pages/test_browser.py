"""All pages in a real browser: no error, no request, every interaction, at each width and colour scheme."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402

from smoothcert.pipeline.compare.comparison import compare  # noqa: E402
from smoothcert.pipeline.compare.page import html_of  # noqa: E402
from smoothcert.pipeline.nightly.page import html_of as history_page  # noqa: E402
from smoothcert.pipeline.report.report import report_of, write_report  # noqa: E402
from smoothcert.workers.runs.run import Run, open_run  # noqa: E402
from tests.helpers.nights import made_up_nights  # noqa: E402
from tests.helpers.studies import attack  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
about_a_run = pytest.mark.parametrize("page_file", ["report", "compare"], indirect=True)
"""Pages with pictures and a table of classes."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install Debian's package chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        # Chromium refuses to run as root, as CI does, in its sandbox; the page is our own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module", params=["report", "compare", "nightly"])
def page_file(
    request: pytest.FixtureRequest,
    finished: Path,
    before_and_after: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder, names = tmp_path_factory.mktemp(request.param), ["cat", "dog", "owl"]
    if request.param == "nightly":
        page = folder / "index.html"
        page.write_text(history_page(*made_up_nights(30)))
        return page
    if request.param == "report":
        return write_report(report_of(attacked(finished, folder / "run"), side=2), folder, names)[0]
    base, new = (attacked(run, folder / run.name, odd=run == before_and_after[1]) for run in before_and_after)
    page = folder / "compare.html"
    page.write_text(html_of(compare(base, new, patches=[(2, 2)]), names=names))
    return page


def attacked(run: Path, copy: Path, *, odd: bool = False) -> Run:
    """A copy of a run of which every second image fell."""
    opened = open_run(str(shutil.copytree(run, copy)))
    rows = opened.images(["key", "prediction"]).to_pylist()
    keys = [row["key"] for row in rows if row["prediction"] is not None]
    attack(opened, {key: number % 2 == odd for number, key in enumerate(keys)})
    return opened


@pytest.fixture
def open_page(browser: Browser, page_file: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page; at the end there must have been no error and no request but for the page itself."""
    said: list[str] = []
    pages: list[Page] = []

    def open_one(scheme: str = "light", size: dict[str, int] = DESKTOP) -> Page:
        page = browser.new_page(color_scheme=scheme, viewport=size)
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("data:") else None)
        page.goto(page_file.as_uri())
        pages.append(page)
        return page

    yield open_one
    assert said == [page_file.as_uri()] * len(pages)
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_problem(open_page: Callable[..., Page], scheme: str, size: dict[str, int]) -> None:
    """Contrast, names, order of headings, in each look."""
    found = Axe().run(open_page(scheme, size)).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([(one["id"], one["nodes"][0]["html"][:200]) for one in serious])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(open_page: Callable[..., Page], size: dict[str, int]) -> None:
    """Wide tables scroll by themselves."""
    page = open_page("light", size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_dark_is_dark(open_page: Callable[..., Page]) -> None:
    colours = [
        open_page(scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 22, 22)"]


def first_column(page: Page, column: int = 1) -> list[str]:
    return page.locator(f"#class-table tbody tr:visible td:nth-child({column})").all_inner_texts()


@about_a_run
def test_the_table_sorts_by_each_column(open_page: Callable[..., Page]) -> None:
    """First falling, then rising; the column says which."""
    page = open_page()
    heads = page.locator("#class-table th")
    for place in range(heads.count()):
        head = heads.nth(place)
        for order in ("descending", "ascending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == order
            values = page.eval_on_selector_all(
                f"#class-table tbody td:nth-child({place + 1})", "cells => cells.map(cell => cell.dataset.value)"
            )
            if all(value.replace(".", "", 1).isdigit() for value in values):
                assert values == sorted(values, key=float, reverse=order == "descending")
        assert page.locator("#class-table th[aria-sort]").count() == 1


@about_a_run
def test_the_table_filters_as_one_types(open_page: Callable[..., Page]) -> None:
    """And says how many rows are left."""
    page = open_page()
    everyone = len(first_column(page))
    page.get_by_label("Filter").fill("DOG")
    rows = page.locator("#class-table tbody tr:visible").all_inner_texts()
    assert 0 < len(rows) <= everyone
    assert all("dog" in row for row in rows)
    assert page.locator("#filtered").inner_text() == f"{len(rows)} of {everyone} classes"
    page.get_by_label("Filter").fill("nothing like this")
    assert first_column(page) == []
    page.get_by_label("Filter").fill("")
    assert len(first_column(page)) == everyone


@about_a_run
def test_the_keyboard_reaches_and_works_everything(open_page: Callable[..., Page]) -> None:
    """Links, filter, headings of the table, tables that scroll."""
    page = open_page()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.tagName + '.' + document.activeElement.textContent.trim()")
        )
    assert any(one.startswith("A.") for one in reached)
    assert "INPUT." in reached
    assert any(one.startswith("BUTTON.images") for one in reached)
    page.locator("#class-table th button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#class-table th").nth(1).get_attribute("aria-sort") == "descending"


@about_a_run
def test_a_link_leads_to_its_section(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("link", name="classes").click()
    assert 0 <= page.evaluate("document.getElementById('classes').getBoundingClientRect().top") < DESKTOP["height"]


@about_a_run
def test_pictures_are_shown_with_the_patch_inside(open_page: Callable[..., Page]) -> None:
    """The red frame lies within its picture."""
    page = open_page()
    frames = page.locator(".frame")
    assert frames.count() > 2
    for place in range(frames.count()):
        assert frames.nth(place).locator("img").evaluate("image => image.naturalWidth") > 0
        outer, inner = frames.nth(place).bounding_box(), frames.nth(place).locator(".patch").bounding_box()
        assert outer is not None
        assert inner is not None
        assert outer["x"] - 1 <= inner["x"]
        assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1
        assert inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1


@about_a_run
def test_the_page_prints(open_page: Callable[..., Page]) -> None:
    """Without the controls."""
    page = open_page()
    page.emulate_media(media="print")
    assert not page.get_by_label("Filter").is_visible()
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("page_file", ["nightly"], indirect=True)
def test_a_night_can_be_reached_by_its_links(open_page: Callable[..., Page]) -> None:
    """The table scrolls by itself, and each entry has its plots."""
    page = open_page("dark", PHONE)
    assert page.locator("figure").count() == 9
    assert page.get_by_role("link", name="report").count() > 60
    page.get_by_role("link", name="all nights").click()
    assert 0 <= round(page.evaluate("document.getElementById('nights').getBoundingClientRect().top")) < PHONE["height"]
