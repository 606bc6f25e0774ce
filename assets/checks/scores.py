"""Checks of what judges a run: schedules, scores, copies, and whom the faces show."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from assets.checks.asserts import (
    assert_between,
    assert_close,
    assert_refuses,
    assert_rising,
    assert_two,
)
from assets.checks.exercises import check
from assets.checks.layers import pictures


@check
def test_frechet_distance(frechet_distance):
    x = torch.randn(400, 6)
    x = torch.linalg.qr(x - x.mean(0))[0] * 399**0.5  # mean 0 and covariance 1, exactly
    shift = torch.tensor([0.0, 2, 0, -1, 0, 0])
    stretch = torch.tensor([1, 1, 2, 0.5, 3, 1.0])
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    for what, a, b, expected in (
        ("the same twice", x, x.flip(0), 0),
        ("moved", x, x + shift, 5),
        ("stretched", x, x * stretch, 5.25),
        ("turned", (x * stretch) @ turn, (x * stretch.flip(0)) @ turn, 12.5),
    ):
        distance = float(frechet_distance(a, b))
        assert_close(f"{what}, Fréchet distance", distance, expected, within=0.01)
    diverged = frechet_distance(x * math.nan, x)
    assert diverged == math.inf, f"NaN, of a network that diverged: expected inf, got {diverged}."


@check
def test_schedules(rate_at, set_rates):
    places = (0, 0.5, 0.75, 1)
    for name, rates in {
        "constant": (1, 1, 1, 1),
        "linear": (1, 1, 0.5, 0),
        "cosine": (1, 0.5, 0.146447, 0),
    }.items():
        assert_close(f"{name} at {places}", [rate_at(name, p) for p in places], rates)
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)
        for p, rate in zip((*places, 0.75), (*rates, rates[2])):  # at last back: more minutes
            set_rates([optimizer], name, p)
            got = optimizer.param_groups[0]["lr"]
            assert_close(f"{name} at {p:.0%} of the run", got, 0.2 * rate)

    def set_unknown():
        set_rates([optimizer], "sawtooth", 0.5)

    assert_refuses(set_unknown, 'schedule="sawtooth"', "schedule")


@check
def test_precision_recall(precision_recall):
    two = torch.randn(600, 4) + 20 * (torch.arange(600) % 2)[:, None]
    far = torch.randn(600, 4) - 50
    dense = torch.cat([0.05 * torch.randn(300, 4), 20 + 3 * torch.randn(300, 4)])
    for what, real, fake, expected in (
        ("the same", two, two, (1, 1)),
        ("none of them", two, far, (0, 0)),
        ("one kind of two", two, two[::2], (1, 0.5)),
        ("half of them strangers", two, torch.cat([two[:300], far[:300]]), (0.5, 1)),
        ("next to a dense crowd", dense, dense[:300] + 1, (0, 0)),
    ):
        result = precision_recall(real, fake)
        assert_two("precision_recall", result)
        assert_close(f"{what}, precision and recall", result, expected, within=0.06)


@check
def test_sliced_wasserstein(sliced_wasserstein):
    images = pictures(50, 32) + 0.1 * torch.randn(50, 3, 32, 32)
    same = sliced_wasserstein(images, images)
    assert_close("32 x 32 images and themselves, at 2 levels", same, (0, 0), within=1e-3)
    paler = images / 2 + 0.1
    blurred = F.avg_pool2d(images, 3, 1, 1)
    twice = F.avg_pool2d(blurred, 3, 1, 1)
    distances = [sum(sliced_wasserstein(images, x)) for x in (paler, blurred, twice)]
    assert_rising("paler, blurred and twice blurred images", distances)


@check
def test_ms_ssim(ms_ssim):
    images = pictures(64, 32)
    for size in (32, 16):
        pairs = torch.cat([images[:32], images[:32]])[:, :, :size, :size]
        assert_close(f"each {size} x {size} image next to itself", ms_ssim(pairs), 1, within=1e-3)
    alike = images[:1] + 0.1 * torch.randn(64, 3, 32, 32)
    assert_rising("64 pictures, one with noise, and 1", [ms_ssim(images), ms_ssim(alike), 1])


@check
def test_nearest_training_faces(nearest_training_faces):
    training = torch.randn(1500, 5)
    for what, faces, low, high in (
        ("copies", training[:200] + 1e-3 * torch.randn(200, 5), 1, 1),
        ("others like them", torch.randn(1200, 5), 0.4, 0.6),
        ("strangers", torch.randn(200, 5) + 50, 0, 0),
    ):
        result = nearest_training_faces(faces, training)
        assert_two("nearest_training_faces", result)
        index, share = result
        what_share = f"{what}, the share nearer than the training face's own neighbor"
        assert_between(what_share, share, low, high)
        is_nearest = torch.equal(index, torch.cdist(faces, training).argmin(1))
        assert is_nearest, f"{what}: expected the nearest training face of each, got others."


@check
def test_leave_one_out(leave_one_out):
    pairs = torch.randn(100, 5).repeat(2, 1) + 1e-4 * torch.randn(200, 5)
    triples = torch.tensor([[0.0], [1.0], [3.0], [100.0], [102.0], [103.0]])  # 2 of each are close
    for what, faces, low, high in (
        ("faces of one kind", torch.randn(400, 5), 0.4, 0.6),
        ("each face twice", pairs, 1, 1),
        ("two groups of three on a line", triples, 0.66, 0.67),
    ):
        assert_between(f"{what}, the share of close ones", leave_one_out(faces), low, high)


@check
def test_skin_tone(skin_tone, eye_row):
    gray, tan = (0.0, 0.0, 0.0), (0.46, 0.15, -0.08)  # L*a*b*: 53.4, 0, 0 and 63.8, 10.8, 21.2
    for size in (16, 32, 64):
        middle, eighth = size // 2, size // 8
        faces = torch.tensor([gray, tan])[:, :, None, None].repeat(1, 1, size, size)
        faces[:, :, middle : middle + 2] = -1  # the eyes
        faces[:, :, :eighth] = -1  # the hair
        faces[:, :, :, 3 * eighth : 5 * eighth] = 1  # the nose, well lit
        assert_between("The row of the eyes", eye_row(faces), middle, middle + 1)
        angle = skin_tone(faces, middle)[1]
        assert_close(f"{size} x {size}, the typology angle in degrees", angle, 33.0, within=0.5)
