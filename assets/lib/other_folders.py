"""The folders of faces besides data_dir, looked at before anything is trained."""

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from assets.lib.decoding import MOST_UNREADABLE
from assets.lib.faces import LEAST_IN_DOMAIN
from assets.lib.files import printable, to_path
from assets.lib.folders import find_images
from assets.lib.pictures import read_image, try_to_read
from assets.lib.settings import check
from assets.lib.sources import find_data

LARGEST_SIZE = 128  # pixels of the largest faces that the lesson trains on
LARGEST_BATCH = 32  # of faces larger than the lesson's own
TRIED = 100  # pictures of a folder that are looked at


def check_folders(settings, faces):
    """ValueError, by its name, for a large_dir or domain_dirs that cannot be trained on.

    `faces`: the lesson's DecodedFaces. If enough of their pictures are large, large_dir is not
    needed. Of each folder, 100 pictures are read at most.
    """
    if not settings.next_steps:
        return
    if settings.domain_dirs:
        advice = trouble_with_domains(*map(to_path, settings.domain_dirs))
        check("domain_dirs", settings.domain_dirs, lambda _: advice is None, advice)
    batch = min(settings.batch_size or LARGEST_BATCH, LARGEST_BATCH)
    is_smaller = faces.images.shape[-1] < LARGEST_SIZE
    if is_smaller and faces.count_large(LARGEST_SIZE) < batch:
        advice = trouble_with_large(settings.large_dir, batch)
        check("large_dir", settings.large_dir, lambda _: advice is None, advice)


def trouble_with_large(large_dir, least):
    """Why large_dir cannot be trained on, and what to do; None if it can, or will be drawn."""
    folder = to_path(large_dir)
    if str(large_dir) == "drawn" or not folder.exists():
        return None
    if folder.is_file():
        folder = find_data(large_dir)  # unpacks it
    trouble = trouble_with(folder, least, LARGEST_SIZE)
    return trouble and f'it has {trouble}. Add or replace some, or set large_dir = "drawn"'


def trouble_with_domains(without, worn):
    """Why two folders cannot be the domains, and what to do; None if they can."""
    one, other = without.resolve(), worn.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        return "one folder is inside the other. Put them side by side"
    for folder in (without, worn):
        if trouble := trouble_with(folder, LEAST_IN_DOMAIN):
            return f"{str(folder)!r} has {trouble}. Add or replace some, or set domain_dirs = None"
    if shared := shared_images(without, worn):
        number = f"{len(shared):,} images are in both folders, such as {printable(shared[0])}"
        return f"{number}. Keep each in one"
    return None


def trouble_with(folder, least, size=0):
    """What a folder has in place of `least` different images of `size` pixels or more, or None.

    In a large folder, the images between those that are looked at are taken to be like them.
    """
    paths = find_images(folder)
    rows = np.unique(np.linspace(0, len(paths) - 1, TRIED).round().astype(int))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda row: look_at(paths[row], size), rows))
    reasons = [reason for look, reason in looks if look is None]
    if len(reasons) > MOST_UNREADABLE * len(looks):
        return f"unreadable images, {len(reasons)} of {len(looks)}; the first, {reasons[0]}"
    contents = {content for side, content in (look for look, _ in looks if look) if side >= size}
    n = len(paths) * len(contents) // len(looks)
    if n >= least:
        return None
    large = f" of {size} pixels or more" if size else ""
    return f"too few different images{large}, {n:,} and not {least}"


def look_at(path, size):
    """((shorter side, digest of the file), None) of a picture, or (None, why it is unreadable)."""
    return try_to_read(path, lambda: (min(read_image(path, size or 1)[1]), digest_of(path)))


def shared_images(one, other):
    """Paths of the images of one folder that are, byte for byte, in the other one, too."""
    mine, theirs = by_size(one), by_size(other)
    shared = []
    for n_bytes in sorted(mine.keys() & theirs.keys()):
        known = {digest_of(path) for path in theirs[n_bytes]}
        shared += [path for path in mine[n_bytes] if digest_of(path) in known]
    return sorted(shared)


def by_size(folder):
    """The paths of the images below a folder, by their sizes in bytes."""
    groups = defaultdict(list)
    for path in find_images(folder):
        groups[os.path.getsize(path)].append(path)
    return groups


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()
