"""A real JupyterLab and a real Chromium, for tests that look at lessons as a learner does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

HOW_TO_GET_CHROMIUM = (
    "no Chromium found: install your system's package (Debian: apt-get install chromium) "
    "to run the browser tests"
)
CHROMIUM_FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with it
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Without these, outputs below the fold are not in the page, and a question about news is.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
TOKEN = "browser-tests"


def find_chromium() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it is, and the folder it shows."""

    url: str
    folder: Path
    log: Path

    def open_url(self, notebook: str) -> str:
        """The notebook in a workspace of its own, so that no other is open beside it."""
        workspace = Path(notebook).stem
        return f"{self.url}/lab/workspaces/{workspace}/tree/{notebook}?token={TOKEN}"

    def api(self, path: str):
        """The server's answer to GET /api/`path`, decoded."""
        with urllib.request.urlopen(f"{self.url}/api/{path}?token={TOKEN}", timeout=10) as answer:
            return json.load(answer)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running_lab(folder: Path, private: Path) -> Iterator[Lab]:
    """JupyterLab showing `folder`, with its configuration in `private` and nobody else's.

    Raises RuntimeError with the server's log if it does not start.
    """
    for name, values in SETTINGS.items():
        file = private / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        "IPYTHONDIR": str(private / "ipython"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_WAIT_POLICY": "PASSIVE",  # as the Makefile sets it: threads that wait give way
    }
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    lab = Lab(f"http://127.0.0.1:{port}", folder, private / "lab.log")
    with open(lab.log, "wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    try:
        wait_until_serving(lab, server)
        yield lab
    finally:
        server.terminate()  # ends its kernels too
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_serving(lab: Lab, server: subprocess.Popen, seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and server.poll() is None:
        try:
            lab.api("status")
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("JupyterLab did not start:\n" + lab.log.read_text(errors="replace")[-3000:])


# ---------------------------------------------------------------- what a learner does


def off_site(lab: Lab, urls: list[str]) -> list[str]:
    """Those of the requested addresses that are not on this machine."""
    ours = urlsplit(lab.url).netloc
    return [url for url in urls if url.startswith(("http", "ws")) and urlsplit(url).netloc != ours]


def open_notebook(page, lab: Lab, notebook: str, seconds: float = 60) -> None:
    """Open `notebook` (a file name in lab.folder) and wait until its kernel can take work."""
    page.goto(lab.open_url(notebook))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=seconds * 1000)
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        kernels = [s["kernel"] for s in lab.api("sessions") if s["path"] == notebook]
        if any(k and k["execution_state"] == "idle" and k["connections"] for k in kernels):
            return
        page.wait_for_timeout(200)  # not sleep: the page must go on working
    raise AssertionError(f"the kernel of {notebook} was not ready after {seconds:.0f} s")


def run_all(page, lab: Lab, notebook: str, seconds: float = 300) -> None:
    """Clear all outputs, then Run > Run All Cells; returns when every code cell has run.

    Raises AssertionError as soon as a cell shows an error, and after `seconds`.
    """
    stored = nbformat.read(lab.folder / notebook, as_version=4)
    cells = [c for c in stored.cells if c.cell_type == "code" and c.source.strip()]
    # The stored outputs came with the page: without them, what is seen later was made here.
    choose(page, "Edit", "Clear Outputs of All Cells")
    page.wait_for_function(f"({COUNT_RUN})() === 0")
    choose(page, "Run", "Run All Cells")
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        problems = errors_shown(page)
        assert not problems, f"{notebook} shows an error:\n" + "\n".join(problems)
        done = page.evaluate(f"({COUNT_RUN})()")
        if done == len(cells):
            return
        page.wait_for_timeout(300)
    raise AssertionError(f"{done} of {len(cells)} cells of {notebook} ran in {seconds:.0f} s")


# How many code cells carry a number: not [ ]: (never run) and not [*]: (waiting or running).
COUNT_RUN = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    .filter(prompt => /\\[\\d+\\]/.test(prompt.textContent)).length"""


def choose(page, menu: str, item: str) -> None:
    """Click an item of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).get_by_text(menu, exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()


def errors_shown(page) -> list[str]:
    """The text of every error in the page, shortened; output on stderr counts, and looks alike."""
    outputs = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
    return [text[-500:] for text in outputs.all_inner_texts()]


def figures_shown(page) -> int:
    """How many pictures in outputs have been drawn (a broken one has no width)."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea-output img')]"
        ".filter(image => image.complete && image.naturalWidth > 0).length"
    )
