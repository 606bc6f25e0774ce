"""Labels that the face network predicts, for faces that come without any."""

import contextlib

import pytest
import torch
from data_inputs import faces_named, write_list

import helpers
from assets.lib import labeled
from assets.lib.files import say_once

NAMES = [f"{i}.jpg" for i in range(100)]


@pytest.fixture
def faces(tmp_path):
    """DecodedFaces of 100 pictures without labels; none is held out."""
    say_once.cache_clear()
    folder = tmp_path / "and" / "far"
    folder.mkdir(parents=True)
    return faces_named(*NAMES, root=folder)


@contextlib.contextmanager
def predictions(monkeypatch, **logits):
    """Let the face network give these logits, lists (100,), to attributes; 0 to the others."""

    def predict(features, attributes):
        table = torch.zeros(len(features), len(attributes))
        for name, values in logits.items():
            table[:, attributes.index(name)] = torch.tensor(values)
        return table

    with monkeypatch.context() as patch:
        patch.setattr(labeled, "attribute_logits", predict)
        yield


def test_known_labels_are_preferred_to_predictions(tmp_path, monkeypatch):
    faces = write_list(tmp_path, {"Smiling": [i % 2 == 0 for i in range(100)]})
    monkeypatch.setattr(labeled, "face_features", None)  # a call would fail
    assert helpers.with_labels(faces) is faces, "expected the faces as they are"
    assert len(faces.sure_of("Smiling")) == 100, "expected all faces: their labels are known"


def test_only_sure_predictions_count(faces, monkeypatch, capsys):
    sure = [5.0, -5.0] * 30 + [1.0, -1.0] * 20
    with predictions(monkeypatch, Smiling=sure, Young=[5.0] * 50 + [-5.0] * 50):
        found = helpers.with_labels(faces)
    assert found.usable_labels() == ["Smiling", "Young"], f"got {found.usable_labels()}"
    assert found.sure_of("Smiling").rows.tolist() == [*range(60)], "expected the sure ones"
    assert found.known["Smiling"][:4].tolist() == [True, False, True, False]
    assert not faces.known and not faces.sure, "expected the faces themselves as they were"
    printed = capsys.readouterr().out
    assert "the face network predicts them" in printed and "Male 99%" in printed, printed


def test_domains_leave_out_faces_that_nobody_is_sure_of(faces, monkeypatch):
    makeup = [5.0, -5.0] * 40 + [0.5] * 20
    with predictions(monkeypatch, Heavy_Makeup=makeup, Male=[-5.0] * 70 + [-0.5] * 30):
        A, B, common = helpers.with_labels(faces).split_domains("Heavy_Makeup", "Male")
    assert (len(A), len(B), common) == (35, 35, {"Male": False}), f"got {len(A)}, {len(B)}"
    assert max(A.rows.max(), B.rows.max()) < 70, "expected none of which Male is not sure"


def test_labels_are_left_out_while_too_few_faces_have_all(faces, monkeypatch):
    halves = [5.0, -5.0] * 25 + [0.0] * 50, [0.0] * 50 + [5.0, -5.0] * 25
    with predictions(monkeypatch, Male=halves[0], Smiling=halves[1]):
        found = helpers.with_labels(faces)
        assert len(found.usable_labels()) == 2, "expected both to be usable alone"
        chosen, names = helpers.choose_labels(found)
        assert len(names) == 1 and len(chosen) == 50, f"expected one of the two, got {names}"
        helpers.check_faces(faces, ["Male"])
        with pytest.raises(ValueError, match="label_names = .*Smiling.* too few faces .* all"):
            helpers.check_faces(faces, ["Male", "Smiling"])


def test_no_labels_are_chosen_where_none_is_usable(faces, monkeypatch):
    with predictions(monkeypatch, Male=[5.0] * 100):
        chosen, names = helpers.choose_labels(helpers.with_labels(faces))
    assert names == [] and len(chosen) == 100, f"expected none, got {names}"


def test_a_part_of_many_faces_is_looked_at(monkeypatch):
    faces = faces_named(*(f"{i}.jpg" for i in range(3000)))
    monkeypatch.setattr(labeled, "MOST", 500)
    rows = labeled.rows_to_label(faces)
    parts = faces.parts[rows].bincount().tolist()
    assert parts == [500, *faces.parts.bincount()[1:].tolist()], f"got {parts}"
