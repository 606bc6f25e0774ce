"""Open the lesson in JupyterLab in a headless Chromium, run it, and play with its panel.

    python .ci/browser.py --out FOLDER [--only-panel] [--minutes 30]

Runs all cells of a copy in small, moves sliders by keyboard, presses the panel's buttons, and
scrolls from the first cell to the last. It fails if a picture does not change or if the page shows
an error. FOLDER receives the screenshots. --only-panel runs the panel's cell alone, on the
committed generator. Needs `pip install playwright`, and Chromium: one in the PATH, or that of
`playwright install chromium`.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "dlnd_face_generation.ipynb"
SMALL = {"data_dir": "drawn", "n_drawn": 1000, "max_minutes": 0.25, "experiment_images": 160}
BROWSERS = "chromium", "chromium-browser", "google-chrome"
PATIENCE = 180  # seconds, for a machine that is busy
SIZE = {"width": 1280, "height": 1000}
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no pop-ups over what is looked at

# What the panel's cell needs; the second generator takes labels, but has not learned them
STAND_INS = """
import problem_unittests
globals().update(vars(problem_unittests.read_notebook()))
torch.manual_seed(0)
D, generator = build_network(32, 48, z_size, image_size)
helpers.begin_with("assets/weights/celeba_32.pt", D, generator)
generator.eval()
directions = F.normalize(torch.randn(len(ATTRIBUTES), z_size), dim=1)
labels, sweep = ("Male", "Young", "No_Beard"), torch.tensor([[1.0, 1.0, 0.0]])
asked = ConditionalGenerator(z_size, settings.g_conv_dim, image_size, sweep).eval()
"""

# The outputs of the open notebook, one list a cell; None for a cell that has not run to its end
OUTPUTS = """() => jupyterapp.shell.currentWidget.content.widgets
    .map(cell => cell.model).filter(model => model.type === 'code')
    .map(model => model.executionState === 'idle' && model.executionCount
        ? model.outputs.toJSON() : null)"""


def copy_lesson(folder):
    """Copy what the lesson's cells read, in place of a checkout."""
    for name in ("assets", ".ci"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("helpers.py", "problem_unittests.py", NOTEBOOK.name):
        shutil.copy(ROOT / name, folder)


def small_copy(folder):
    """Write the notebook with small settings and without outputs -> its path."""
    path = folder / "lesson.ipynb"
    papermill.execute_notebook(NOTEBOOK, path, SMALL, prepare_only=True)
    book = nbformat.read(path, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, path)
    return path


def panel_copy(folder):
    """Write a notebook with the panel's cell alone, without outputs -> its path."""
    path = folder / "panel.ipynb"
    book = nbformat.read(NOTEBOOK, 4)
    panel = next(cell for cell in book.cells if "helpers.show_panel(" in cell.source)
    book.cells = [nbformat.v4.new_code_cell(source) for source in (STAND_INS, panel.source)]
    nbformat.write(book, path)
    return path


@contextlib.contextmanager
def jupyter_lab(folder, notebook):
    """Serve a notebook with JupyterLab, whose settings and log lie in `folder` -> its address."""
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    choice = folder / "CONFIG/lab/user-settings/@jupyterlab/apputils-extension"
    choice.mkdir(parents=True)
    (choice / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--ServerApp.root_dir={notebook.parent}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
    try:
        info = info_of(server, folder)
        yield f"{info['url']}lab/tree/{notebook.name}?token={info['token']}"
    finally:
        server.terminate()  # and its kernels
        server.wait()


def info_of(server, folder):
    """What a server writes about itself as soon as it is there."""
    info, start = folder / "RUNTIME" / f"jpserver-{server.pid}.json", time.monotonic()
    while not info.exists():
        if server.poll() is not None or time.monotonic() - start > PATIENCE:
            log = (folder / "server.log").read_text()
            raise RuntimeError(f"JupyterLab did not start: {log[-2000:]}")
        time.sleep(0.2)
    return json.loads(info.read_text())


class Reader:
    """Somebody who reads a notebook in a browser: runs its cells, plays, takes screenshots."""

    def __init__(self, page, address, out):
        self.page, self.out, self.errors, self.n_shots = page, out, [], 0
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(f"JavaScript: {error}"))
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        for part in ("context", "sessionContext"):  # the cells, the kernel
            page.evaluate(f"jupyterapp.shell.currentWidget.{part}.ready")
        page.keyboard.press("Control+b")  # hide the list of files

    def run_all(self, minutes):
        """Run all cells and wait for the last."""
        start = time.monotonic()
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
        while None in (outputs := self.page.evaluate(OUTPUTS)):
            seconds = time.monotonic() - start
            assert seconds < 60 * minutes, f"cell {outputs.index(None)} runs after {seconds:.0f} s"
            self.assert_clean()
            time.sleep(1)
        print(f"All cells ran in {time.monotonic() - start:.0f} s.", flush=True)

    def assert_clean(self):
        """Fail if a cell or the page shows an error, a warning or a dialog."""
        for number, outputs in enumerate(self.page.evaluate(OUTPUTS)):
            for output in outputs or ():
                if output["output_type"] == "error" or output.get("name") == "stderr":
                    self.errors.append(f"code cell {number}: {output}")
        self.errors += self.page.locator(".jp-Dialog").all_inner_texts()
        assert not self.errors, f"expected no errors in the page, got {self.errors}"

    def shoot(self, name):
        self.page.screenshot(path=self.out / f"{self.n_shots:03d}_{name}.png")
        self.n_shots += 1

    def play(self):
        """Move the first slider of each picture, then press both buttons: the pictures follow."""
        pictures = self.page.locator("img.widget-image")
        columns = self.page.locator(".widget-vbox:has(> img.widget-image)")
        self.page.get_by_role("slider").last.scroll_into_view_if_needed()
        self.shoot("panel")
        for picture, column in zip(pictures.all(), columns.all()):
            self.move(picture, column.get_by_role("slider").first)
        for name in ("New face", "Reset sliders"):
            button = self.page.get_by_role("button", name=name)
            self.changes(pictures.all(), name, button.click)
            self.shoot(name)

    def move(self, picture, slider):
        """Move a slider by keyboard, away from its end."""
        start, end = (slider.get_attribute(f"aria-value{x}") for x in ("now", "max"))
        key = "ArrowLeft" if start == end else "ArrowRight"
        slider.focus()
        self.changes([picture], key, lambda: self.page.keyboard.press(key))
        for _ in range(20):
            self.page.keyboard.press(key)
        self.page.wait_for_timeout(500)
        assert slider.get_attribute("aria-valuenow") != start, "expected the slider to stay there"
        self.shoot("moved")

    def changes(self, pictures, cause, action):
        """Fail unless all pictures look different after an action."""
        sources = [picture.get_attribute("src") for picture in pictures]
        before = [picture.screenshot() for picture in pictures]
        start = time.monotonic()
        action()
        for number, (picture, source) in enumerate(zip(pictures, sources)):
            while picture.get_attribute("src") == source:
                seconds = time.monotonic() - start
                assert seconds < PATIENCE, f"{cause}: picture {number} did not change"
                self.page.wait_for_timeout(10)
        print(
            f"{cause}: the face changed after {1000 * (time.monotonic() - start):.0f} ms.",
            flush=True,
        )
        self.page.wait_for_timeout(300)  # until it is painted
        for number, picture in enumerate(pictures):
            assert picture.screenshot() != before[number], f"{cause}: picture {number} is the same"

    def read(self):
        """Scroll from the first cell to the last, with a screenshot of each page."""
        notebook = self.page.locator(".jp-WindowedPanel-outer").element_handle()
        notebook.evaluate("place => place.scrollTo(0, 0)")
        at_end = "place => place.scrollTop + place.clientHeight >= place.scrollHeight - 2"
        while True:
            self.page.wait_for_timeout(300)  # for the cells that come into view
            self.shoot("page")
            if notebook.evaluate(at_end):
                break
            notebook.evaluate("place => place.scrollBy(0, place.clientHeight - 40)")


@contextlib.contextmanager
def chromium():
    """A headless Chromium: the one in the PATH, or playwright's own."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--out", type=Path, required=True, help="where the screenshots go")
    parser.add_argument("--only-panel", action="store_true")
    parser.add_argument("--minutes", type=float, default=30, help="how long the cells may take")
    args = parser.parse_args(arguments)

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_lesson(folder / "work")
        path = (panel_copy if args.only_panel else small_copy)(folder / "work")
        with jupyter_lab(folder, path) as address, chromium() as browser:
            reader = Reader(browser.new_page(viewport=SIZE), address, args.out)
            try:
                reader.run_all(args.minutes)
                reader.play()
                if not args.only_panel:
                    reader.read()
                reader.assert_clean()
            finally:
                reader.shoot("last")


if __name__ == "__main__":
    main()
