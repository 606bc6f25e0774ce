"""Open a notebook in JupyterLab in a real browser, run all cells, and move the panel's sliders.

    python .ci/browser.py [--notebook] [--folder screenshots] [--chromium /usr/bin/chromium]

By default a notebook with the panel alone, on the committed generator; with --notebook the lesson
in small. Fails if a cell shows an error or writes to stderr, or if a slider, moved by the keyboard,
or a button does not change the face. Leaves screenshots: one of each screen of the page, and of the
panel before and after each change. Needs playwright (pip) and Chromium.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
LESSON = "dlnd_face_generation.ipynb"
SMALL = {
    "data_dir": "drawn",
    "n_drawn": 1000,
    "max_minutes": 0.2,
    "experiment_images": 160,
}
PANEL = """
import torch
import helpers
import problem_unittests
lesson = problem_unittests.read_notebook()
D, G = lesson.fresh(lesson.settings)
helpers.begin_with("assets/weights/celeba_32.pt", D, G)
G.eval()
def draw(number, amounts):
    z = torch.randn(1, 100, generator=torch.Generator().manual_seed(number))
    z[:, :3] += torch.tensor(amounts)
    return lesson.in_batches(G, z)
names = ["first", "second", "third"]
groups = [helpers.Sliders(title, draw, names, [0.0] * 3, -3, 3) for title in ("Left", "Right")]
helpers.show_panel(groups)
""".strip()
ERRORS = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type$="stderr"]'
PICTURE = ".widget-image"  # a picture of the panel
CONTENT_OF = """async image => {
    const blob = await (await fetch(image.src)).blob();
    return Array.from(new Uint8Array(await blob.arrayBuffer())).join();
}"""


def copy_of_project(folder, whole):
    """Copy the project -> the name of the notebook in it to open, with no outputs."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    content = json.loads((folder / LESSON).read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    if whole:
        for name, value in SMALL.items():
            first = "".join(code[0]["source"])
            code[0]["source"] = re.sub(rf"(?m)^{name} = \\S+", f"{name} = {value!r}", first)
    else:
        content["cells"] = [code[0] | {"source": PANEL}]
    for cell in code:
        cell["outputs"], cell["execution_count"] = [], None
    (folder / "opened.ipynb").write_text(json.dumps(content), encoding="utf-8")
    return "opened.ipynb"


@contextlib.contextmanager
def jupyter_lab(folder):
    """JupyterLab in a folder -> its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--port={port} --no-browser --allow-root --IdentityProvider.token= --log-level=ERROR"
    command = [sys.executable, "-m", "jupyterlab", *options.split(), f"--notebook-dir={folder}"]
    environment = os.environ | {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    server = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def open_notebook(page, address, name):
    deadline = time.monotonic() + 60
    while True:
        try:
            page.goto(f"{address}/lab/tree/{name}?reset")
            break
        except Exception:  # the server is still starting
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    with contextlib.suppress(TimeoutError):  # a dialog that asks for the kernel may come up
        page.get_by_role("button", name="Select", exact=True).click(timeout=10_000)


def run_all(page, minutes):
    """Run all cells, and wait for the panel."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_selector(PICTURE, timeout=60_000 * minutes)


def faces(page):
    """The bytes of each picture in the panel."""
    return [image.evaluate(CONTENT_OF) for image in page.locator(PICTURE).element_handles()]


def changed(page, before, seconds=20):
    """Wait until a picture differs from `before` -> which do, and after how many seconds."""
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        differs = [a != b for a, b in zip(before, faces(page))]
        if any(differs):
            return differs, time.monotonic() - start
        time.sleep(0.02)
    raise AssertionError(f"The face did not change within {seconds} seconds.")


def play(page, folder):
    """Move a slider of each group by the keyboard, and press both buttons."""
    panel = page.locator(".widget-vbox", has=page.locator(PICTURE)).first
    panel.scroll_into_view_if_needed()
    panel.screenshot(path=folder / "panel_at_the_start.png")
    groups = page.locator(".widget-vbox:not(:has(.widget-vbox))").filter(has=page.locator(PICTURE))
    for k in range(groups.count()):
        handle = groups.nth(k).get_by_role("slider").first
        handle.focus()
        before = faces(page)
        for _ in range(5):
            page.keyboard.press("PageUp")
        differs, seconds = changed(page, before)
        assert differs[k] and sum(differs) == 1, f"slider of group {k}: pictures changed {differs}"
        print(f"A slider of group {k}: another face after {seconds:.2f} s")
        page.wait_for_timeout(1000)
        panel.screenshot(path=folder / f"panel_group_{k}_moved.png")
    for name in ("New face", "Reset sliders"):
        before = faces(page)
        page.get_by_role("button", name=name).click()
        _, seconds = changed(page, before)
        print(f"{name}: another face after {seconds:.2f} s")
        page.wait_for_timeout(1000)
        panel.screenshot(path=folder / f"panel_{name.replace(' ', '_').lower()}.png")


def screenshots(page, folder):
    """Save a picture of each screen of the notebook -> the texts of its errors."""
    scroller = page.locator(".jp-WindowedPanel-outer").first
    errors, top, k = set(), -1, 0
    scroller.evaluate("element => element.scrollTop = 0")
    while scroller.evaluate("element => element.scrollTop") > top:
        top = scroller.evaluate("element => element.scrollTop")
        page.wait_for_timeout(700)
        page.screenshot(path=folder / f"page_{k:03}.png")
        errors |= {text[:300] for text in page.locator(ERRORS).all_inner_texts()}
        scroller.evaluate("element => element.scrollTop += 0.9 * element.clientHeight")
        page.wait_for_timeout(300)
        k += 1
    return errors


def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--notebook", action="store_true", help="the lesson, in small")
    parser.add_argument("--folder", type=Path, default=Path("screenshots"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = copy_of_project(place, args.notebook)
        address = stack.enter_context(jupyter_lab(place))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=args.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        open_notebook(page, address, name)
        try:
            run_all(page, minutes=20 if args.notebook else 1)
            play(page, args.folder)
            errors = screenshots(page, args.folder)
        except Exception:
            page.screenshot(path=args.folder / "failed.png")
            raise
    assert not errors, f"errors or stderr: {errors}"


if __name__ == "__main__":
    main()
