"""The panel of sliders: in a kernel that somebody watches, in a static run, and in a browser."""

import importlib.util
import shutil
import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT

from assets.lib import panel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def shade(number, values):
    """An image (1, 3, 8, 8) whose shade depends on the number and on all values."""
    level = torch.tensor(values) @ torch.tensor([0.1, 0.2]) + (number % 7) / 20
    return level.expand(1, 3, 8, 8)


def group(title="one", start=(0.0, 0.0)):
    return panel.Sliders(title, shade, ["a", "b"], start, low=-3, high=3)


def test_a_slider_redraws_the_face_of_its_group_alone():
    shown = panel.Panel([group("one"), group("other")])
    before = [picture.value for picture in shown.pictures]
    slider = shown.sliders[1][0]
    slider.set_state({"value": 2.0})  # as a browser does
    after = [picture.value for picture in shown.pictures]
    assert after[0] == before[0], "expected the face of the other group unchanged"
    assert after[1] == panel.png_of(shade(0, [2.0, 0.0])) != before[1], "expected the new face"


def test_new_face_keeps_the_sliders_and_reset_moves_them_back(monkeypatch):
    monkeypatch.setattr(panel.random, "randint", lambda low, high: 5)
    shown = panel.Panel([group(start=(1.0, -1.0))])
    shown.sliders[0][1].value = 3.0
    shown.new_face.click()
    assert shown.pictures[0].value == panel.png_of(shade(5, [1.0, 3.0])), "expected face 5, moved"
    shown.reset.click()
    assert shown.pictures[0].value == panel.png_of(shade(5, [1.0, -1.0])), "expected it as it began"


def test_the_figure_shows_each_slider_at_the_end_that_is_further(monkeypatch):
    shown = []
    monkeypatch.setattr(
        panel, "show_images", lambda faces, *args, **kw: shown.append((faces, args))
    )
    panel.show_ends(group(start=(0.0, 1.0)), number=0)
    ((faces, (title, titles)),) = shown
    assert titles == ["at the start", "a 3", "b -3"], f"got {titles}"
    expected = [shade(0, values) for values in ([0.0, 1.0], [3.0, 1.0], [0.0, -3.0])]
    assert torch.cat(expected).equal(faces), "expected one slider moved in each face"


@pytest.mark.parametrize("can_answer", [True, False])
def test_sliders_are_shown_to_somebody_who_can_move_them(monkeypatch, capsys, can_answer):
    shell = types.SimpleNamespace(get_parent=lambda: {"content": {"allow_stdin": can_answer}})
    views = []
    monkeypatch.setattr(panel, "in_notebook", lambda: True)
    interactive = types.SimpleNamespace(
        get_ipython=lambda: shell,
        display=types.SimpleNamespace(display=lambda bundle, raw: views.append(bundle)),
    )
    monkeypatch.setitem(sys.modules, "IPython", interactive)
    monkeypatch.setattr(panel, "show_ends", lambda group, number: None)
    panel.show_panel([group()])
    assert len(views) == can_answer, f"expected {int(can_answer)} views, got {len(views)}"
    assert not capsys.readouterr().err, "expected nothing on stderr"
    if views:
        assert "application/vnd.jupyter.widget-view+json" in views[0], f"got {views[0].keys()}"
        assert "reload the page" in views[0]["text/plain"], "expected advice where no slider shows"


def test_without_ipywidgets_a_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(panel, "is_watched", lambda: True)
    monkeypatch.setattr(panel, "show_ends", lambda group, number: None)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    panel.show_panel([group()])
    assert "pip install ipywidgets" in capsys.readouterr().out


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
@pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="needs playwright")
def test_the_panel_in_a_browser(tmp_path):
    command = [sys.executable, ROOT / ".ci" / "browser.py", "--folder", tmp_path]
    done = subprocess.run([*command, "--chromium", CHROMIUM], capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    for words in ("slider of group 0", "slider of group 1", "New face", "Reset sliders"):
        assert words in done.stdout, f"expected {words!r} to change a face, got {done.stdout}"
