"""A run's folder: its lock, checkpoints and settings.json."""

import contextlib
import copy
import io
import json
import os
from pathlib import Path

import torch
from filelock import Timeout
from torch import nn
from torch.optim import Optimizer
from torch.torch_version import TorchVersion

from assets.lib.files import acquire_lock, explain_disk_errors, write_file
from assets.lib.identity import choose_folder, difference, has_checkpoint, plain

SIZES = "image_size", "z_size", "d_conv_dim", "g_conv_dim"
OTHERS = "This checkpoint belongs to other networks. Choose another out_dir, or set resume = False"


class Checkpoints:
    """The folder of a run and what is written to it; it knows nothing of training.

    `settings`, of plain values, say which run it is and are kept in settings.json; for `out_dir`
    and `resume` see choose_folder. Nothing is created before the folder is held. Another process
    that wants it gets a RuntimeError after `patience` seconds. A kill or a full disk leaves the
    files as they were.
    """

    def __init__(self, out_dir, settings, resume, patience=0):
        self.settings, self.resume, self.patience = settings, resume, patience
        self.folder = choose_folder(out_dir, settings, resume)
        self.known = None  # the version of the newest checkpoint that was read or written here
        self.lock = None  # while the folder is held

    def version(self):
        """What tells the newest checkpoint in the folder from any other; None if there is none."""
        for name in ("last.pt", "previous.pt"):
            with contextlib.suppress(FileNotFoundError):
                stat = (self.folder / name).stat()
                return name, stat.st_size, stat.st_mtime_ns
        return None

    @contextlib.contextmanager
    def held(self):
        """Hold the folder for this process alone; RuntimeError if another run does."""
        with explain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = acquire_lock((self.folder / "run.lock").resolve(), self.patience)
            except Timeout:
                raise RuntimeError(
                    f"Another run is using {self.folder}. Wait until it ends, stop it, or "
                    "choose another out_dir."
                ) from None
        self.lock = lock
        try:
            self._check_owner()
            yield
        finally:
            self.lock = None
            lock.release()

    def write(self, name, content):
        """Write a checkpoint, and settings.json beside it. What was last.pt becomes previous.pt.

        RuntimeError if another process has taken the folder over, after a long sleep of this one.
        """
        if self.lock is not None and not self.lock.is_locked:
            raise RuntimeError(
                f"Another process has taken over {self.folder}, since this one showed no sign of "
                "life. Rerun the cell to continue from its last checkpoint."
            )
        settings = json.dumps(self.settings | {"torch": str(torch.__version__)}, indent=1).encode()
        path = self.folder / "settings.json"
        if not path.exists() or path.read_bytes() != settings:
            write_file(path, lambda file: file.write(settings))
        previous = self.folder / "previous.pt" if name == "last.pt" else None
        write_file(self.folder / name, lambda file: torch.save(plain(content), file), previous)
        self.known = self.version()

    def read(self):
        """The contents of last.pt or, if that is missing or damaged, of previous.pt, or None."""
        last, previous = self.folder / "last.pt", self.folder / "previous.pt"
        if not has_checkpoint(self.folder):
            return None
        try:
            content = load_checkpoint(last)
        except (ValueError, FileNotFoundError) as error:
            if isinstance(error, NewerCheckpoint) or not previous.exists():
                raise
            content = load_checkpoint(previous)
            if last.exists():
                os.replace(last, self.folder / "damaged.pt")
                print(f"{last} is damaged and was renamed damaged.pt. previous.pt replaces it.")
        self.known = self.version()
        return content

    def is_current(self, name):
        """Whether a file was marked as made of the newest checkpoint."""
        version = self.version()
        try:
            return version[-1] == (self.folder / name).stat().st_mtime_ns
        except FileNotFoundError:
            return False

    def mark_current(self, name):
        """Mark a file as made of the newest checkpoint, by that one's time: clocks may be set."""
        with contextlib.suppress(OSError):  # then it is made anew next time
            os.utime(self.folder / name, ns=(self.version()[-1], self.version()[-1]))

    def _check_owner(self):
        """Raise a RuntimeError if another run has begun in the folder since it was chosen."""
        version = self.version()
        if version in (None, self.known):
            return
        if not self.resume or difference(self.folder, self.settings):
            raise RuntimeError(
                f"Another run has begun in {self.folder}. Rerun the cell that makes this run: it "
                "then gets a folder of its own."
            )


# ---------------------------------------------------------------- checkpoints


class NewerCheckpoint(ValueError):
    """A checkpoint that a newer PyTorch wrote and this one cannot read."""


def load_checkpoint(path):
    """The contents of a checkpoint, on the CPU; ValueError if it is none. Nothing is executed."""
    path = Path(path)
    content = path.read_bytes()  # a read error is not a damaged file
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state["settings"], state["step"], state["random_state"]
        return state
    except Exception as error:  # whatever an archive of another kind leads to
        version = version_that_wrote(path.parent)
        if version and TorchVersion(version) > torch.__version__:
            raise NewerCheckpoint(
                f"{path} cannot be read: PyTorch {version} wrote it, and this is the older "
                f"{torch.__version__}. Update PyTorch, or choose another out_dir."
            ) from error
        raise ValueError(
            f"{path} is not a checkpoint of this notebook, or it is damaged. Move it away, or "
            "choose another out_dir."
        ) from error


def version_that_wrote(folder):
    """The version of PyTorch that wrote a run's checkpoints; None if that is not known."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return json.loads((folder / "settings.json").read_bytes())["torch"]


def check_start(path, settings):
    """ValueError unless `path` is a run's checkpoint, of networks of these settings' sizes."""
    wrong, example = f"start_from = {str(path)!r} does not work:", '"assets/weights/celeba_32.pt"'
    if not Path(path).expanduser().is_file():
        raise ValueError(f"{wrong} there is no such file. Give the checkpoint of a run.")
    try:
        state = load_checkpoint(Path(path).expanduser())
        before = {name: state["settings"].get(name) for name in SIZES}
        state["D"].keys(), weights_of(state).keys()
    except NewerCheckpoint as error:
        raise ValueError(f"{wrong} {error}") from None
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


# ---------------------------------------------------------------- parts


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
                f"{name} holds the weights of other networks than this run's. Rerun the cell that "
                "makes the optimizers."
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
