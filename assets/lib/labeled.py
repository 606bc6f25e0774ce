"""Faces with labels: those that are known, else those that the face network predicts."""

import copy
import math

import torch

from assets.lib.faces import LEAST_IN_DOMAIN, WELL_KNOWN
from assets.lib.files import DataError, say_once
from assets.lib.network import attribute_logits, load_face_network, right_when_sure
from assets.lib.scores import face_features
from assets.lib.settings import DEFAULT_LABELS, check, check_choice

SURE = math.log(4)  # a logit beyond it, for an answer with a probability of 80%, is sure
MOST = 20_000  # training faces that get predicted labels
BATCH = 2000


def with_labels(faces):
    """DecodedFaces with labels: these faces if theirs are known, else a copy with predicted ones.

    The face network predicts CelebA's attributes. Where it is not sure of one, `sure_of` leaves the
    face out. A sentence says how often the network is right.
    """
    if faces.known:
        return faces
    attributes = load_face_network()[0]
    logits = torch.zeros(len(faces.images), len(attributes))  # 0: not sure
    for rows in rows_to_label(faces).split(BATCH):
        images = faces.images[rows.to(faces.images.device)].float() / 127.5 - 1
        logits[rows] = attribute_logits(face_features(images), attributes)
    labeled = copy.copy(faces)
    labeled.known = dict(zip(attributes, (logits > 0).T))
    labeled.sure = dict(zip(attributes, (logits.abs() > SURE).T))
    right = right_when_sure()
    shown = *WELL_KNOWN, DEFAULT_LABELS["domain_label"]
    shares = ", ".join(f"{name} {right[name]:.0%}" for name in shown)
    say_once(
        "There is no list of labels, so the face network predicts them. "
        f"Where it is sure, it is right on CelebA's faces: {shares}."
    )
    return labeled


def rows_to_label(faces):
    """All faces held out, and up to MOST of the others, which are trained on."""
    training, held_out = (x.nonzero().flatten() for x in (faces.parts == 0, faces.parts > 0))
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:MOST]
    return torch.cat([training[chosen], held_out]).sort()[0]


def choose_labels(faces, names=None, most=5):
    """Labels to generate by, and the faces of which all of them are known -> faces, names.

    `names`: those wanted; None: the first usable ones, up to `most`. The last ones are left out
    while too few faces have the others; no names are left where no label is usable.
    """
    names = list(names or faces.usable_labels()[:most])
    while names and not {*names} <= {*faces.sure_of(*names).usable_labels()}:
        names.pop()
    return faces.sure_of(*names), names


def check_faces(faces, label_names=None, domain_label=None, domain_same=None):
    """DataError for too few faces; ValueError for a label that is unknown, or too rare to learn."""
    if len(faces) < 4:  # precision and recall look at the third-nearest neighbor
        raise DataError(f"Scores need at least 4 images, and {len(faces)} can be read: add some.")
    chosen = [("label_names", name) for name in label_names or ()]
    chosen += [("domain_label", domain_label), ("domain_same", domain_same)]
    for setting, name in chosen:
        if name is not None and name != DEFAULT_LABELS.get(setting):
            faces = with_labels(faces)
            check_choice(faces.known, **{setting: name})
    for name in label_names or ():
        sure = faces.sure_of(name)
        has = faces.known[name][sure.rows]
        sentence = f"{has.sum()} of {len(has)} training faces have it; 20 must, 20 must not, and "
        sentence += "the held-out faces need both"
        check("label_names", name, faces.usable_labels().__contains__, sentence)
    if label_names:
        sentence = "too few faces have predictions of all of them that are sure; name fewer"
        check("label_names", label_names, lambda x: choose_labels(faces, x)[1] == [*x], sentence)
    if domain_label not in (None, DEFAULT_LABELS["domain_label"]):
        sentence = "too few faces with it and without it are alike in domain_same: each part of "
        sentence += f"the data, train, validation and test, needs {LEAST_IN_DOMAIN} of both"
        is_split = faces.split_domains(domain_label, domain_same)
        check("domain_label", domain_label, lambda _: is_split, sentence)
