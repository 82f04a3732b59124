"""The page in a real browser, for tests, screenshots and benchmarks: a server of its own, and headless Chromium."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).parent.parent
INSTALL = "install Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
# Whether the page was drawn again since: a view that looks like the one before cannot be told from it otherwise.
_WATCH_RUNS = """window.drawnAgain = false;
new MutationObserver(() => { window.drawnAgain = true }).observe(
    document.querySelector("[data-testid=stApp]"), {attributeFilter: ["data-test-script-state"]})"""
# What the page does reaches the server so many milliseconds later.
_SLOW_NETWORK = """const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) { setTimeout(() => send.call(this, data), %d) }"""
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",  # a camera that shows a test picture, and nobody has to allow it
    "--use-fake-device-for-media-stream",
]


def chromium() -> tuple[str, str] | None:
    """The browser and its driver, where they are installed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Server(NamedTuple):
    """A page that is being served."""

    address: str
    pid: int

    def memory(self) -> int:
        """What its process holds, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


class Picture(NamedTuple):
    """A picture in the list of *Many pictures*."""

    path: str
    caption: str
    state: str
    focused: bool
    trouble: str


@contextmanager
def server(*arguments: str) -> Iterator[Server]:
    """Serve the page of this clone."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port)]
    command += ["--server.headless", "true", *arguments]
    # Not in the clone: the settings beside app.py have to be found from anywhere.
    # Its output goes to a file: a pipe that nobody reads fills up, and the server hangs in its next line, "Stopping".
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=Path.home(), stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("localhost", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                output.seek(0)
                raise RuntimeError(f"the page's server did not start: {output.read()}")
            yield Server(f"http://localhost:{port}", process.pid)
        finally:
            process.terminate()
            process.wait(20)


class Visitor:
    """A person at the page: what they see and do. One browser window of its own.

    `latency` are the seconds by which what they do reaches the server later, as on a slow network or a busy machine.
    """

    def __init__(
        self,
        address: str,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        language: str = "en-GB",
        latency: float = 0.0,
    ):
        found = chromium()
        if found is None:
            raise RuntimeError(INSTALL)
        options = webdriver.ChromeOptions()
        for flag in (*_FLAGS, f"--window-size={width},{height}", f"--lang={language}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        if width < 600:  # a phone: a window cannot be that narrow
            metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": True}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        options.binary_location = found[0]
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
        self.driver.set_page_load_timeout(60)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        if latency:
            slow = {"source": _SLOW_NETWORK % (1000 * latency)}
            self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", slow)
        self.address = address

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def open(self, view: str = "") -> None:
        """Go to a view by its address, as a new visitor."""
        if self.driver.current_url.startswith(self.address):
            self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(f"{self.address}/{view}")
        self.wait(lambda: self.all("h1"))

    def all(self, selector: str) -> list[WebElement]:
        """What is there now, by CSS."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of what is there now."""
        found: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", selector
        )
        return found

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Until something is the case and the page has come to rest."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._resting() and condition():
                    return
            except Exception as error:  # elements are replaced while the page is drawn
                if type(error).__name__ not in ("StaleElementReferenceException", "JavascriptException"):
                    raise
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s; the page says: {' '.join(self.texts('[data-testid=stMain]'))}")

    def _resting(self) -> bool:
        app = self.all("[data-testid=stApp]")
        return bool(app) and app[0].get_attribute("data-test-script-state") == "notRunning"

    def captions(self) -> list[str]:
        """The captions on the page."""
        return self.texts("[data-testid=stCode] code")

    def upload(self, *files: Path) -> None:
        """Choose files in the page's box for them."""
        self.wait(lambda: self.all("[data-testid=stFileUploader], [data-testid=stPopoverButton]"))
        if not self.all("input[type=file]"):
            self.all("[data-testid=stPopoverButton]")[0].click()
            self.wait(lambda: self.all("input[type=file]"))
        self.all("input[type=file]")[0].send_keys("\n".join(map(str, files)))

    def click(self, text: str) -> None:
        """Click the button or link with this text, and wait until the page was drawn again, if the click does that."""

        def there() -> list[WebElement]:
            # An icon is a letter of a font, on a line of its own before the text.
            return [element for element in self.all("a, button") if element.text.strip().split("\n")[-1] == text]

        self.wait(there)
        self.driver.execute_script(_WATCH_RUNS)
        element = there()[-1]
        patience = 20 if element.tag_name == "a" else 2  # a link leads to another view, a button may only open a box
        element.click()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not self.driver.execute_script("return window.drawnAgain"):
            time.sleep(0.02)

    def words(self) -> list[WebElement]:
        """The buttons of a caption's words, which stand in a shadow tree."""
        buttons: list[WebElement] = self.driver.execute_script(
            """for (const host of document.querySelectorAll("*")) {
                 const row = host.shadowRoot && host.shadowRoot.querySelector("[role=group] button");
                 if (row) return [...row.parentElement.children];
               }
               return []"""
        )
        return buttons

    def pictures(self) -> list[Picture]:
        """The pictures whose captions can be corrected, which stand in a shadow tree."""
        cards = self.driver.execute_script(
            """for (const host of document.querySelectorAll("*")) {
                 const list = host.shadowRoot && host.shadowRoot.querySelector(".work .list");
                 if (list) return [...list.children].map(row => [row.path, row.querySelector(".caption").textContent,
                   row.querySelector(".state").textContent, row.firstChild === host.shadowRoot.activeElement,
                   row.querySelector(".trouble").textContent]);
               }
               return []"""
        )
        return [Picture(*card) for card in cards]

    def part(self, selector: str) -> WebElement:
        """An element of the list of pictures whose captions can be corrected, by CSS. It must be there."""
        found: WebElement | None = self.driver.execute_script(
            """for (const host of document.querySelectorAll("*")) {
                 const work = host.shadowRoot && host.shadowRoot.querySelector(".work");
                 if (work) return work.querySelector(arguments[0]);
               }""",
            selector,
        )
        assert found is not None, selector
        return found

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def screenshot(self, file: Path) -> None:
        """The whole page, however long."""
        self.wait(lambda: True)
        time.sleep(0.7)  # fonts, images, and what fades in
        page = "document.querySelector('[data-testid=stMain]').scrollHeight"
        size = self.driver.execute_script(f"return [innerWidth, {page}]")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(0.3)
        self.driver.save_screenshot(str(file))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
