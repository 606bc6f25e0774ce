"""A run's folder: its lock, checkpoints and settings.json."""

import copy
import io
import json
import os
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from filelock import Timeout
from torch import nn
from torch.optim import Optimizer

from assets.lib.files import acquire_lock, explain_disk_errors, write_file

SIZES = "image_size", "z_size", "d_conv_dim", "g_conv_dim"
OTHERS = "The checkpoint is not of these networks. Choose another out_dir, or set resume = False"
HELD = WeakValueDictionary()  # locks of this process, by path: a cell that is run again has its own


class Checkpoints:
    """The folder of a run: `out_dir` or, where that holds another run, out_dir-2, out_dir-3 ...

    `settings` say which run it is, and are kept in settings.json; with `resume` it is the newest
    folder of these settings. One process at a time holds it: others get a RuntimeError, after
    `patience` seconds. A kill or a full disk leaves the files as they were before.
    """

    def __init__(self, out_dir, settings, resume, patience=0):
        self.settings, self.patience = settings, patience
        self.folder = self._choose(Path(out_dir).expanduser(), resume)
        self.acquire()

    def acquire(self):
        """Hold the folder, until `lock` is released or the process ends."""
        with explain_disk_errors(self.folder):
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            path = (self.folder / "run.lock").resolve()
            self.lock = HELD.get(path)
            try:
                if self.lock is None or not self.lock.is_locked:
                    self.lock = HELD[path] = acquire_lock(path, self.patience)
            except Timeout:
                raise RuntimeError(
                    f"Another run is at work in {self.folder}. Wait until it ends, stop it, or "
                    "choose another out_dir."
                ) from None

    def write(self, name, state, **tables):
        """Write a checkpoint, and tables {name: (columns, rows)} as .csv files.

        What was last.pt becomes previous.pt.
        """
        if not has_checkpoint(self.folder):
            text = json.dumps(self.settings, indent=1)
            write_file(self.folder / "settings.json", lambda file: file.write(text.encode()))
        previous = self.folder / "previous.pt" if name == "last.pt" else None
        write_file(self.folder / name, lambda file: torch.save(plain(state), file), previous)
        for table, (columns, rows) in tables.items():
            lines = [
                f"step,images,seconds,{columns}",
                *(",".join(map(str, row)) for row in rows),
                "",
            ]
            content = "\n".join(lines).encode()
            write_file(
                self.folder / f"{table}.csv", lambda file, content=content: file.write(content)
            )

    def load(self, parts):
        """Load the newest checkpoint into these parts -> its contents, or None if there is none."""
        try:
            state = self.newest()
            if state:
                load_parts(parts, state)
            return state
        except ValueError:
            self.lock.release(force=True)
            raise

    def newest(self):
        """The contents of last.pt or, if that is missing or damaged, of previous.pt, or None."""
        last, previous = self.folder / "last.pt", self.folder / "previous.pt"
        if not has_checkpoint(self.folder):
            return None
        try:
            return load_checkpoint(last)
        except (ValueError, FileNotFoundError):
            if not previous.exists():
                raise
            state = load_checkpoint(previous)
        if last.exists():
            os.replace(last, self.folder / "damaged.pt")
            print(f"{last} is damaged, and is now damaged.pt. The one before it takes its place.")
        return state

    def is_current(self, name):
        """Whether a file made of the checkpoints is there, and not older than they are."""
        path, newest = self.folder / name, max(x.stat().st_mtime for x in self.folder.glob("*.pt"))
        return path.exists() and path.stat().st_mtime >= newest

    def _choose(self, wanted, resume):
        others, folder, same = [], wanted, None
        while has_checkpoint(folder):
            difference = self._difference(folder)
            same = same if difference else folder
            others.append(f"The run in {folder} {difference or 'is kept as it is'}.")
            folder = wanted.with_name(f"{wanted.name}-{len(others) + 1}")
        if resume and same:
            return same
        if others:
            print(*others, f"This one will be in {folder}.", sep="\n")
        return folder

    def _difference(self, folder):
        """What tells the run in a folder from this one, in words; '' if nothing does."""
        try:
            old, new = dict(json.loads((folder / "settings.json").read_bytes())), self.settings
        except FileNotFoundError:
            return "was made by an older version of this notebook, and is kept as it is"
        except (OSError, ValueError, TypeError) as error:
            return f"has a settings.json that cannot be read ({error}), and is kept as it is"
        names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        changes = ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)
        return changes and f"has other settings: {changes}"


def has_checkpoint(folder):
    return any((folder / name).exists() for name in ("last.pt", "previous.pt"))


def load_checkpoint(path):
    """The contents of a checkpoint, on the CPU; ValueError if it is none. Nothing is executed."""
    content = Path(path).read_bytes()  # a read error is not a damaged file
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state["settings"], state["step"], state["random_state"]
        return state
    except Exception as error:  # whatever an archive of another kind leads to
        raise ValueError(
            f"{path} is no checkpoint of this notebook, or a damaged one. Move it away, or choose "
            "another out_dir."
        ) from error


def check_start(path, settings):
    """ValueError unless `path` is a run's checkpoint, of networks of these settings' sizes."""
    wrong, example = f"start_from = {str(path)!r} does not work:", '"assets/weights/celeba_32.pt"'
    if not Path(path).expanduser().is_file():
        raise ValueError(f"{wrong} there is no such file. Give the checkpoint of a run.")
    try:
        state = load_checkpoint(Path(path).expanduser())
        before = {name: state["settings"].get(name) for name in SIZES}
        state["D"].keys(), weights_of(state).keys()
    except (ValueError, KeyError, AttributeError):
        sentence = f"that is not the checkpoint of a run, such as {example} or a run's best.pt"
        raise ValueError(f"{wrong} {sentence}.") from None
    for name, size in before.items():
        if isinstance(size, int) and size != getattr(settings, name):
            raise ValueError(f"{wrong} it was trained with {name} = {size}. Set {name} to that.")


def begin_with(path, D, G):
    """Give D and G the weights of a run's checkpoint: G the averaged ones, if there are any."""
    state = load_checkpoint(Path(path).expanduser())
    advice = f"{path} is of other networks: build them as they were, or set start_from = None"
    load_parts({"D": D, "G": G}, {"D": state["D"], "G": weights_of(state)}, advice)
    print(f"The networks begin with the weights in {path}.")


def weights_of(state):
    """A checkpoint's weights for the generator: the averaged ones, if there are any."""
    weights = state.get("averaged", state["G"])
    named = {name.removeprefix("module."): weight for name, weight in weights.items()}
    return {name: weight for name, weight in named.items() if name != "n_averaged"}


def split_parts(parts):
    """The networks and the optimizers among a run's parts, each by name.

    ValueError for an optimizer that holds the weights of other networks.
    """
    networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    optimizers = {name: part for name, part in parts.items() if isinstance(part, Optimizer)}
    weights = {id(weight) for network in networks.values() for weight in network.parameters()}
    for name, optimizer in optimizers.items():
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if not held <= weights:
            raise ValueError(
                f"{name} holds the weights of other networks than this run's. Run section 11, "
                "where the optimizers are made, again."
            )
    return networks, optimizers


def load_parts(parts, state, sentence=OTHERS):
    """Load networks, optimizers and schedulers, by name: all or, with a ValueError, none.

    `averaged` may be missing in the state: averaging may begin later.
    """
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            if name in state or name != "averaged":
                part.load_state_dict(state[name])
    except Exception as error:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise ValueError(f"{sentence}. ({type(error).__name__}: {error})") from error


def plain(value):
    """The same with Python's numbers in place of numpy's, which a checkpoint cannot hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
