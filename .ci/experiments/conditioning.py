"""Condition the notebook's whole run on what is known about each face: recipes of results.py.

Both networks get the attributes of a face, or the cluster that its features belong to, which needs
no labels (Liu et al., 2020). Everything else is as in the notebook.
"""

from functools import partial

import torch
import torch.nn.functional as F
from common import helpers, lesson
from torch import nn

ATTRIBUTES = "Male", "Young", "Smiling", "Eyeglasses", "No_Beard", "Heavy_Makeup"
N_CLUSTERS = 20


def cluster(features, k, n_times=30):
    """k-means: rows (n, d) -> the cluster of each, (n,)."""
    source = torch.Generator().manual_seed(0)
    features = (features - features.mean(0)) / features.std(0)
    centers = features[torch.randperm(len(features), generator=source)[:k]]
    for _ in range(n_times):
        nearest = torch.cdist(features, centers).argmin(1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, features)
        counts = nearest.bincount(minlength=k)[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return nearest


def clusters_of(faces):
    """The cluster of each training face of DecodedFaces, one-hot: (n, N_CLUSTERS)."""
    features = helpers.face_features(lesson.real_faces(faces, "train", len(faces)))
    return F.one_hot(cluster(features, N_CLUSTERS), N_CLUSTERS).float()


def attributes_of(faces):
    """ATTRIBUTES of each training face of DecodedFaces, 0 or 1: (n, k)."""
    return torch.stack([faces.known[name] for name in ATTRIBUTES], 1).float()[faces.rows]


class Labeled(nn.Module):
    """A conditional network with fixed labels: call and train it like one without labels."""

    def __init__(self, network, labels):
        super().__init__()
        self.network, self.labels = network, labels
        self.z_size = getattr(network, "z_size", None)

    def forward(self, x):
        return self.network(x, self.labels)


def train_with_labels(run, loader, step, schedule):
    """common.train, with the labels of each batch for both networks."""
    parts, device = run.parts, helpers.find_device()
    D, G, averaged = parts["D"].train(), parts["G"].train(), parts["averaged"]
    optimizers = parts["d_optimizer"], parts["g_optimizer"]
    with run, helpers.autocast(device):
        for epoch in run.epochs(10**6):
            for images, labels in run.watch(loader, epoch):
                real, labels = lesson.scale(images.to(device)), labels.to(device)
                lesson.set_rates(optimizers, schedule, run.progress)
                networks = Labeled(D, labels), Labeled(G, labels)
                losses = step(*networks, real, *optimizers, run=run)
                averaged.update_parameters(G)
                run.log(*losses, len(images))


def conditioned(settings, D, G, faces, labels_of):
    """The whole run with labels_of(faces), (n, k), for both networks."""
    labels = labels_of(faces)
    faces.labels = torch.zeros(len(faces.images), labels.shape[1])
    faces.labels[faces.rows] = labels  # the loader serves them with the images
    D_kind = partial(lesson.ProjectionDiscriminator, n_labels=labels.shape[1])
    D, G = lesson.fresh(settings, D=D_kind, G=partial(lesson.ConditionalGenerator, labels=labels))
    nn.init.zeros_(D.embedding.weight)  # at first the labels play no part
    options = {"step": lesson.regularized_step, "schedule": "linear", "loop": train_with_labels}
    return options | {"D": D, "G": G}


RECIPES = {
    "notebook, by clusters": partial(conditioned, labels_of=clusters_of),
    "notebook, by attributes": partial(conditioned, labels_of=attributes_of),
}
