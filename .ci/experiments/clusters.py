"""Condition the notebook's whole run on clusters: a recipe of results.py.

Both networks know which cluster of features a face belongs to (Liu et al., 2020), so no labels are
needed.
"""

from functools import partial

import torch
import torch.nn.functional as F
from common import helpers, lesson
from torch import nn

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


def label_by_clusters(dataset):
    """Let the dataset serve, one-hot, the cluster of each face -> those of training faces."""
    features = helpers.face_features(lesson.real_faces(dataset, "train", len(dataset)))
    found = F.one_hot(cluster(features, N_CLUSTERS), N_CLUSTERS).float()
    labels = torch.zeros(len(dataset.images), N_CLUSTERS)
    labels[dataset.rows] = found
    dataset.labels = labels
    return found


class Labeled(nn.Module):
    """A network whose labels are known: it is called, and trained, like one without."""

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


def by_clusters(settings, D, G, faces):
    labels = label_by_clusters(faces)
    D_kind = partial(lesson.ProjectionDiscriminator, n_labels=N_CLUSTERS)
    D, G = lesson.fresh(settings, D=D_kind, G=partial(lesson.ConditionalGenerator, labels=labels))
    nn.init.zeros_(D.embedding.weight)  # at first the clusters play no part
    options = {"step": lesson.regularized_step, "schedule": "linear", "loop": train_with_labels}
    return options | {"D": D, "G": G}
