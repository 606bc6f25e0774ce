"""Where the faces come from: a folder, an archive, or drawn by code."""

import contextlib
import dataclasses
import os
import re
from pathlib import Path

from assets.lib.archives import fetch, unpack_once
from assets.lib.attributes import ATTRIBUTE_LIST
from assets.lib.checkpoints import check_start
from assets.lib.downloads import PUBLISHED_URL, Unreachable
from assets.lib.drawn import DRAWING, write_folder
from assets.lib.faces import most_held_out
from assets.lib.figures import progress, use_inline_figures
from assets.lib.files import CACHE, ELSEWHERE, DataError, as_text, make_once, to_path
from assets.lib.folders import count_kinds, holds_images, survey
from assets.lib.pictures import load_face
from assets.lib.ranks import from_rank_0, world
from assets.lib.settings import Settings, check, check_counts, check_settings, likeness

DEFAULT_FOLDERS = Path("processed_celeba_small"), Path("celeba_128")


def read_settings(names):
    """The Settings among `names`, a dict such as globals(), checked with the files they name.

    ValueError for the first bad one. In a notebook, figures are switched on.
    """
    use_inline_figures()
    wanted = [item.name for item in dataclasses.fields(Settings)]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"The setting {missing[0]} is missing: run the first cell.")
    settings = Settings(**{name: names[name] for name in wanted})
    check_files(settings)
    return settings


def check_files(settings):
    """ValueError, by the setting's name, for a file or folder that cannot be used."""
    _, ranks = world()
    advice = f"{ranks} ranks share it, so it must be {ranks} or more"
    for name in ("batch_size", "domain_batch"):
        check(name, getattr(settings, name), lambda n: n is None or n >= ranks, advice)
    check("large_dir", settings.large_dir, is_source, "give a folder of images")
    if settings.domain_dirs is not None:
        check("domain_dirs", settings.domain_dirs, are_two_folders, "give two folders of images")
    if settings.photograph is not None:
        load_face(settings.photograph, settings.image_size, settings.photograph_box)
    if settings.start_from is not None:
        check_start(settings.start_from, settings)


def find_data(data_dir, url=None, sha256=None, n_drawn=20_000, image_size=64):
    """Find the faces, say in one line where, and return their folder (a Path).

    In this order: images below `data_dir`, or in the .zip that it names; the archive at `url`,
    unpacked into `data_dir`; `n_drawn` drawn faces, if `data_dir` is "drawn", or if it is the
    default and there is no network. Raises DataError when data is there but wrong.
    """
    return from_rank_0(None if world()[0] else _find(data_dir, url, sha256, n_drawn, image_size))


def _find(data_dir, url, sha256, n_drawn, image_size):
    check_settings({"data_dir": data_dir, "data_url": url, "data_sha256": sha256})
    if str(data_dir) == "drawn":
        return drawn_folder(n_drawn, image_size, 'data_dir = "drawn"')
    folder, is_own = to_path(data_dir), url not in (None, "", PUBLISHED_URL)
    if is_zip(folder):
        folder = unpack_once(folder, progress)
    elif not folder.exists():
        check_folder_name(data_dir, is_own)
        try:
            make_once(folder, lambda empty: fetch(url, empty, sha256, CACHE, progress), ELSEWHERE)
        except Unreachable as error:
            if not is_own:
                return drawn_folder(n_drawn, image_size, error)
            message = f"data_url = {url!r} cannot be fetched: {error}. Correct it, or give data_dir"
            raise DataError(f"{message} a folder of images or a .zip of them.") from None
    report(folder)
    return folder


def report(folder):
    """Say in one line how many images are below a folder, and what is passed over."""
    images, others = survey(folder)
    lists = {path for path in others if ATTRIBUTE_LIST.fullmatch(os.path.basename(path))}
    others = {path: kind for path, kind in others.items() if path not in lists}
    passed = f"; passed over: {count_kinds(others)}" if others else ""
    print(f"Data: {len(images):,} images found in {as_text(folder)}{passed}.")


def drawn_folder(n, image_size, reason):
    """A folder of `n` drawn faces and of an eighth as many to be held out."""
    check_counts(n_drawn=n)
    size, held_out = max(64, image_size), most_held_out(n)
    folder = Path("drawn_faces", f"{n}_at_{size}_v{DRAWING}")

    def draw(empty):
        with progress(total=n + held_out, unit="img", desc="drawing") as bar:
            write_folder(empty, n, size, held_out, bar.update)

    make_once(folder, draw, ELSEWHERE)
    print(f"Data: {n:,} drawn faces in {folder}, and {held_out:,} more held out; {reason}.")
    return folder


def check_folder_name(data_dir, is_own):
    """DataError for a folder that is not there and is no default, or whose name is misspelled.

    With an address of its own (`is_own`) a new name is fine, if it is unlike those around it.
    """
    chosen = folder = to_path(data_dir)
    while not folder.parent.is_dir() and folder != folder.parent:
        folder = folder.parent
    name, names = folder.name, ["drawn", folder.parent.name or "drawn"]
    with contextlib.suppress(OSError):
        found = [path for path in folder.parent.iterdir() if path.is_dir() or path.suffix == ".zip"]
        names += [path.name for path in found if not path.name.startswith(".")]
    nearest = sorted({*names}, key=lambda other: -likeness(other, name))[:3]
    has_number = is_own and name != nearest[0]  # such as faces_2 after faces_1
    is_next = has_number and re.sub(r"\d", "", name) == re.sub(r"\d", "", nearest[0])
    is_like = likeness(nearest[0], name) > 0.85 and not is_next
    is_odd = re.search(r'[*?"<>|:\\]|^\s|\s$|\.zip$', name)
    if is_like or is_odd or not (is_own or chosen in DEFAULT_FOLDERS):
        message = f"data_dir = {str(data_dir)!r} is not there. The nearest names are"
        raise DataError(f"{message} {', '.join(map(repr, nearest))}. Give an address as data_url.")


def is_zip(path):
    return path.suffix.lower() == ".zip" and path.is_file()


def is_source(folder):
    """Whether it is a folder of images, a .zip, "drawn", or a default folder, there or not."""
    path = to_path(folder)
    is_known = str(folder) == "drawn" or path in DEFAULT_FOLDERS
    return is_known or is_zip(path) or holds_images(path)


def are_two_folders(folders):
    """Whether it is a list of two folders, not the same, that hold images."""
    if not isinstance(folders, (list, tuple)) or len(folders) != 2:
        return False
    return all(map(holds_images, folders)) and not os.path.samefile(*map(to_path, folders))
