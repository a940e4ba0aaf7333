"""The page, in a browser: a user's history and list, lambda, a click; nothing from elsewhere; small and dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.data.small_sets import RATINGS
from tests.serve.browser import PROGRAM, Browser
from tests.serve.conftest import USERS
from unigrf_dist.serve import Recommender

pytest.importorskip("uvicorn", reason="needs the extra serve")
import uvicorn

from unigrf_dist.serve.server.app import Limits, make_app
from unigrf_dist.serve.server.versions import Versions

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
ROWS = "[...document.querySelectorAll('#list button')].map(b => b.dataset.item)"


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    app = make_app(Versions(runs / "old", kept_bytes=1 << 20), Limits())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_a_user_is_looked_at_by_keyboard_and_click(
    address: str, browser: Browser, runs: Path, tmp_path: Path
) -> None:
    size = {"deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", width=1180, height=900, **size)
    browser.send("Page.navigate", url=f"{address}/#user=104")
    browser.until("document.querySelectorAll('#list li').length === 20")
    fresh = Recommender(runs / "old")
    history = [(10 * item, RATINGS[code], time) for item, code, time in USERS[4]]
    expected = fresh.recommend(history=history, k=20, blend={})
    assert browser.run(ROWS) == [str(entry.item) for entry in expected]
    assert browser.run("document.querySelectorAll('#timeline li').length") == len(USERS[4])
    words = browser.run("document.getElementById('list').textContent")
    assert all((f"Film {entry.item}item" in words) == (entry.item % 20 == 0) for entry in expected)
    assert "12 events" in browser.run("document.getElementById('length').textContent")
    browser.photograph(tmp_path / "wide.png")

    # The arrow key moves lambda, and the order is that of the recommender.
    browser.run("document.getElementById('lambda-0').focus()")
    for _ in range(10):
        browser.press("ArrowRight", 39)
    blend = {"rating >= 4": 0.5}
    assert browser.run("document.querySelector('.lambda output').textContent") == "0.50"
    moved = [str(entry.item) for entry in fresh.recommend(history=history, k=20, blend=blend)]
    assert browser.run(ROWS) == moved
    assert moved != [str(entry.item) for entry in expected]

    # Enter on the best item appends it, and the next list is one of the longer history.
    browser.run("document.querySelector('#list button').focus()")
    browser.press("Enter", 13, "\r")
    browser.until("document.getElementById('status').textContent.startsWith('appended')")
    longer = [*history, (int(moved[0]), RATINGS[4], USERS[4][-1][2] + 60)]
    assert browser.run(ROWS) == [str(entry.item) for entry in fresh.recommend(history=longer, k=20, blend=blend)]
    assert moved[0] in browser.run("document.querySelector('#timeline li.new').textContent")

    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.photograph(tmp_path / "dark.png")
    browser.send("Emulation.setDeviceMetricsOverride", width=390, height=900, **size)
    browser.photograph(tmp_path / "narrow.png")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    light, dark = (Image.open(tmp_path / f"{name}.png").convert("L") for name in ("wide", "dark"))
    assert light.getpixel((5, 600)) > 200 > 60 > dark.getpixel((5, 600))
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"
    ]
    assert asked
    assert [url for url in asked if not url.startswith(address)] == []
    errors = [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert [e for e in errors if "favicon" not in str(e)] == []
