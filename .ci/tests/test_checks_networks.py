"""The checks of both networks: what they refuse, what they note, and what works to the end."""

import contextlib
import copy
import inspect
import itertools
import re
import types

import pytest
import torch
from plain_solutions import Discriminator, Generator, changed, check_size, table
from torch.optim.swa_utils import AveragedModel

import helpers
import problem_unittests as checks
from assets.checks.notebooks import cells_of, is_definition, is_solution, parsed, run

D_LAYERS = "nn.Conv2d(n, m, 4, 2, 1, bias=False), nn.BatchNorm2d(m), nn.LeakyReLU(0.2)"
D_SWAPPED = "nn.Conv2d(n, m, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.BatchNorm2d(m)"
D_FIRST = "nn.Conv2d(3, conv_dim, 4, 2, 1)"
D_PARTS = "self.logit(self.features(x))"
POOLED = (
    "nn.Conv2d(n, m, 3, 1, 1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(m), nn.LeakyReLU(0.2)"
)
MORE = "nn.Conv2d(m, m, 3, 1, 1, bias=False), nn.LeakyReLU(0.2)"
SPECTRAL = "nn.utils.parametrizations.spectral_norm(nn.Linear(n * 4 * 4, 1))"
OLD_SPECTRAL = "nn.utils.spectral_norm(nn.Linear(n * 4 * 4, 1))"
CONV_LOGIT = "nn.Sequential(nn.Unflatten(1, (n, 4, 4)), nn.Conv2d(n, 1, 4))"
NO_SUPER = {"super().__init__()": "pass"}
ANY_SIZE = {"check_size(image_size)": "None"}
ENDLESS = ANY_SIZE | {"size > 4": "size != 4"}
UNTRACKED = "track_running_stats=False"
DROPPED = "self.logit(nn.functional.dropout(self.features(x)))"
NO_RETURN = {"return self": "self"}
NESTED_D = {f"layers += [{D_LAYERS}]": f"layers += [nn.Sequential({D_LAYERS})]"}

G_LAYERS = "[*self.upsample(n, m), nn.BatchNorm2d(m), nn.ReLU()]"
G_DOUBLING = "[nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)]"
G_LAST = "self.upsample(conv_dim, 3, bias=True)"
RESIZED = """[nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1),
            nn.Conv2d(in_channels, out_channels, 3, bias=bias)]"""
NORMED = "nn.BatchNorm2d(out_channels), nn.ReLU()]"
WIDEST = "min(image_size // 8, 8) * conv_dim"
HALF = "min(n, conv_dim * image_size // size // 2)"

# the learner's own choice, and what the note says of it; None: it is in the text, too
CHOICES = {
    checks.test_discriminator: [
        ("as it is", {}, None),
        ("blocks", NESTED_D, None),
        (
            "dropout",
            {D_LAYERS: f"{D_LAYERS}, nn.Dropout(0.1)"},
            None,
        ),
        ("a convolution more", {D_LAYERS: f"{D_LAYERS}, {MORE}"}, "kernel of 3 x 3"),
        ("in place", {"nn.LeakyReLU(0.2)": "nn.LeakyReLU(0.2, inplace=True)"}, None),
        ("no norm", {"nn.BatchNorm2d(m)": "nn.Identity()"}, "no batch norm"),
        ("instance norm", {"nn.BatchNorm2d": "nn.InstanceNorm2d"}, "no batch norm"),
        ("group norm", {"nn.BatchNorm2d(m)": "nn.GroupNorm(2, m)"}, "no batch norm"),
        ("spectral norm", {"nn.Linear(n * 4 * 4, 1)": SPECTRAL}, None),
        ("a norm first", {f"{D_FIRST}, ": f"{D_FIRST}, nn.BatchNorm2d(conv_dim), "}, "first conv"),
        ("one norm", {"nn.BatchNorm2d(m)": "*[nn.BatchNorm2d(m)] * (size > 8)"}, "fewer"),
        ("a bias", {", bias=False": ""}, "bias before batch norm"),
        ("ReLU", {"nn.LeakyReLU(0.2)": "nn.ReLU()"}, "ReLU where the text has LeakyReLU"),
        (
            "no activation in the loop",
            {D_LAYERS: D_LAYERS.replace(", nn.LeakyReLU(0.2)", "")},
            r"no activation after Conv2d\(8, 16.*LeakyReLU after each",
        ),
        ("ELU", {"nn.LeakyReLU(0.2)": "nn.ELU()"}, "ELU where the text has LeakyReLU"),
        ("PReLU", {"nn.LeakyReLU(0.2)": "nn.PReLU()"}, "PReLU where the text has LeakyReLU"),
        ("a slope of 0.01", {"(0.2)": "()"}, "slope of 0.01. The text has 0.2"),
        ("activation first", {D_LAYERS: D_SWAPPED}, "after the activation"),
        ("pooling", {D_LAYERS: POOLED}, "pooling halves"),
        ("a kernel of 3", {", 4, 2, 1": ", 3, 2, 1"}, "kernel of 3 x 3. The text has 4 x 4"),
        ("no cap", {"min(2 * n, 8 * conv_dim)": "2 * n"}, "no cap on the channels"),
        ("logits in 16 bits", {".float()": ""}, r"logits in 16 bits .* \.float\(\)"),
    ],
    checks.test_generator: [
        ("as it is", {}, None),
        ("blocks", {G_LAYERS: f"[nn.Sequential({G_LAYERS[1:-1]})]"}, None),
        ("dropout", {"m), nn.ReLU()]": "m), nn.ReLU(), nn.Dropout(0.1)]"}, None),
        (
            "a convolution more",
            {G_LAYERS: f"[*{G_LAYERS}, {MORE}, nn.BatchNorm2d(m)]"},
            "LeakyReLU",
        ),
        (
            "a tanh among its layers",
            {
                "self.layers =": "self.end = nn.Tanh()\n        self.layers =",
                ".tanh()": "",
                "self.layers(z)": "self.end(self.layers(z))",
            },
            None,
        ),
        ("a tanh of its own", {"self.layers(z).tanh()": "nn.Tanh()(self.layers(z).float())"}, None),
        ("a tuple", {"return [nn": "return (nn", "bias=bias)]": "bias=bias),)"}, None),
        (
            "spectral norm",
            {"nn.ConvT": "nn.utils.parametrizations.spectral_norm(nn.ConvT", "=bias)]": "=bias))]"},
            None,
        ),
        ("LeakyReLU", {"nn.ReLU()": "nn.LeakyReLU(0.2)"}, "LeakyReLU where the text has ReLU"),
        (
            "no activation before the loop",
            {"[nn.BatchNorm2d(n), nn.ReLU()]": "[nn.BatchNorm2d(n)]"},
            "no activation after Linear",
        ),
        (
            "ReLU first",
            {"nn.BatchNorm2d(m), nn.ReLU()": "nn.ReLU(), nn.BatchNorm2d(m)"},
            "after the activation",
        ),
        ("a bias", {"16, bias=False": "16"}, "bias before batch norm"),
        (
            "a bias in doublings",
            {"self.upsample(n, m)": "self.upsample(n, m, True)"},
            "bias before",
        ),
        ("resized", {G_DOUBLING: RESIZED}, "doubling of your own"),
        ("a kernel of 6", {", 4, 2, 1,": ", 6, 2, 2,"}, "doubling of your own"),
        ("no cap", {WIDEST: "image_size // 8 * conv_dim", "min(n, ": "max(1, "}, "no cap"),
    ],
}


@pytest.mark.parametrize("check, what, changes, note", **table(CHOICES))
def test_a_choice_passes_with_a_note(check, what, changes, note, capsys):
    check(changed(check, changes))
    passed, *notes = capsys.readouterr().out.splitlines()
    assert passed == "Tests Passed"
    if note is None:
        assert not notes, f"expected no note, got {notes}"
    else:
        assert any(re.search(f"^Note: .*{note}", text) for text in notes), f"got {notes}"


# ---------------------------------------------------------------- later cells

LATER = [
    checks.test_build_network,
    checks.test_exchange_norm,
    checks.test_upsampling,
    checks.test_carry_over,
    checks.test_conditional,
    checks.test_label_sweep,
    checks.test_image_to_image,
    checks.test_patch_discriminator,
]


def lesson_with(**own):
    """The notebook's definitions, with these in place of the solutions."""
    module = types.ModuleType("lesson_with_own_networks")
    for cell in cells_of(checks.NOTEBOOK):
        for node in parsed(cell):
            name = getattr(node, "name", None)
            if name in own and is_solution(node):
                setattr(module, name, own[name])
            elif name not in own and is_definition(node):
                with contextlib.suppress(NameError):
                    run(node, cell.file, module)
    return module


ROWS = itertools.zip_longest(*CHOICES.values(), fillvalue=("as it is", {}, None))
PAIRS = {f"D: {d[0]}, G: {g[0]}": (d[1], g[1]) for d, g in ROWS}


@pytest.mark.parametrize("d_changes, g_changes", PAIRS.values(), ids=PAIRS)
def test_a_choice_works_to_the_end_of_the_notebook(d_changes, g_changes, tmp_path):
    own_D = changed(checks.test_discriminator, d_changes)
    own_G = changed(checks.test_generator, g_changes)
    lesson = lesson_with(Discriminator=own_D, Generator=own_G)
    for check in LATER:
        check(*(getattr(lesson, name) for name in inspect.signature(check).parameters))

    D, G = lesson.build_network(8, 8, 10, 32)
    x, z = checks.pictures(4, 32), torch.randn(4, 10)
    helpers.summary(D, 3, 32, 32)
    helpers.summary(G, 10)
    lesson.gradient_norm(D, x).square().mean().backward()
    assert lesson.MinibatchStdDiscriminator(8)(x).shape == (4, 1)
    for norm in ("instance", "group", None):
        assert lesson.exchange_norm(copy.deepcopy(D), norm)(x).shape == (4, 1)
    assert lesson.pad_with(lesson.spectral_norm_everywhere(D), "reflect")(x).shape == (4, 1)
    averaged = AveragedModel(G, multi_avg_fn=lesson.moving_average)
    averaged.update_parameters(G)
    helpers.recalibrate_batch_norm(averaged.module, 10, batches=2)
    helpers.export_generator(averaged.module, tmp_path / "generator.pt2")
    exported = torch.export.load(tmp_path / "generator.pt2").module()
    assert torch.allclose(exported(z), averaged.module(z), atol=1e-5)


# ---------------------------------------------------------------- what is refused

WRONG = {
    checks.test_discriminator: [
        ("no features", {"self.features": "self.body"}, "features: expected an nn.Sequential"),
        ("no logit", {"self.logit": "self.head"}, r"logit: expected an nn.Linear .* got none"),
        (
            "flattened in forward",
            {", nn.Flatten())": ")", "self.features(x)": "self.features(x).flatten(1)"},
            r"last layer of .*features: expected nn.Flatten\(\), got LeakyReLU",
        ),
        ("channels that stay", {"min(2 * n, 8 * conv_dim)": "n"}, "double the channels"),
        ("channels of its own", {"__init__()": "__init__(); conv_dim = 16"}, "got .2, 32, 4, 4"),
        ("fixed halvings", {"while size > 4:": "for _ in range(2):"}, "8, 16.* any image_size"),
        ("no padding", {D_LAYERS: D_LAYERS.replace("2, 1, b", "2, 0, b")}, "until 4 x 4"),
        ("a fixed size", {", nn.Fl": ", nn.AdaptiveAvgPool2d(4), nn.Fl"}, "image twice as large"),
        ("a layer in a list", {"nn.Sequential(*layers, nn.Flatten())": "[*layers]"}, "got list"),
        (
            "a convolution for the logit",
            {"nn.Linear(n * 4 * 4, 1)": CONV_LOGIT},
            "logit: expected an nn.Linear",
        ),
        ("two logits", {"4 * 4, 1)": "4 * 4, 2)"}, r"expected nn.Linear\(256, 1\), got nn.Linear"),
        ("no activation", {"nn.LeakyReLU(0.2)": "nn.Identity()"}, "got a linear network"),
        ("a sigmoid", {D_PARTS: f"{D_PARTS}.sigmoid()"}, "got 0.00 to 1.00. Is there a sigmoid"),
        ("a tanh", {D_PARTS: f"{D_PARTS}.tanh()"}, "raw logits .* got -1.00 to 1.00"),
        ("a relu", {D_PARTS: f"{D_PARTS}.relu()"}, "raw logits .* got 0.00|different logits"),
        (
            "a norm on the logit",
            {
                "self.logit =": "self.norm = nn.BatchNorm1d(1)\n        self.logit =",
                D_PARTS: f"self.norm({D_PARTS})",
            },
            "No layer follows self.logit",
        ),
        ("a vector", {".float()": ".squeeze(1)"}, r"expected the shape \(2, 1\), got \(2,\)"),
        ("the mean", {D_PARTS: f"{D_PARTS}.mean(0, True)"}, "expected the shape"),
        ("x ignored", {"features(x)": "features(0 * x)"}, "different logits"),
        ("detached", {"(x))": "(x).detach())"}, "gradient for features.0.weight"),
        (
            "unused",
            {
                "nn.Linear(n": "nn.Linear(n",
                "self.logit =": "self.more = nn.Linear(2, 2)\n        self.logit =",
            },
            "gradient for more.weight, got none. Is the layer used",
        ),
        (
            "frozen",
            {"n * 4 * 4, 1)": "n * 4 * 4, 1)\n        self.logit.requires_grad_(False)"},
            "logit.weight to learn",
        ),
        (
            "old spectral norm",
            {"nn.Linear(n * 4 * 4, 1)": OLD_SPECTRAL},
            "nn.utils.parametrizations",
        ),
        ("a tensor on the CPU", {"(x))": "(x) + torch.zeros(len(x), 1))"}, "input's device"),
        (
            "a number read",
            {"return": "x = x if x.max() > 1 else 1 * x\n        return"},
            "read no values",
        ),
        (
            "activations kept",
            {"return ": "self.seen = self.features(x)\n        return "},
            "Keep no activations",
        ),
        (
            "norms elsewhere",
            {f"layers += [{D_LAYERS}]": f"layers += [Block({D_LAYERS})]"},
            "in the same nn.Sequential",
        ),
        ("any size", ANY_SIZE, "image_size = .* names image_size, got"),
        ("a loop without end", ENDLESS, "image_size = 48.*TimeoutError: a loop that does not end"),
        ("eps for momentum", {"Norm2d(m)": "Norm2d(m, 0.8)"}, "eps=0.8.*is eps, not momentum"),
        ("no averages", {"Norm2d(m)": f"Norm2d(m, {UNTRACKED})"}, "needs running averages"),
        ("averages that stay", {"Norm2d(m)": "Norm2d(m, momentum=0.0)"}, "needs running averages"),
        ("averages over all", {"Norm2d(m)": "Norm2d(m, momentum=None)"}, "leave affine, mom"),
        ("no scale", {"Norm2d(m)": "Norm2d(m, affine=False)"}, "it learns a scale"),
        ("a clamp", {D_PARTS: f"{D_PARTS}.clamp(-10, 10)"}, "Large weights, .* clamp has no grad"),
        ("a wide tanh", {D_PARTS: f"(10 * ({D_PARTS} / 10).tanh())"}, "Large weights, .* No layer"),
        ("64 bits", {".float()": ".double()"}, "32-bit floats, got torch.float64"),
        ("16 bits", {".float()": ".half()"}, "32-bit floats, got torch.float16"),
        ("in place", {"return": "x += 1\n        return"}, "input of forward unchanged"),
        ("noise", {"(x))": "(x + torch.randn_like(x)))"}, "the same output each time.* noise"),
        ("endless dropout", {D_PARTS: DROPPED}, "the same output each time.* F.dropout"),
        ("lazy layers", {"nn.Conv2d(n, m": "nn.LazyConv2d(m"}, "all sizes given, got lazy"),
        ("no return", NO_RETURN, "got None. Is there a `return`?"),
        ("no super", NO_SUPER, r"begins with super\(\).__init__\(\)"),
    ],
    checks.test_generator: [
        (
            "no layers",
            {"self.layers": "self.body"},
            "G.layers: expected an nn.Sequential, got none",
        ),
        (
            "tanh in layers",
            {"(*layers)": "(*layers, nn.Tanh())", ".tanh()": ""},
            "got Tanh after it",
        ),
        (
            "a norm before tanh",
            {"(*layers)": "(*layers, nn.BatchNorm2d(3))"},
            "got BatchNorm2d after",
        ),
        ("no last bias", {", bias=True": ""}, "bias=True. as the last"),
        (
            "no upsample",
            {"def upsample": "def double", "self.upsample": "self.double"},
            "a method upsample",
        ),
        (
            "a layer for a list",
            {
                "return [": "return ",
                "=bias)]": "=bias)",
                "*self.upsample": "self.upsample",
                G_LAST: f"[{G_LAST}]",
            },
            "expected a list of layers, got ConvTranspose2d. Put it into",
        ),
        ("norm in upsample", {"=bias)]": f"=bias), {NORMED}"}, "Put these after it in __init__"),
        ("ReLU in upsample", {"=bias)]": "=bias), nn.ReLU()]"}, "Put these after it in __init__"),
        ("a bias always", {"=bias)]": "=True)]"}, "expected no bias, got one"),
        ("a bias never", {"=bias)]": "=False)]"}, "expected a bias, got none"),
        (
            "no bias argument",
            {", bias=False):": "):", "=bias)": "=True)", ", bias=True)": ")"},
            "TypeError.*bias",
        ),
        (
            "upsample skipped",
            {G_LAST: "[nn.ConvTranspose2d(conv_dim, 3, 4, 2, 1)]"},
            "self.upsample for each",
        ),
        (
            "one layer of upsample",
            {"*self.upsample(n, m)": "self.upsample(n, m)[0]"},
            "Take all layers of the list",
        ),
        (
            "no norm",
            {"nn.BatchNorm2d(m)": "nn.Identity()", "nn.BatchNorm2d(n)": "nn.Identity()"},
            r"for \[16, 8\] channels, got \[\]",
        ),
        ("a norm missing", {"nn.BatchNorm2d(n), ": ""}, "after the linear layer and after each"),
        (
            "instance norm",
            {"nn.BatchNorm2d(m)": "nn.InstanceNorm2d(m)"},
            "expected nn.BatchNorm2d after",
        ),
        (
            "norm before the linear layer's maps",
            {"bias=False), nn.Unf": "bias=False), nn.BatchNorm1d(n * 16), nn.Unf"},
            r"layers\[1\]: expected nn.Unflatten",
        ),
        ("a view", {", nn.Unflatten(1, (n, 4, 4))": ""}, r"layers\[1\]: expected nn.Unflatten"),
        ("channels that stay", {HALF: "conv_dim", WIDEST: "conv_dim"}, "channels halve"),
        ("no activation", {"nn.ReLU()": "nn.Identity()"}, "got a linear network"),
        ("no forward", {"def forward": "def back"}, "expected a method forward, got none"),
        ("a sigmoid", {".tanh()": ".sigmoid()"}, "from -1 to 1, got 0.00 to 1.00"),
        ("no tanh", {".tanh()": ""}, "from -1 to 1, got -[1-9]"),
        (
            "a clamp",
            {".tanh()": ".clamp(-1, 1)"},
            r"tanh\(self.layers\(z\)\).* clamp has no gradient",
        ),
        ("z ignored", {"self.layers(z)": "self.layers(torch.ones_like(z))"}, "different images"),
        ("z_size forgotten", {"self.z_size = z_size": ""}, "G.z_size: expected 10, got None"),
        ("a broken z_size", {"_size = z_size": "_size = float(z_size)"}, "expected 10, got 10.0"),
        ("eps for momentum", {"Norm2d(m)": "Norm2d(m, 0.8)"}, "eps=0.8.*is eps, not momentum"),
        ("no averages", {"Norm2d(m)": f"Norm2d(m, {UNTRACKED})"}, "needs running averages"),
        ("no scale", {"Norm2d(n)": "Norm2d(n, affine=False)"}, "it learns a scale"),
        ("64 bits", {".tanh()": ".tanh().double()"}, "32-bit floats, got torch.float64"),
        ("noise", {"(z)": "(z + torch.randn_like(z))"}, "the same output each time.* noise"),
        (
            "z_size used later",
            {"self.layers(z)": "self.layers(z.view(-1, self.z_size))"},
            "Take sizes from z|changed G.z_size|RuntimeError",
        ),
        (
            "fixed doublings",
            {"while size < image_size:": "for _ in range(2):"},
            "self.upsample for each|channels",
        ),
        ("any size", ANY_SIZE, "names image_size, got"),
        ("no return", NO_RETURN, "got None. Is there a `return`?"),
        ("no super", NO_SUPER, r"begins with super\(\).__init__\(\)"),
    ],
}


@pytest.mark.parametrize("check, what, changes, message", **table(WRONG))
def test_wrong_networks_are_refused(check, what, changes, message):
    with pytest.raises(AssertionError, match=f"(?s){message}") as caught:
        check(changed(check, changes))
    text = str(caught.value)
    assert len(text) < 500, f"expected a sentence or two, got {text}"
    assert text.endswith("empty the stub to continue with the solution.")


def network_of_a_function(conv_dim, image_size=32):
    check_size(image_size)
    return Discriminator(conv_dim, image_size)


def test_a_function_is_no_network():
    with pytest.raises(AssertionError, match="expected a class that derives from nn.Module"):
        checks.test_discriminator(network_of_a_function)
    with pytest.raises(AssertionError, match="expected a class that derives from nn.Module"):
        checks.test_generator(lambda z_size, conv_dim: Generator(z_size, conv_dim))
