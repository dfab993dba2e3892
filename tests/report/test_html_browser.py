"""The page in a real browser: headless Chromium, driven by Selenium; skipped, with the reason, where there is none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import RULES, build
from defects import DAMAGES
from reports import HOSTILE, make_hostile, one_sick_run, page, some_diagram

from pytest_panic_doctor.report.html import write_html
from pytest_panic_doctor.report.html.plot_data import STEPS, block, drawn
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.session.demo.build import build as build_demo
from pytest_panic_doctor.topology.payload import Payload

pytestmark = pytest.mark.integration

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
PATIENCE = 30

SICK_ROWS = """
const canvas = document.getElementById("overview");
const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const sick = getComputedStyle(document.querySelector("#map .legend .sick"));
const [red, green, blue] = sick.backgroundColor.match(/[0-9]+/g);
const rows = new Set();
for (let i = 0; i < data.length; i += 4)
  if (Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) + Math.abs(data[i + 2] - blue) < 60)
    rows.add(Math.floor(i / 4 / width));
return [...rows];
"""
"""The rows of the overview's pixels that have the colour of sick."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("there is no chromium with its chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started: WebDriver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def sick_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; one vector NULL, one diagram torn, an orphan, and texts that would be markup."""
    built = build(tmp_path_factory.mktemp("sick") / "x.sqlite")
    make_hostile(built)
    with built.open() as db:
        DAMAGES["vector_null"].plant(db, built)
        DAMAGES["embedding_of_lost_invocation"].plant(db, built)
        db.execute(
            "UPDATE persistencediagram SET diagram_data = x'00' WHERE id = ?", (built.diagram("NomicVision", 1),)
        )
    return page(built.path)


@pytest.fixture(scope="module")
def fixed_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One diagram computed anew where another had been."""
    built = build(tmp_path_factory.mktemp("fixed") / "x.sqlite")
    with built.open() as db:
        db.execute(
            "UPDATE persistencediagram SET diagram_data = (SELECT diagram_data FROM persistencediagram WHERE id = ?) "
            "WHERE id = ?",
            (built.diagram("NomicVision", 1), built.diagram()),
        )
    return page(built.path, fix=True)


@pytest.fixture(scope="module")
def elixir_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo of the Elixir generation, whose Lyapunov results are drawn."""
    return page(build_demo(tmp_path_factory.mktemp("elixir") / "demo", generation="elixir"))


@pytest.fixture(scope="module")
def large_page(large_report: tuple[Path, Results]) -> Path:
    return large_report[0]


Opens = Callable[..., WebDriver]


@pytest.fixture
def opened(browser: WebDriver) -> Iterator[Opens]:
    """Open a page at a width and in a colour scheme; at the end the console must have stayed empty."""

    def show(path: Path, width: int = 1280, scheme: str = "light") -> WebDriver:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get(path.as_uri())
        until(browser, "return document.documentElement.dataset.ready === 'yes'")
        return browser

    console(browser)
    yield show
    assert console(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)") == []


def console(browser: WebDriver) -> list[dict[str, object]]:
    """What the console got since the last look."""
    entries: list[dict[str, object]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


def until(browser: WebDriver, script: str) -> Any:
    return WebDriverWait(browser, PATIENCE, 0.05).until(lambda it: it.execute_script(script))


def one(browser: WebDriver, css: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, css)


def texts(browser: WebDriver, css: str) -> list[str]:
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, css)]


def contents(browser: WebDriver, css: str) -> list[str]:
    """Texts as they are in the page, also where they are cut or out of sight."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", css
    )
    return found


def shown_rules(browser: WebDriver) -> list[str]:
    return texts(browser, "#rule-rows .opens")


def click(browser: WebDriver, element: WebElement) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_renders(opened: Opens, sick_page: Path, width: int, scheme: str) -> None:
    browser = opened(sick_page, width, scheme)
    assert len(shown_rules(browser)) == RULES
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 4
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(247, 247, 245)", "dark": "rgb(18, 20, 23)"}[scheme]


def test_the_scheme_is_changed_by_its_button(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(colour)
    one(browser, "#scheme").click()
    dark = browser.execute_script(colour)
    assert dark != light
    assert one(browser, "#scheme").text == "Light"
    one(browser, "#scheme").click()
    assert browser.execute_script(colour) == light


def test_hostile_texts_are_shown_as_text(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    assert browser.title.startswith("x.sqlite")
    assert browser.execute_script("return document.images.length") == 0
    for name in shown_rules(browser):
        click(browser, one(browser, f"#rule-{name} .opens"))
    assert HOSTILE in browser.execute_script("return document.getElementById('about-invocation-model').textContent")
    assert any(HOSTILE in name for name in contents(browser, ".card-name"))
    assert any(HOSTILE in name for name in contents(browser, "#map-rows th b"))
    click(browser, one(browser, ".card"))
    assert browser.execute_script("return document.images.length") == 0
    assert browser.title.startswith("x.sqlite")


@pytest.fixture(scope="module")
def two_runs_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an apple and of a pear, both in one experiment; the pear lacks an invocation and a vector."""
    built = build(tmp_path_factory.mktemp("two") / "x.sqlite")
    with built.open() as db:
        db.execute("DELETE FROM embedding WHERE invocation_id = ?", (built.invocation(5, run=1),))
        db.execute("UPDATE embedding SET vector = NULL WHERE id = ?", (built.embedding(7, run=1),))
        db.execute("UPDATE invocation SET seed = 9 WHERE id = ?", (built.invocation(2),))
    return page(built.path)


def test_a_run_is_found_by_its_prompt_in_every_table(opened: Opens, two_runs_page: Path) -> None:
    """The prompts of an experiment's second run find no finding about its first one, whose prompt names it."""
    browser = opened(two_runs_page)
    for search in browser.find_elements(By.CSS_SELECTOR, "#rules input, #map input[type=search], #diagrams input"):
        search.send_keys("a pear")
    until(browser, "return document.getElementById('map-count').textContent === '1 of 2 runs'")
    until(browser, "return document.getElementById('gallery-count').textContent === '2 of 4 diagrams'")
    until(browser, "return document.getElementById('rule-count').textContent !== ''")
    names = "[...document.querySelectorAll('#rule-rows .opens')].map((each) => each.textContent)"
    found = until(browser, f"return {names}.length < 20 && {names}")
    assert {"embedding-missing", "embedding-vector"} <= set(found)
    assert "invocation-seed" not in found
    assert contents(browser, "#map-rows th b") == ["a pear"]


def test_a_sick_rule_has_what_was_found_beside_its_name(opened: Opens, two_runs_page: Path) -> None:
    browser = opened(two_runs_page)
    assert texts(browser, "#rule-embedding-vector .sentence") == ["[Nomic] 1 of 11 vectors is unusable: 1 NULL"]
    click(browser, one(browser, "#rule-embedding-vector .opens"))
    facts = texts(browser, "#about-embedding-vector .facts dd")
    assert facts[0].startswith("every vector is there")
    assert texts(browser, "#about-embedding-vector .item .badge") == ["×\nfailed"]


def test_the_timeline_of_a_run_shows_its_defects_in_their_places(opened: Opens, two_runs_page: Path) -> None:
    browser = opened(two_runs_page)
    open_run = "document.querySelectorAll('#map-rows .run-name')[arguments[0]].click()"
    browser.execute_script(open_run, 1)
    label = until(browser, "return document.querySelector('#detail .timeline svg')?.getAttribute('aria-label')")
    assert "Timeline of 12 invocations: " in label
    assert "embedding-missing [Nomic] at 5" in label
    assert "embedding-vector [Nomic] at 7" in label
    assert "invocation-seed" not in label
    assert one(browser, "#detail-title").text == "a pear: FluxDev → Moondream"
    assert browser.execute_script("return document.querySelector('#detail').scrollWidth <= innerWidth")
    one(browser, "#detail .close").click()
    browser.execute_script(open_run, 0)
    until(browser, "return document.getElementById('detail-title').textContent.startsWith('an apple')")
    assert "invocation-seed at 2" in (one(browser, "#detail .timeline svg").get_attribute("aria-label") or "")


def test_rules_are_sorted_worst_first_and_by_any_column(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    words = [text.split()[-1] for text in texts(browser, "#rule-rows .badge")]
    assert words == sorted(words, key=["sick", "fixed", "examined", "healthy"].index)
    heads = browser.find_elements(By.CSS_SELECTOR, "table.rules thead button")
    heads[1].click()
    assert shown_rules(browser) == sorted(shown_rules(browser))
    heads = browser.find_elements(By.CSS_SELECTOR, "table.rules thead button")
    heads[1].click()
    assert shown_rules(browser) == sorted(shown_rules(browser), reverse=True)
    assert one(browser, "table.rules th.name").get_attribute("aria-sort") == "descending"
    heads[3].click()
    rows = [int(text) for text in texts(browser, "#rule-rows .rule td:nth-of-type(3)") if text != "–"]
    assert rows == sorted(rows, reverse=True)
    assert len(rows) >= 3


def test_rules_are_filtered_by_verdict(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    one(browser, ".chips [data-verdict=sick]").click()
    sick = shown_rules(browser)
    assert {"orphan-embedding", "embedding-vector", "diagram-valid"} <= set(sick)
    assert {text.split()[-1] for text in texts(browser, "#rule-rows .badge")} == {"sick"}
    assert one(browser, "#rule-count").text == f"{len(sick)} of {RULES} rules"
    one(browser, ".chips [data-verdict=healthy]").click()
    assert len(shown_rules(browser)) > len(sick)
    for word in ("sick", "healthy"):
        one(browser, f".chips [data-verdict={word}]").click()
    assert len(shown_rules(browser)) == RULES
    click(browser, one(browser, ".tile.sick"))
    assert shown_rules(browser) == sick


def test_rules_are_filtered_by_text_of_their_findings(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    search = one(browser, "#rule-filter")
    search.send_keys("File is not a ZIP")
    until(browser, "return document.querySelectorAll('#rule-rows .rule').length === 1")
    assert shown_rules(browser) == ["diagram-valid"]
    search.clear()
    search.send_keys("06b05171-0004-7000-8000-000000000003")
    until(browser, "return document.querySelectorAll('#rule-rows .rule').length === 0")
    search.clear()
    search.send_keys("06b05171000470008000000000000003")
    until(browser, "return document.querySelectorAll('#rule-rows .rule').length === 1")
    assert shown_rules(browser) == ["embedding-vector"]


def test_a_rule_opens_its_findings_with_the_keyboard(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    one(browser, "#rule-embedding-vector .opens").send_keys(Keys.ENTER)
    about = one(browser, "#about-embedding-vector")
    assert "1 of 12 vectors is unusable: 1 NULL" in about.text
    # The ids of a finding are put into the page when its rows are opened.
    until(
        browser, "return document.getElementById('about-embedding-vector').textContent.includes('06b051710004700080')"
    )
    assert "06b05171000470008000000000000003" in about.text
    assert "experiment 06b05171-0001-7000-8000-000000000000" in about.text
    assert "embedding: 1 row" in about.text
    assert browser.switch_to.active_element.text == "embedding-vector"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert not browser.find_elements(By.CSS_SELECTOR, "#about-embedding-vector")


def test_the_map_shows_which_run_is_sick(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    columns = texts(browser, "#map-heads th:not(.gutter)")[1:]
    column = columns.index("embedding-vector")
    cells = browser.find_elements(By.CSS_SELECTOR, f"#map-rows [data-column='{column}']")
    assert [cell.get_attribute("aria-label") for cell in cells] == [
        "embedding-vector: sick",
        "embedding-vector: sick in other runs",
    ]
    cell = cells[0]
    click(browser, cell)
    assert one(browser, "#detail").get_attribute("open") is not None
    assert "1 of 12 vectors is unusable" in one(browser, "#detail").text
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert one(browser, "#detail").get_attribute("open") is None


def test_the_map_is_walked_with_the_keyboard(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    first = one(browser, "#map-rows [tabindex='0']")
    browser.execute_script("arguments[0].focus()", first)
    last = len(texts(browser, "#map-heads th:not(.gutter)")[1:]) - 1
    for key, row, column in (
        (Keys.ARROW_RIGHT, 1, 1),
        (Keys.ARROW_DOWN, 2, 1),
        (Keys.ARROW_DOWN, 2, 1),
        (Keys.END, 2, last),
        (Keys.HOME, 2, 0),
        (Keys.ARROW_UP, 1, 0),
    ):
        browser.switch_to.active_element.send_keys(key)
        data = browser.execute_script("return {...document.activeElement.dataset}")
        assert (int(data["row"]), int(data["column"])) == (row, column)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert one(browser, "#detail h2").text == "experiment-config"


def test_a_diagram_opens_large(opened: Opens, sick_page: Path) -> None:
    browser = opened(sick_page)
    healthy = one(browser, ".card.healthy")
    click(browser, healthy)
    captions = texts(browser, "#detail figcaption")
    assert [caption.split()[0] for caption in captions] == ["H0", "H1", "H2"]
    assert captions[0].startswith("H0 6 bars, 1 essential entropy")
    labels = [each.get_attribute("aria-label") or "" for each in browser.find_elements(By.CSS_SELECTOR, "#detail svg")]
    assert "Birth-death plot of H0: 6 bars, 1 essential" in labels
    assert "Barcode of H0: 6 bars, 1 essential" in labels


def test_a_repaired_diagram_shows_before_and_after(opened: Opens, fixed_page: Path) -> None:
    browser = opened(fixed_page)
    click(browser, one(browser, ".card.fixed"))
    assert "before: hollow, grey" in one(browser, "#detail .before-after").text
    labels = [each.get_attribute("aria-label") or "" for each in browser.find_elements(By.CSS_SELECTOR, "#detail svg")]
    assert sum(label.startswith("Barcode of H0") for label in labels) == 2
    assert "6 points" in one(browser, "#detail").text
    assert contents(browser, "#costs .legend li") == ["●computed in this session"]
    assert len(browser.find_elements(By.CSS_SELECTOR, "#costs .charts > *")) == 2


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_lyapunov_curves_are_drawn_with_their_fit(opened: Opens, elixir_page: Path, width: int, scheme: str) -> None:
    browser = opened(elixir_page, width, scheme)
    browser.execute_script("document.getElementById('lyapunov').scrollIntoView()")
    until(browser, "return document.querySelectorAll('#lyapunov .thumbnail svg').length === 6")
    labels = [svg.get_attribute("aria-label") or "" for svg in browser.find_elements(By.CSS_SELECTOR, "#lyapunov svg")]
    assert all(re.fullmatch(r"Divergence over \d0 steps: exponent -?0\.0\d+ · R² 0\.\d\d", label) for label in labels)
    dashed = "return document.querySelectorAll(`${arguments[0]} svg [stroke-dasharray='5,4'] path`).length"
    assert browser.execute_script(dashed, "#lyapunov") == 6
    assert contents(browser, "#lyapunov .nothing")[0].startswith("it is damaged")
    click(browser, browser.find_elements(By.CSS_SELECTOR, "#lyapunov .card.sick")[1])
    assert "is stale: 1 of 20 distances of its curve differ" in one(browser, "#detail").text
    assert "1 pair of runs · 20 steps" in one(browser, "#detail").text
    assert browser.execute_script(dashed, "#detail") == 1
    assert "mean distance, log scale" in one(browser, "#detail svg").text
    assert len(contents(browser, "#detail tbody tr")) == 20
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_thousands_of_runs_are_a_few_elements(opened: Opens, large_page: Path) -> None:
    browser = opened(large_page)
    count = "return document.querySelectorAll('#map-rows tr').length"
    assert browser.execute_script(count) < 100
    assert one(browser, "#map-count").text == "3,220 runs"
    assert one(browser, "#overview").is_displayed()
    browser.execute_script("const map = document.getElementById('map-scroller'); map.scrollTop = map.scrollHeight")
    until(
        browser, "return [...document.querySelectorAll('#map-rows th')].at(-1)?.textContent.includes('variation 160')"
    )
    assert browser.execute_script(count) < 100
    one(browser, "#damaged").click()
    shown, of = one(browser, "#map-count").text.split(" of ")
    assert of == "3,220 runs"
    assert 2_000 < int(shown.replace(",", "")) < 3_220
    assert one(browser, "#gallery-count").text == "3,220 diagrams"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 24
    click(browser, one(browser, "#gallery-more"))
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 72


def test_the_overview_shows_one_sick_run_of_thousands(opened: Opens, tmp_path: Path) -> None:
    examination, results = one_sick_run(tmp_path)
    write_html(tmp_path / "one.html", examination, results)
    browser = opened(tmp_path / "one.html")
    heights = browser.execute_script(SICK_ROWS)
    assert 1 <= len(heights) <= 3
    place = heights[0] / browser.execute_script("return document.getElementById('overview').height")
    assert place == pytest.approx(2_000 / 3_220, abs=0.01)
    browser.execute_script("document.getElementById('overview').scrollIntoView({block: 'center'})")
    one(browser, "#overview").click()
    until(browser, "return document.getElementById('map-scroller').scrollTop > 10000")
    one(browser, "#damaged").click()
    assert one(browser, "#map-count").text == "1 of 3,220 runs"
    assert contents(browser, "#map-rows .sick") == ["×"]


def test_on_paper_every_picture_is_drawn(opened: Opens, large_page: Path) -> None:
    browser = opened(large_page)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.querySelectorAll('.thumbnail:empty').length") == 0
    assert browser.execute_script("return document.querySelectorAll('#map-rows tr').length") >= 300
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('#map-rows tr').length") < 100


def test_the_page_reads_the_bars_that_were_written(browser: WebDriver, tmp_path: Path) -> None:
    """Within half a step of the grid, and in order, whatever the numbers of bars are."""
    generator = np.random.default_rng(11)
    sizes = [(1, 0, 0), (2, 1, 3), (700, 300, 200), (5, 0, 1), (1, 1, 1)]
    diagrams = [some_diagram(generator, size) for size in sizes]
    plain, data = block([drawn("now", "x", Payload(each, None, None, None)) for each in diagrams], None)
    source = files("pytest_panic_doctor.report.html").joinpath("script/data.js").read_text(encoding="utf-8")
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><title>blank</title>")
    browser.get(blank.as_uri())
    found = browser.execute_script(
        source + f"; report.bars = Uint8Array.from({json.dumps(list(data))}); const shots = {json.dumps(plain)};"
        "for (const shot of shots) shot.dims = shot.dims.map((dim, place) => dimensionOf(shot, place, dim));"
        "return shots.map((shot) => shot.dims.map((dim) => barsOf(dim).map((bar) => [bar.birth, bar.death])))"
    )
    for diagram, dimensions in zip(diagrams, found, strict=True):
        for bars, read in zip(diagram.bars, dimensions, strict=True):
            bars = bars[np.isfinite(bars[:, 1])].astype(float)
            step = (bars.max() - bars.min()) / STEPS if len(bars) else 0.0
            assert len(read) == len(bars)
            ours, theirs = (np.array(sorted(map(tuple, each))).reshape(-1, 2) for each in (bars.tolist(), read))
            assert np.abs(np.sort(ours[:, 0]) - np.sort(theirs[:, 0])).max(initial=0) <= step + 1e-4
            assert np.abs(np.sort(ours[:, 1]) - np.sort(theirs[:, 1])).max(initial=0) <= step + 1e-4
            lengths = [np.sort(each[:, 1] - each[:, 0]) for each in (ours, theirs)]
            assert np.abs(lengths[0] - lengths[1]).max(initial=0) <= step + 1e-4
