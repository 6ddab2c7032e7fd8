"""The pages in a real browser: they look after themselves, on a phone and on a desk, by day and by night."""

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import make_run
from selenium import webdriver
from selenium.webdriver.common.by import By

from fmnist.report import one as report
from fmnist.report import several as report_several
from tools.tour import browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", name="browser")
def browser_() -> Iterator[webdriver.Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run with a long search, and a page of two recipes by three seeds."""
    folder = tmp_path_factory.mktemp("pages")
    searched = make_run(folder / "searched")
    with searched.trials.open(newline="") as file:
        header, *trials = csv.reader(file)
    with searched.trials.open("w", newline="") as file:
        many = [[str(n), *trials[n % 5][1:-1], str(1e-4 * 1.1**n)] for n in range(60)]
        csv.writer(file).writerows([header, *many])
    runs = [
        make_run(folder / f"{name}-seed{seed}", search=False, name=name, seed=seed, margin=margin)
        for name, margin in (("a-recipe-of-a-rather-long-name", 3.0), ("plain", 2.0))
        for seed in range(3)
    ]
    return {"run": report.write(searched), "comparison": report_several.write(runs)}


def log(browser: webdriver.Chrome, name: str) -> list[dict[str, str]]:
    """What was written since this was asked before."""
    entries: list[dict[str, str]] = browser.get_log(name)  # type: ignore[no-untyped-call]
    return entries


def visit(browser: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for name in ("browser", "performance"):
        log(browser, name)
    browser.get(page.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_page_is_sound(browser: webdriver.Chrome, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    visit(browser, pages[name], width, scheme)
    assert log(browser, "browser") == []
    events = (json.loads(entry["message"])["message"] for entry in log(browser, "performance"))
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {pages[name].as_uri()}
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    # What is wider than the screen scrolls within its own place.
    wider = """
        return [...document.querySelectorAll("body *")].filter(element =>
            element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll"))
            .map(element => element.outerHTML.slice(0, 80));"""
    assert browser.execute_script(wider) == []
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert all(browser.execute_script("return [...document.images].map(image => image.naturalWidth === 28)"))


def test_nothing_of_a_comparison_of_four_recipes_has_to_be_scrolled_on_a_phone(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    names = ["baseline-mlp", "regularized-mlp", "a-recipe-of-a-rather-long-name-that-breaks", "quick-mlp"]
    runs = [make_run(tmp_path / f"{name}-seed0", search=False, name=name, seed=n) for n, name in enumerate(names)]
    visit(browser, report_several.write(runs), 390, "light")
    cut = """
        return [...document.querySelectorAll("body *")].filter(element => element.scrollWidth > element.clientWidth + 1
            && element.clientWidth && getComputedStyle(element).overflowX !== "visible")
            .map(element => element.outerHTML.slice(0, 80));"""
    assert browser.execute_script(cut) == []


def test_a_click_on_a_head_sorts_the_trials(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["run"], 1400, "light")

    buttons = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "table.sortable button")}

    def column(name: str) -> list[str]:
        place = 1 + list(buttons).index(name)
        cells = browser.find_elements(By.CSS_SELECTOR, f"table.sortable tbody tr > :nth-child({place})")
        return [cell.text for cell in cells]

    buttons["score"].click()
    scores = column("score")
    known = [float(score) for score in scores if score]
    assert known == sorted(known)
    assert scores[len(known) :] == [""] * (60 - len(known))
    buttons["learning_rate"].click()
    buttons["learning_rate"].click()
    rates = [float(rate) for rate in column("learning_rate")]
    assert rates == sorted(rates, reverse=True)
    assert log(browser, "browser") == []


def test_a_script_from_elsewhere_does_not_run(
    browser: webdriver.Chrome, pages: dict[str, Path], tmp_path: Path
) -> None:
    """Even if something were not escaped."""
    page = tmp_path / "page.html"
    page.write_text(pages["run"].read_text().replace("</body>", "<script>document.title = 'taken'</script></body>"))
    visit(browser, page, 1400, "light")
    assert browser.title == "tuned-mlp, seed 7"


def test_a_page_prints_on_paper(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["run"], 1400, "light")
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert printed.startswith(b"%PDF")
