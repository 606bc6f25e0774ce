"""The proof of the checks under functions: right ones pass, wrong ones get the right sentence.

Each row changes pieces of a plain solution: the result is still right, or wrong in one way.
"""

import pytest
from plain_solutions import changed, table

import problem_unittests as checks

BCE = "F.binary_cross_entropy_with_logits(D_out, torch.full_like(D_out, label))"
LABELS = "torch.full_like(D_out, label)"
SQUARES = {BCE: "((D_out - label) ** 2).mean()"}
P = "p = D_out.sigmoid().clamp(1e-7, 1 - 1e-7)"
SATURATED = "gradient at logits of .* sigmoid, a log or a clamp"
BACKWARD = "label))\n    loss.backward()\n    return loss"
INTERPOLATED = "torch.from_numpy(np.interp(x.numpy(), (0, 1), (low, high))).float()"
DRAW = "nn.init.normal_(m.weight, 0, 0.02)"
NORMAL = "torch.from_numpy(np.random.default_rng().normal(0, 0.02, m.weight.shape))"
LAYERS = "isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))"
HAS_WEIGHT = "getattr(m, 'weight', None) is not None"
SQUEEZED = "F.binary_cross_entropy_with_logits(D_out.squeeze(), torch.full((len(D_out),), label))"
OVERFLOW = "-(D_out.sigmoid() if label else 1 - D_out.sigmoid()).log().mean()"
CLAMPED = "-(p.log() if label else (1 - p).log()).mean()"
IN_PLACE = {"return F": "with torch.no_grad(): D_out.clamp_(-1, 1)\n    return F"}

REAL = "real_loss(D(real), smooth=True)"
FAKE = "fake_loss(D(fake.detach()))"
D_LOSS = f"{REAL} + {FAKE}"
G_LOSS = "real_loss(D(fake))"
ONLY_G = "g_loss.backward(inputs=list(G.parameters()))"
RESULT = "d_loss.detach(), g_loss.detach()"
D_STEP = """    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
"""
G_STEP = """    g_loss = real_loss(D(fake))
    g_optimizer.zero_grad()
    g_loss.backward(inputs=list(G.parameters()))
    g_optimizer.step()
"""
KEPT_GRAPH = {
    "fake.detach()": "fake",
    "d_loss.backward()": "d_loss.backward(retain_graph=True)",
}
MORE_D_STEPS = f"""for _ in range(2):
        d_optimizer.zero_grad()
        ({D_LOSS}).backward()
        d_optimizer.step()
    g_loss ="""
OWN_GRADIENTS = """for p, g in zip(G.parameters(), torch.autograd.grad(g_loss, G.parameters())):
        p.grad = g"""
NEW_FAKES = G_STEP.replace("D(fake)", "D(G(z))")
AT_ONCE = """    g_loss = real_loss(D(fake))
    d_optimizer.zero_grad()
    g_optimizer.zero_grad()
    d_loss.backward()
    g_loss.backward(inputs=list(G.parameters()))
    d_optimizer.step()
    g_optimizer.step()
"""
LATE_STEP = """    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
"""
CLIP = "nn.utils.clip_grad_norm_(D.parameters(), 1e-3)"
CLEARED_FIRST = "d_optimizer.zero_grad(); d_optimizer.step()"
CLEARED_LAST = {
    "    d_optimizer.zero_grad()\n": "",
    "    g_optimizer.zero_grad()\n": "",
    "    return": "    d_optimizer.zero_grad()\n    g_optimizer.zero_grad()\n    return",
}
TOGETHER = """both = D(torch.cat([real, fake.detach()]))
    d_loss = real_loss(both[: len(real)], smooth=True) + fake_loss(both[len(real) :])"""
RANDN = "torch.randn(len(real), G.z_size, device=real.device)"
GENERATOR = "torch.Generator().manual_seed(0)"


# ---------------------------------------------------------------- right solutions

# the note, or None where the text has it, too
RIGHT = {
    checks.test_scale: [
        ("as it is", {}, None),
        (
            "interpolated",
            {"x * (high - low) + low": "torch.full_like(x, low).lerp(torch.full_like(x, high), x)"},
            None,
        ),
    ],
    checks.test_weights_init: [
        ("as it is", {}, None),
        (
            "by the name of the layer",
            {
                "isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))": (
                    "any(kind in type(m).__name__ for kind in ('Conv', 'Linear'))"
                ),
                "nn.init.normal_(m.weight, 0, 0.02)": "m.weight.data.normal_(0, 0.02)",
            },
            None,
        ),
        (
            "norms around 1",
            {
                "    if isinstance": "    if isinstance(m, nn.BatchNorm2d):\n"
                "        nn.init.normal_(m.weight, 1, 0.02)\n    if isinstance"
            },
            "batch normalization starts with random numbers",
        ),
    ],
    checks.test_build_network: [("as it is", {}, None)],
    checks.test_real_loss: [
        ("as it is", {}, None),
        ("written out", {BCE: "(F.softplus(D_out) - label * D_out).mean()"}, None),
        ("a module", {"F.binary_cross_entropy_with_logits(": "nn.BCEWithLogitsLoss()("}, None),
        ("other labels", {LABELS: "label * torch.ones_like(D_out)"}, None),
        (
            "a printed number",
            {"return F": "print(D_out.mean().item(), end='')\n    return F"},
            None,
        ),
    ],
    checks.test_fake_loss: [
        ("as it is", {}, None),
        ("written out", {BCE: "F.softplus(D_out).mean()"}, None),
        ("labels with a gradient", {LABELS: f"{LABELS}.requires_grad_()"}, None),
    ],
    checks.test_adam: [
        ("as it is", {}, None),
        ("fused", {"lr=rate": "rate, fused=True"}, None),
        ("weight decay", {"lr=rate": "rate, weight_decay=0.01"}, "Adam with weight_decay=0.01"),
        ("amsgrad", {"lr=rate": "rate, amsgrad=True"}, "Adam with amsgrad=True"),
    ],
    checks.test_train_step: [
        ("as it is", {}, None),
        ("two batches of fakes", {G_LOSS: "real_loss(D(G(torch.randn_like(z))))"}, "new fakes"),
        ("the generator first", {G_STEP: "", "    d_loss =": f"{G_STEP}    d_loss ="}, None),
        ("gradients of G only", {ONLY_G: OWN_GRADIENTS}, None),
        ("all gradients", {ONLY_G: "g_loss.backward()"}, "G's backward changes D's gradients"),
        ("in one batch", {f"d_loss = {D_LOSS}": TOGETHER}, "D sees real faces and fakes in one"),
        ("fakes without a graph", {FAKE: "fake_loss(D(fake.clone().detach()))"}, None),
        ("a printed loss", {"    return": "    print(f'{d_loss:.2f}', end='')\n    return"}, None),
        ("three steps of D", {"g_loss =": MORE_D_STEPS}, "9 steps of D for 3 of G"),
        ("two steps of G", {"    return": f"{NEW_FAKES}    return"}, "3 steps of D for 6 of G"),
        ("at the same time", {D_STEP: "", G_STEP: AT_ONCE}, None),
        ("cleared at the end", CLEARED_LAST, "D has no gradients after the step"),
        ("clipped", {"d_optimizer.step()": f"{CLIP}; d_optimizer.step()"}, None),
        (
            "a step of D for each half",
            {"    d_loss =": f"    r_loss = d_loss = {REAL}\n{D_STEP}    d_loss =", D_LOSS: FAKE}
            | {"return d_loss": "d_loss = r_loss + d_loss\n    return d_loss"},
            "6 steps of D for 3 of G",
        ),
    ],
    checks.test_train: [
        ("as it is", {}, None),
        ("from the first step", {"% print_every == 0": "% print_every == 1 % print_every"}, None),
    ],
}


@pytest.mark.parametrize("check, what, changes, note", **table(RIGHT))
def test_right_solutions_pass(check, what, changes, note, capsys):
    check(changed(check, changes))
    *_, passed = capsys.readouterr().out.partition("Tests Passed\n")
    assert passed.startswith(f"Note: {note}") if note else not passed, f"got {passed}"


# ---------------------------------------------------------------- wrong solutions

WRONG_LOSSES = [
    ("the input ignored", {"(D_out, torch": "(0 * D_out, torch"}, "to depend on D_out"),
    ("a sum", {"label))": "label), reduction='sum')"}, "the mean over the images"),
    ("not reduced", {"label))": "label), reduction='none')"}, r"shape \(\), got \(6, 1\)"),
    ("a sigmoid too many", {"logits(D_out,": "logits(D_out.sigmoid(),"}, "extra sigmoid"),
    ("least squares", SQUARES, "This is least squares"),
    ("half least squares", {BCE: f"F.mse_loss(D_out, {LABELS}) / 2"}, "half of least squares"),
    ("an overflow", {BCE: OVERFLOW}, "expected a finite number"),
    ("detached", {"return F": "D_out = D_out.detach()\n    return F"}, "got a detached loss"),
    ("on the CPU", {LABELS: "torch.full(D_out.shape, label)"}, "Put the labels on D_out.device"),
    ("squeezed", {BCE: SQUEEZED}, "The labels need the shape of the logits"),
    ("a column", {LABELS: "torch.full((len(D_out), 1), label)"}, r"logits of|shape of the logits"),
    ("a number", {"label))": "label)).item()"}, r"expected a tensor, got float. Without .item\(\)"),
    ("in place", IN_PLACE, "changed in place"),
    ("no return", {"return F": "F"}, "loss of 6 logits.* Is there a `return`?"),
    ("its own sigmoid", {BCE: f"nn.BCELoss()(D_out.sigmoid(), {LABELS})"}, SATURATED),
    ("a clamped sigmoid", {f"return {BCE}": f"{P}\n    return {CLAMPED}"}, f"{SATURATED}|0.9"),
    ("clamped logits", {"logits(D_out": "logits(D_out.clamp(-10, 10)"}, SATURATED),
    ("64 bits", {LABELS: f"{LABELS}.double()"}, "expected float32, got torch.float64"),
    (
        "a backward of its own",
        {"return F": "loss = F", "label))": BACKWARD},
        r"no backward\(\) in it",
    ),
    ("a new tensor", {BCE: f"torch.tensor({BCE}.item(), requires_grad=True)"}, "got a detached"),
    ("classes", {BCE: f"F.cross_entropy(D_out, {LABELS})"}, "to depend on D_out.*logits, labels"),
    ("whole numbers", {LABELS: f"{LABELS}.long()"}, "Labels are floats"),
    ("labels first", {f"D_out, {LABELS}": f"{LABELS}, D_out"}, "logits come first|in this order"),
    (
        "a column squeezed",
        {"D_out, t": "D_out.squeeze(1), t"},
        r"labels need|shape \(6,\).*any shape",
    ),
    (
        "minus",
        {"return F": "label = 1 - label\n    return -F"},
        "minus the loss for the other label",
    ),
]

WRONG = {
    checks.test_scale: [
        ("to 0..1", {"(-1, 1)": "(0, 1)"}, "of 0 and 1: expected -1, 1, got 0, 1"),
        (
            "the range ignored",
            {"x * (high - low) + low": "x * 2 - 1"},
            r"\(0, 1\), of 0 and 1: expected 0, 1, got -1, 1",
        ),
        (
            "swapped",
            {"low, high = feature_range": "high, low = feature_range"},
            "expected -1, 1, got 1, -1. Are low and high swapped",
        ),
        (
            "stretched to its own range",
            {"return x": "x = (x - x.min()) / (x.max() - x.min())\n    return x"},
            "smallest and largest",
        ),
        ("in place", {"x * (high - low) +": "x.mul_(high - low).add_(low) + 0 *"}, "in place"),
        ("in halves", {"return x": "return x.half()"}, "expected torch.float32"),
        ("no return", {"return x": "x = x"}, "scale to .* got None. Is there a `return`?"),
        (
            "by NumPy",
            {"return x": f"return {INTERPOLATED}  # "},
            "another device: got TypeError.*NumPy",
        ),
        ("a tensor on the CPU", {"+ low": "+ torch.full(x.shape, float(low))"}, "another device"),
        (
            "to the CPU",
            {"+ low": "+ low\n    return x.cpu()", "return x *": "x = x *"},
            "are on the CPU",
        ),
    ],
    checks.test_weights_init: [
        ("0.2 for 0.02", {"0.02": "0.2"}, r"expected 0, 0.02, got .*, 0\.(19|20)"),
        (
            "uniform",
            {"normal_(m.weight, 0, 0.02)": "uniform_(m.weight, -0.0346, 0.0346)"},
            "uniform?",
        ),
        ("biases untouched", {"nn.init.zeros_(m.bias)": "None"}, "Biases .* expected 0, got 0.3"),
        ("linear layers left out", {", nn.Linear": ""}, "Weights of Linear.* expected 0, 0.02"),
        ("norms, too", {"nn.Linear": "nn.Linear, nn.BatchNorm2d"}, "scale and shift"),
        ("a bias expected", {"if m.bias is not None": "if True"}, "got AttributeError"),
        ("a bias in a condition", {"if m.bias is not None": "if m.bias"}, "Ask `is not None`"),
        ("biases removed", {"nn.init.zeros_(m.bias)": "m.bias = None"}, "expected 0, got none"),
        ("64 bits", {DRAW: f"m.weight.data = {NORMAL}"}, "expected float32, got torch.float64"),
        (
            "another parameter",
            {DRAW: f"m.weight = nn.Parameter({NORMAL}.float())"},
            "changes weights in pl",
        ),
        ("a tensor for a parameter", {DRAW: f"m.weight = {NORMAL}"}, "changes weights in place"),
        (
            "NumPy's numbers",
            {DRAW: f"m.weight.data = {NORMAL}.numpy()"},
            "changes weights in place",
        ),
        ("with a gradient", {DRAW: "m.weight.normal_(0, 0.02)"}, "changes weights in place"),
        ("whatever has a weight", {LAYERS: f"{HAS_WEIGHT} and m.weight.dim() > 1"}, "only."),
        ("seeded", {DRAW: f"torch.manual_seed(0)\n        {DRAW}"}, "Two layers.* Is there a seed"),
        (
            "gradients off",
            {DRAW: f"torch.set_grad_enabled(False)\n        {DRAW}"},
            r"weights_init_normal switches gradients off.*with torch.no_grad\(\)",
        ),
    ],
    checks.test_build_network: [
        ("G before D", {"return D, G": "return G, D"}, "gives D, G"),
        ("D as it is", {"(d_conv_dim).apply(weights_init_normal)": "(d_conv_dim)"}, r"D.apply\("),
        ("G as it is", {"g_conv_dim).apply(weights_init_normal)": "g_conv_dim)"}, r"G.apply\("),
        ("one conv_dim", {"z_size, g_conv_dim": "z_size, d_conv_dim"}, "more weights in D"),
        ("one network", {"return D, G": "return G"}, "expected two values, got one Generator"),
        ("three values", {"return D, G": "return D, G, 12"}, "expected two values, got 3"),
        ("no return", {"return D, G": "D, G"}, "got None. Is there a `return`?"),
    ],
    checks.test_real_loss: [
        *WRONG_LOSSES,
        ("swapped", {"1.0": "0.0"}, "are real .1. and fake .0. swapped"),
        ("smooth ignored", {"0.9 if smooth else ": ""}, "the label is 0.9.* Is smooth used"),
        ("smoothed to 0.7", {"0.9": "0.7"}, "smooth=True .*: expected .* the label is 0.9"),
        ("always smoothed", {"1.0": "0.9"}, "real_loss at logits"),
        ("smoothed to the wrong side", {"0.9": "0.1"}, "label is 0.9, and 1 without"),
    ],
    checks.test_fake_loss: [
        *WRONG_LOSSES,
        ("swapped", {"0.0": "1.0"}, "are real .1. and fake .0. swapped"),
        ("smoothed", {"0.0": "0.1"}, "only real labels are smoothed"),
    ],
    checks.test_adam: [
        ("gradient descent", {"Adam(": "SGD(", ", betas=(beta1, 0.999)": ""}, "got SGD"),
        ("AdamW", {"Adam(": "AdamW("}, "got AdamW"),
        ("decoupled decay", {"lr=": "decoupled_weight_decay=True, lr="}, "got AdamW"),
        ("maximized", {"lr=": "maximize=True, lr="}, "minimize the loss, got maximize=True"),
        ("a rate of its own", {"lr=rate": "lr=0.001"}, "learning rate: expected 0.01, got 0.001"),
        ("Adam's momentum", {", betas=(beta1, 0.999)": ""}, "betas: expected 0.4, 0.999, got 0.9"),
        ("a momentum of its own", {"betas=(beta1": "betas=(0.1"}, "expected 0.4, 0.999, got 0.1"),
        ("another beta2", {"0.999": "0.5"}, "expected 0.4, 0.999, got 0.4, 0.5"),
        ("the bias left out", {"network.parameters()": "[network.weight]"}, "other weights"),
        ("no return", {"return ": ""}, "got NoneType"),
        ("no parentheses", {"parameters()": "parameters"}, "with parentheses"),
        ("the network", {"network.parameters()": "network"}, r"takes network.parameters\(\)"),
    ],
    checks.test_train_step: [
        (
            "D never updated",
            {"d_optimizer.step()": "None"},
            r"D was not trained: .* Does d_optimizer.step\(\) run, right after d_loss.backward\(\)",
        ),
        (
            "G never updated",
            {"g_optimizer.step()": "None"},
            r"G was not trained: .* Does g_optimizer.step\(\) run, right after g_loss.backward\(\)",
        ),
        ("G cut off", {G_LOSS: "real_loss(D(fake.detach()))"}, "G was not trained"),
        (
            "G moved by hand",
            {"g_loss =": "[p.data.mul_(0.9) for p in G.parameters()]\n    g_loss ="},
            r"G: expected to move only in g_optimizer.step\(\)",
        ),
        ("not detached", {"fake.detach()": "fake"}, r"second time.* see fake.detach\(\)\?"),
        ("not detached, graph kept", KEPT_GRAPH, r"expected fake.detach\(\), got fakes with the"),
        (
            "D's gradients in G's step",
            KEPT_GRAPH
            | {
                "    g_optimizer.zero_grad()": "    None",
                "d_optimizer.zero_grad()": "d_optimizer.zero_grad(); g_optimizer.zero_grad()",
            },
            r"D\(G\(z\)\) to rise",
        ),
        (
            "G's gradients in D's step",
            {
                "    d_optimizer.zero_grad()\n": "",
                "d_optimizer.step()": "d_optimizer.step(); d_optimizer.zero_grad()",
                ONLY_G: "g_loss.backward()",
            },
            "D's gradients",
        ),
        (
            "D's gradients never cleared",
            {"d_optimizer.zero_grad()": "None"},
            r"D's gradients.* Does d_optimizer.zero_grad\(\) run first",
        ),
        (
            "G's gradients never cleared",
            {"g_optimizer.zero_grad()": "None"},
            r"G's gradients.* Does g_optimizer.zero_grad\(\) run first",
        ),
        (
            "D's labels swapped",
            {D_LOSS: "fake_loss(D(real)) + real_loss(D(fake.detach()))"},
            r"D\(real\) - D\(fake\) to grow",
        ),
        ("no fakes for D", {f" + {FAKE}": ""}, r"D\(fake\) to fall|d_loss above"),
        ("no real images for D", {D_LOSS: FAKE}, "two halves"),
        ("no smoothing", {", smooth=True": ""}, "d_loss: expected .* Is it smooth=True for"),
        ("smoothing for G", {G_LOSS: "real_loss(D(fake), smooth=True)"}, "G's loss is not smooth"),
        ("half of d_loss", {D_LOSS: f"({D_LOSS}) / 2"}, "the sum of both halves, not their mean"),
        ("G helps D", {G_LOSS: "fake_loss(D(fake))"}, r"D\(G\(z\)\) to rise"),
        ("the saturating loss", {G_LOSS: "-fake_loss(D(fake))"}, "-fake_loss is flat where D is"),
        (
            "least squares",
            {D_LOSS: "((D(real) - 1) ** 2).mean() + (D(fake.detach()) ** 2).mean()"},
            r"d_loss: expected real_loss\(D\(real\), smooth=True\) \+ fake_loss",
        ),
        (
            "hinge",
            {D_LOSS: "F.relu(1 - D(real)).mean() + F.relu(1 + D(fake.detach())).mean()"},
            "d_loss: expected real_loss",
        ),
        ("the mean logit for G", {G_LOSS: "-D(fake).mean()"}, r"g_loss: expected real_loss\(D\("),
        (
            "G's loss in D's step",
            {D_STEP: "", G_STEP: AT_ONCE.replace("inputs=list(G.parameters())", "")},
            "D's gradient in d_optimizer.step.*: expected that of d_loss, got more",
        ),
        (
            "g_loss too early",
            {"    d_loss =": "    g_loss = real_loss(D(fake))\n    d_loss =", G_STEP: LATE_STEP},
            "inplace operation.* Compute g_loss after",
        ),
        (
            "optimizers swapped",
            {"d_optimizer.step()": "x", "g_optimizer.step()": "d_optimizer.step()"}
            | {"    x\n": "    g_optimizer.step()\n"},
            "G's gradients: expected some in its first step, got none",
        ),
        (
            "D in eval mode",
            {"    g_loss =": "    D.eval()\n    g_loss ="},
            "training mode as before",
        ),
        (
            "D in eval mode for G",
            {
                "    g_loss =": "    D.eval()\n    g_loss =",
                "    return": "    D.train()\n    return",
            },
            "D: expected training mode throughout",
        ),
        (
            "cleared between backward and step",
            {"    d_optimizer.zero_grad()\n": "", "d_optimizer.step()": CLEARED_FIRST},
            "D was not trained: .* with zero_grad before both",
        ),
        (
            "set to 0 at the end",
            {"    return": "    D.zero_grad(set_to_none=False)\n    return"},
            "to be there still.*not after the step",
        ),
        (
            "a rate that falls",
            {"    return": "    d_optimizer.param_groups[0]['lr'] *= 0.99\n    return"},
            "D's rate: expected 0.003 as before, got 0.00",
        ),
        (
            "no step where D is good",
            {"d_optimizer.step()": "(d_optimizer.step() if d_loss > 1 else None)"},
            "far ahead: expected a step of both, got one of G",
        ),
        ("scaled in place", {"    z =": "    real.mul_(2).sub_(1)\n    z ="}, "`real` unchanged"),
        ("noise", {"D(real)": "D(real + 0.3 * torch.randn_like(real))"}, "Nor does it add noise"),
        (
            "64 bits",
            {"device=real.device": "device=real.device, dtype=torch.double"},
            "got torch.float64",
        ),
        ("images kept", {"fake = G(z)": "fake = G.last = G(z)"}, "Keep no images in D or G"),
        ("live losses", {RESULT: "d_loss, g_loss"}, "expected a detached number"),
        ("numbers", {RESULT: "d_loss.item(), g_loss.item()"}, "d_loss: expected a tensor, got a n"),
        ("reversed losses", {RESULT: "g_loss.detach(), d_loss.detach()"}, "d_loss above g_loss"),
        ("a global read", {"G.z_size": "len(SOLUTIONS)"}, "the global SOLUTIONS"),
        ("a z_size of its own", {"G.z_size": "10"}, "G.s latents: expected the shape"),
        ("a batch of 32", {"len(real), G": "32, G"}, "20 real images: expected 20 latents"),
        ("on the CPU", {", device=real.device": ""}, "device=real.device"),
        ("uniform latents", {"torch.randn(": "torch.rand("}, "latents, mean .* torch.randn"),
        (
            "one latent",
            {RANDN: "torch.randn(1, G.z_size, device=real.device).repeat(len(real), 1)"},
            "expected as many latents|latents, mean",
        ),
        (
            "seeded",
            {"    z =": "    torch.manual_seed(0)\n    z ="},
            "84 real images: expected as many latents, new ones in each step.* without a seed",
        ),
        (
            "seeded by a generator",
            {RANDN: f"torch.randn(len(real), G.z_size, generator={GENERATOR}).to(real.device)"},
            "new ones in each step",
        ),
        ("scaled twice", {"D(real)": "D(scale(real))"}, r"`real` as it is.*no scale\(\)"),
        ("images only", {"len(real)": "real.view(-1, 3, 16, 16).shape[0]"}, r"shape \(8, 2\)"),
        (
            "D left frozen",
            {"return d_loss": "D.requires_grad_(False)\n    return d_loss"},
            "requires_grad|RuntimeError",
        ),
        ("one loss", {", g_loss.detach()": ""}, "expected two values, got one Tensor"),
        ("no return", {f"return {RESULT}": ""}, "Is there a `return`?"),
    ],
    checks.test_train: [
        (
            "D never updated",
            {"real, d_optimizer": "real, torch.optim.SGD(D.parameters(), 0)"},
            "D was not trained",
        ),
        (
            "G never updated",
            {"g_optimizer)\n": "torch.optim.SGD(G.parameters(), 0))\n"},
            "G was not trained",
        ),
        ("a copy trained", {"_step(D, G": "_step(D, Generator(G.z_size, 8)"}, "RuntimeError|G was"),
        ("not scaled", {"scale(images)": "images"}, "expected -1 to 1, .* got 0.00"),
        ("scaled twice", {"scale(images)": "scale(scale(images))"}, "got -3.00"),
        ("one epoch", {"range(n_epochs)": "range(1)"}, "expected 6 pairs"),
        ("print_every ignored", {"n_steps % print_every == 0": "True"}, "expected 6 pairs"),
        ("not a number", {"d_loss.item()": "float('nan')"}, "one finite number, got nan"),
        ("one loss", {"(d_loss.item(), g_loss.item())": "(d_loss.item(),)"}, "two values, got 1"),
        ("live losses", {"d_loss.item()": "d_loss.requires_grad_()"}, "with its graph"),
        ("a global read", {"range(n_epochs)": "range(n_epochs or len(SOLUTIONS))"}, "SOLUTIONS"),
        ("no return", {"return losses": ""}, "returned None|Is there a `return`?"),
    ],
}


@pytest.mark.parametrize("check, what, changes, message", **table(WRONG))
def test_wrong_solutions_are_refused(check, what, changes, message):
    with pytest.raises(AssertionError, match=f"(?s){message}") as caught:
        check(changed(check, changes))
    text = str(caught.value)
    assert len(text) < 500, f"expected a sentence or two, got {text}"
    ending = "Correct it, or empty the stub to continue with the solution."
    assert text.endswith(ending) == check.of_exercise, f"got {text}"
