"""The proof of the checks of the data and of scores: wrong ones get the right sentence."""

import pytest
from plain_solutions import changed, table

import problem_unittests as checks

RIGHT = {
    checks.test_get_dataloader: [
        ("as it is", {}),
        ("the last batch dropped", {"drop_last=False": "drop_last=True"}),
        ("borders instead of a crop", {"ImageOps.fit": "ImageOps.pad"}),
    ],
    checks.test_frechet_distance: [("as it is", {})],
    checks.test_precision_recall: [("as it is", {})],
    checks.test_nearest_training_faces: [("as it is", {})],
    checks.test_leave_one_out: [("as it is", {})],
}

WRONG = {
    checks.test_get_dataloader: [
        ("not shuffled", {"shuffle=True": "shuffle=False"}, "another order"),
        ("values to 255", {" / 255": ".float()"}, r"values in \[0, 1\], got \d+.00 to 2"),
        ("scaled already", {" / 255": " / 127.5 - 1"}, r"values in \[0, 1\], got -"),
        ("stretched", {"ImageOps.fit(photo,": "photo.resize("}, "expected round discs"),
        ("channels last", {".permute(2, 0, 1)": ""}, "expected the shape"),
        ("float labels", {"torch.tensor(labels)": "torch.tensor(labels).float()"}, "and int64"),
        ("one folder only", {'rglob("*")': 'glob("*")'}, "no images|6 with the rest"),
        ("one class", {'int(path.parent.name == "b")': "0"}, "2 folders .* as many labels, got 1"),
        ("any size", {"check_size(image_size)": "None"}, "image_size = .* names image_size"),
        ("any batch", {"not 0 < batch_size <= len(images)": "batch_size < 1"}, "for 22 photos"),
        ("another kind of error", {'raise ValueError(f"no': 'raise OSError(f"no'}, "got OSError"),
        ("a folder unnamed", {"images in {data_dir}": "images"}, "names empty_folder"),
        ("no return", {"return torch": "torch"}, "get_dataloader returned None"),
    ],
    checks.test_frechet_distance: [
        (
            "only the mean",
            {" + values.sum() + spread.trace() - 2 * overlap": ""},
            "stretched, Fréchet distance: expected 5.25, got 0",
        ),
        ("the mean ignored", {"(shift +": "(0 * shift +"}, "moved, .* expected 5, got 0"),
        ("not squared", {"square()": "abs()"}, "moved, .* expected 5, got 3"),
        ("the overlap once", {"2 * overlap": "overlap"}, "the same twice, .* expected 0"),
        ("no root", {".clamp(min=0).sqrt().sum()": ".sum()"}, "stretched"),
        (
            "only the variances",
            {"torch.linalg.eigvalsh(root @ spread @ root)": "(values * spread.diagonal())"},
            "turned",
        ),
    ],
    checks.test_precision_recall: [
        (
            "swapped",
            {"(fake, real), (real, fake)": "(real, fake), (fake, real)"},
            "one kind of two",
        ),
        ("itself a neighbor", {"sorted(row)[k]": "sorted(row)[0]"}, "half of them strangers"),
        ("one radius for all", {"d <= r for": "d <= 5 for"}, "next to a dense crowd"),
    ],
    checks.test_nearest_training_faces: [
        ("itself a neighbor", {".values[:, 1]": ".values[:, 0]"}, "copies"),
        ("the second nearest", {"distances.argmin(1)": "distances.argsort(1)[:, 1]"}, "copies"),
        ("further for nearer", {"nearest < own": "nearest > own"}, "copies"),
    ],
    checks.test_leave_one_out: [
        ("itself the nearest", {"if k != i)": ")"}, "faces of one kind"),
        ("itself a neighbor", {"if k not in (i, j))": "if k != j)"}, "faces of one kind|twice"),
    ],
}


@pytest.mark.parametrize("check, what, changes", **table(RIGHT))
def test_right_solutions_pass(check, what, changes, capsys):
    check(changed(check, changes))
    assert capsys.readouterr().out == "Tests Passed\n"


@pytest.mark.parametrize("check, what, changes, message", **table(WRONG))
def test_wrong_solutions_are_refused(check, what, changes, message):
    with pytest.raises(AssertionError, match=f"(?s){message}") as caught:
        check(changed(check, changes))
    assert len(str(caught.value)) < 500, "expected a sentence or two"
