"""Decoded faces: parts, flips, where they are kept."""

import numpy as np
import torch
from data_inputs import faces_named, sha256

import helpers
from assets.lib.drawn import OTHER_SEED
from assets.lib.faces import parts_of


def test_flips_mirror_half_of_the_images():
    images = torch.arange(400 * 3 * 16).reshape(400, 3, 1, 16).remainder(256).byte()
    faces = helpers.DecodedFaces(images, torch.zeros(400, dtype=torch.int64), ["a"], flip=True)
    served, _ = faces.__getitems__(list(range(400)))
    straight = images.float() / 255
    same = (served == straight).flatten(1).all(1)
    mirrored = (served == straight.flip(-1)).flatten(1).all(1)
    half = (same ^ mirrored).all() and 120 < mirrored.sum() < 280
    assert half, "expected about half of the images mirrored, and none changed otherwise"
    assert torch.equal(faces.batch(range(400))[0], straight), "expected batch to mirror none"
    assert torch.equal(faces.part("test").__getitems__([3])[0], straight[3:4]), "nor a part"


def test_parts_of_decoded_faces():
    names = [f"photo{i}.png" for i in range(1201)]
    readable = np.arange(1201) != 7
    faces = faces_named(*names, readable=readable)
    parts = {name: set(faces.part(name).rows.tolist()) for name in helpers.PARTS}
    assert [len(parts[name]) for name in helpers.PARTS] == [1050, 75, 75], "an eighth held out"
    assert set.union(*parts.values()) == set(range(1201)) - {7}, "expected all but the unreadable"
    whole = faces_named(*(name for i, name in enumerate(names) if i != 7))
    assert whole.held_out == faces.held_out == 150, "expected the readable ones to be dealt out"
    even = faces.where(torch.arange(1201) % 2 == 0)
    assert set(even.part("test").rows.tolist()) == {r for r in parts["test"] if r % 2 == 0}
    assert len(faces) == 1050, "expected the faces to be left as they were"
    images, labels = even.batch([0, 1])
    assert torch.equal((images[:, 1, 0, 0] * 255).long(), even.rows[:2] % 256), "expected its rows"
    few = faces_named("a.png", "b.png", readable=[True, False])
    assert few.part("validation").rows.tolist() == [0], "nothing held out: the same images"


def test_parts_do_not_overlap_and_do_not_move():
    celeba = [f"{i:06d}.jpg" for i in range(1, 202_600, 13)]
    parts = parts_of(celeba)
    numbers = np.array([int(name[:6]) for name in celeba])
    assert (parts[numbers <= 162_770] == 0).all(), "expected no training image held out"
    assert np.bincount(parts)[1:].tolist() == [974, 974], f"got {np.bincount(parts)}"
    few = [f"{i:06d}.jpg" for i in range(1, 1601)] + ["162771.jpg"]
    held = (parts_of(few) > 0).sum()
    assert held == 200, f"expected an eighth where hardly one has CelebA's high numbers, got {held}"
    other = [f"{OTHER_SEED}{i:06d}.jpg" for i in range(125)]
    drawn = [f"{i:06d}.jpg" for i in range(1000)] + other
    held = parts_of(drawn).nonzero()[0].tolist()
    assert held == [*range(1000, 1125)], "expected the drawn faces of the other seed, no others"
    photos = [f"photo{i}.png" for i in range(1200)]
    parts = dict(zip(photos, parts_of(photos)))
    back = dict(zip(photos[::-1], parts_of(photos[::-1])))
    assert sum(part > 0 for part in parts.values()) == 150, "expected an eighth of any folder"
    assert parts == back, "expected names to decide, got the order"
    assert not parts_of(photos[:999]).any(), "expected a small folder whole"
    digest = sha256(parts_of(photos).tobytes())
    assert digest == "f6e849b2f6eb3ba6e3a73857df3bbc15cefcce0bc1a5e5b72079386ebd98d13d", (
        f"expected the parts of earlier versions, got {digest}"
    )


def test_data_that_a_gpu_cannot_keep_stays_where_it_is(monkeypatch):
    own = helpers.DecodedFaces(torch.zeros(4, 3, 16, 16).byte(), torch.zeros(4), ["a"])
    other = torch.utils.data.TensorDataset(torch.zeros(4, 3, 16, 16), torch.zeros(4))
    cases = ("cpu", own), ("mps", own), ("cpu", other), ("cuda", other), ("cuda", own)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    for device, data in cases:
        before = data[0][0]
        helpers.keep_on(torch.device(device), data)
        after = data[0][0]
        assert after.device.type == "cpu" and torch.equal(before, after), f"{device}: as it was"
