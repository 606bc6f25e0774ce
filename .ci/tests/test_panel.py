"""The panel of sliders: its widgets, in a kernel that somebody watches or nobody, in a browser."""

import importlib
import io
import shutil
import sys

import nbclient
import nbformat
import pytest
import torch
from conftest import ROOT
from jupyter_client.manager import start_new_kernel
from PIL import Image

from assets.lib import panel

WIDGET = "application/vnd.jupyter.widget-view+json"
PANEL = """
import helpers, torch
def draw(number, values):
    return torch.tensor([number % 7 / 7, *values]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
helpers.show_panel([helpers.Sliders("Colors", draw, ["Green", "Blue"], [0.0, 1.0], -1, 1)])
"""


def draw(number, values):
    """A face of one color: red by its number, green and blue by its values."""
    return torch.tensor([number % 7 / 7, *values]).view(1, 3, 1, 1).expand(1, 3, 16, 16)


def color_of(png):
    image = Image.open(io.BytesIO(png))
    assert image.width == image.height == panel.WIDTH, f"got {image.size}"
    return image.getpixel((0, 0))


@pytest.fixture
def colors():
    """A panel of two pictures."""
    pytest.importorskip("ipywidgets")
    groups = [
        panel.Sliders("Colors", draw, ["Green", "Blue"], [0.0, 1.0], -1, 1),
        panel.Sliders("Shades", draw, ["Green", "Blue"], [-1.0, -1.0], -1, 1),
    ]
    return panel.Panel(groups, number=0)


def seen(shown):
    return [color_of(picture.value) for picture in shown.pictures]


def test_a_slider_changes_its_own_picture(colors):
    assert seen(colors) == [(128, 128, 255), (128, 0, 0)], "expected faces as the sliders start"
    colors.sliders[0][0].set_state({"value": 1.0})  # what a message of a page calls
    assert seen(colors) == [(128, 255, 255), (128, 0, 0)], "expected green in the first face alone"
    colors.sliders[1][1].set_state({"value": 0.0})
    assert seen(colors) == [(128, 255, 255), (128, 0, 128)], "expected blue in the second"


def test_the_buttons_change_the_number_and_the_sliders(colors, monkeypatch):
    monkeypatch.setattr(panel.random, "randint", lambda low, high: 6)
    colors.sliders[0][0].value = 1.0
    colors.new_face.click()
    assert seen(colors) == [(237, 255, 255), (237, 0, 0)], "expected sliders as they were moved"
    colors.reset.click()
    assert seen(colors) == [(237, 128, 255), (237, 0, 0)], "expected sliders as they started"


def test_without_ipywidgets_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(panel, "is_watched", lambda: True)
    monkeypatch.setattr(panel, "show_images", lambda *args, **settings: print("a figure"))
    panel.show_panel([panel.Sliders("Colors", draw, ["Green", "Blue"], [0.0, 1.0], -1, 1)])
    printed = capsys.readouterr().out
    assert printed == f"{panel.MISSING}\na figure\n", f"got {printed}"


# ---------------------------------------------------------------- in a kernel


def test_where_nobody_watches_a_figure_stands_in_its_place(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PANEL)])
    nbclient.NotebookClient(book, kernel_name="python3").execute()  # as papermill and nbconvert do
    (output,) = book.cells[0].outputs  # and nothing on stderr
    assert set(output["data"]) == {"image/png", "text/plain"}, f"got {output}"


def messages_of(client, message_id):
    """What the kernel publishes for a message, until it has dealt with it."""
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == message_id:
            yield message
            if message["content"].get("execution_state") == "idle":
                return


def send(client, widget, data):
    """Send a widget what a page would -> the pictures that come back, as PNGs."""
    message = client.session.msg("comm_msg", {"comm_id": widget, "data": data})
    client.shell_channel.send(message)
    answers = messages_of(client, message["header"]["msg_id"])
    return [bytes(x) for answer in answers for x in answer["buffers"]]


def test_where_somebody_watches_a_page_moves_the_face(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    manager, client = start_new_kernel()
    try:
        messages = list(messages_of(client, client.execute(PANEL, allow_stdin=True)))
        shown = [set(x["content"]["data"]) for x in messages if x["msg_type"] == "display_data"]
        expected = [{WIDGET, "text/plain"}, {"image/png", "text/plain"}]
        assert shown == expected, f"expected the panel and a figure below, got {shown}"
        said = [x["content"] for x in messages if x["msg_type"] in ("stream", "error")]
        assert not said, f"expected nothing else, got {said}"

        widgets = {}
        for content in (x["content"] for x in messages if x["msg_type"] == "comm_open"):
            state = content["data"]["state"]
            widgets[state.get("description") or state["_model_name"]] = content["comm_id"]
        update = {"method": "update", "state": {"value": 1.0}, "buffer_paths": []}
        (picture,) = send(client, widgets["Green"], update)
        assert color_of(picture) == (128, 255, 255), "expected green from the slider"
        click = {"method": "custom", "content": {"event": "click"}}
        pictures = [png for _ in range(9) for png in send(client, widgets["New face"], click)]
        assert pictures, "expected another color among nine faces"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# ---------------------------------------------------------------- in a browser


def test_the_panel_in_a_browser(tmp_path, monkeypatch):
    for name in ("playwright", "jupyterlab", "ipywidgets"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(ROOT / ".ci")
    browser = importlib.import_module("browser")
    if not any(map(shutil.which, browser.BROWSERS)):
        pytest.skip("there is no Chromium in the PATH")
    browser.main(["--only-panel", "--minutes", "5", "--out", str(tmp_path)])
    assert list(tmp_path.glob("*.png")), "expected screenshots"
