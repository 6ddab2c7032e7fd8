"""The README's pictures, taken of a real run in headless Chromium: `make tour`."""

import argparse
import base64
import contextlib
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_COLORS = 96  # a palette of so many makes a picture a third as large
_WIDTH, _HEIGHT, _TALL = 1280, 800, 950
_TERMINAL = 96  # columns
_SEARCH = ("--recipe", "smoke", "--trials", "12", "--workers", "2")
_SECONDS = 300  # to wait for any one thing
_TERMINAL_PAGE = """<meta charset="utf-8"><body style="margin: 0"><pre style="display: inline-block; margin: 0;
padding: 18px 22px; font: 15px/1.45 monospace; color: {foreground}; background: {background}">{code}</pre>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished run with a search")
    parser.add_argument("output", type=Path, help="where the pictures go")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with browser() as driver:
        report(driver, options.run / "report.html", options.output / "report.png")
        tensorboard(driver, options.run, options.output / "tensorboard.png")
        search(driver, options.output / "search.png")


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium of this system, which keeps what it is told on its console and what it asks the network."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # The browser's driver is on this machine.
    options.ignore_local_proxy_environment_variables()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as driver:
        yield driver


def photograph(driver: webdriver.Chrome, path: Path, width: int = _WIDTH, height: int = _HEIGHT) -> None:
    """Save the upper left `width` x `height` pixels of the page."""
    area = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": area, "captureBeyondViewport": True})
    picture = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    picture.quantize(_COLORS, Image.Quantize.MEDIANCUT).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def report(driver: webdriver.Chrome, page: Path, path: Path) -> None:
    """Take a picture of the head of the page and the search."""
    resize(driver, _WIDTH, _HEIGHT)
    driver.get(page.resolve().as_uri())
    # Between the verdict and the search there is more than a picture holds.
    driver.execute_script("document.getElementById('figures').hidden = true")
    end = driver.execute_script("return document.querySelector('#search .columns').getBoundingClientRect().top")
    photograph(driver, path, height=round(end) - 20)


def tensorboard(driver: webdriver.Chrome, run: Path, path: Path) -> None:
    """Take a picture of the pictures and curves of the final training."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={run / 'tb'}", "--port=0", "--host=localhost"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://localhost:\d+/", line)))
            resize(driver, _WIDTH, _TALL)
            driver.get(f"{address}?runFilter=final&tagFilter=curves/(accuracy|loss)|pictures/#timeseries")
            shown = "return document.querySelectorAll('image-card img, scalar-card').length"
            WebDriverWait(driver, _SECONDS).until(lambda _: driver.execute_script(shown) >= 4)
            driver.execute_script("document.querySelector('.settings-button').click()")
            # The curves are drawn by and by.
            before = b""
            while before != (now := driver.get_screenshot_as_png()):
                before = now
                time.sleep(3)
            photograph(driver, path, height=_TALL)
        finally:
            server.terminate()


def search(driver: webdriver.Chrome, path: Path) -> None:
    """Take a picture of the live table of a search that is half done, below the last lines of its log."""
    console = Console(record=True, width=_TERMINAL, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(half_a_search()))
    html = console.export_html(theme=MONOKAI, inline_styles=True, code_format=_TERMINAL_PAGE)
    driver.get(f"data:text/html;charset=utf-8;base64,{base64.b64encode(html.encode()).decode()}")
    width, height = driver.execute_script(
        "const pre = document.body.firstChild; return [pre.offsetWidth, pre.offsetHeight]"
    )
    photograph(driver, path, width, height)


def half_a_search() -> str:
    """Return what `fmnist tune` shows on a terminal in the middle of a real search."""
    environment = {**os.environ, "COLUMNS": str(_TERMINAL), "TERM": "xterm-256color"}
    fmnist = [sys.executable, "-m", "fmnist", "tune"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        run = Path(folder) / "run"
        with subprocess.Popen([*fmnist, *_SEARCH, "--run", run], stderr=log, env=environment) as process:
            end = time.monotonic() + _SECONDS
            table = ""
            while not re.search(r"searching: [6-9] of", table) and time.monotonic() < end and process.poll() is None:
                table = on_terminal([*fmnist, "--status", run], environment)
            log.seek(0)
            lines = log.readlines()[-6:]
            process.terminate()
        return "".join([*lines, "\n", table]).rstrip()


def on_terminal(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    """Return what the command prints where its stdout is a terminal."""
    ours, theirs = pty.openpty()
    options: dict[str, Any] = {"stdout": theirs, "stderr": subprocess.DEVNULL, "env": environment}
    with open(ours, "rb", buffering=0) as terminal, subprocess.Popen(command, **options):
        os.close(theirs)
        shown = b""
        # An error says that the other end is closed.
        with contextlib.suppress(OSError):
            while part := terminal.read(65536):
                shown += part
    return shown.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main()
