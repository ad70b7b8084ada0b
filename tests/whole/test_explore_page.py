"""The page to explore in a browser: it draws, offline and within its policy, and a cell that is clicked shows its window."""

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from mech_pipeline.reports.explore.page import explore_page
from mech_pipeline.reports.subject import Study
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.live import CHROMIUM
from tests.support.report_store import demo_experiment, write_attribution, write_runs

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine: apt-get install chromium"),
]


def test_the_page_draws_and_a_cell_shows_its_window(tmp_path: Path) -> None:
    store, experiment = Store(tmp_path / "store"), demo_experiment()
    write_runs(store)
    write_attribution(store)
    with connect(store.root) as opened:
        page = explore_page(Study(opened, experiment, tuple(experiment.runs())))
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        said, asked = list[str](), list[str]()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_selector("body.drawn", timeout=120_000)
        assert tab.locator("#step").input_value() == "30", "the window with the largest change"
        tab.locator('#training path[aria-label*="step: 10;"]').last.click()
        assert tab.locator("#step").input_value() == "10"
        assert tab.locator("#examples article").count() == 2
        assert "module_0.py, line 7" in tab.locator("#examples").inner_text()
        tab.locator("#step").press("ArrowDown")
        assert "module_2.py" in tab.locator("#examples").inner_text(), "by keyboard too"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == []
        assert asked == [file.as_uri()]
        browser.close()
