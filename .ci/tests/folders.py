"""Folders of all kinds, made by chance: from find_data to a batch, each ends in pictures or in a
sentence of ours, and no picture is lost without a word.

    python .ci/tests/folders.py 300
"""

import contextlib
import functools
import io
import os
import re
import sys
import tempfile
import traceback
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
import problem_unittests  # noqa: E402
from assets.lib.files import say_once  # noqa: E402
from assets.lib.sources import find_data  # noqa: E402

FORMATS = {
    ".jpg": ("JPEG", "RGB L CMYK"),
    ".JPG": ("JPEG", "RGB"),
    ".jpeg": ("PNG", "RGB"),  # names may lie
    ".png": ("PNG", "RGB L P RGBA LA 1 I;16"),
    ".webp": ("WEBP", "RGB RGBA"),
    ".gif": ("GIF", "P L"),
    ".bmp": ("BMP", "RGB 1"),
    ".tif": ("TIFF", "RGB L I;16 F"),
    ".jp2": ("JPEG2000", "RGB"),
    "": ("JPEG", "RGB"),
}
TOPS = "data", "img_align_celeba", "Zoë", "Zoe\u0308", "a b ", "x.y", "MyDrive/faces", "0", "脸"
INNER = [
    *("", "a", "b", "Male", "Female", "0", "1", "0001", "train/a", "train/b", "test/a", "valid/b"),
    *("img", "img/a/b", "CelebA/Img", "@alice", "#2", "_x", "with_mask", "Hannover", "samples"),
    *("é", "e\u0301", "ü ", "a\nb", "$x", "CON", "runs", "labels", "anno", "x" * 120),
    *("e" * 120, ".hidden", "__MACOSX", "@eaDir", ".ipynb_checkpoints"),
]
SILENT = {"__MACOSX", "@eaDir", ".ipynb_checkpoints"}  # no word is expected
OTHERS = {
    "notes.txt": b"Hello",
    "README": b"Hello",
    "IMG_1.HEIC": b"\0\0\0\x18ftypheic" + bytes(99),
    "Thumbs.db": b"",
    ".DS_Store": b"",
    "._1.jpg": b"\0\5\x16\7",
    "part2.zip": b"PK\3\4",
    "video.mp4": b"",
    "settings.json": b"{}",
    "last.pt": b"PK\3\4",
    "faces.npy": b"\x93NUMPY",
    "list_attr_celeba.txt": b"no list",
    "list_attr_celeba.csv": b"<html>",
}
DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>gone</html>",
    "zeros": lambda content: content[:20] + bytes(20) + content[40:],
    "HEIC": lambda content: OTHERS["IMG_1.HEIC"],
}
names = st.one_of(
    st.integers(1, 202_599).map("{:06d}".format),
    st.integers(0, 30).map(str),
    st.sampled_from(["IMG_{}", "{} ({})", "25_0_1_2017010915{}", "{}_mask", "person-{}"]).flatmap(
        lambda form: st.integers(10, 99).map(lambda k: form.format(k, k))
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0\\"), min_size=1, max_size=9),
)


class Made:
    """What a folder or an archive holds: `files`, {path: bytes}; `sound`, {path: is it bright?}."""

    def __init__(self, top):
        self.top, self.files, self.sound, self.zipped = top, {}, {}, ""

    def __repr__(self):
        sizes = {path: len(content) for path, content in self.files.items()}
        return f"Made({self.top!r}, {sizes}, sound={self.sound}, zipped={self.zipped!r})"


@functools.lru_cache(None)
def picture(file_format, mode, is_bright):
    """The bytes of a small picture of noise, dark or bright."""
    noise = np.random.default_rng(0).integers(0, 60, (20, 17, 3)) + 195 * is_bright
    image = Image.fromarray(noise.astype(np.uint8))
    if mode in ("I;16", "F"):
        gray = np.asarray(image.convert("L"), np.uint16 if mode == "I;16" else np.float32)
        gray[0, 0] = 255  # so that its range is known
        image = Image.fromarray(gray * 257 if mode == "I;16" else gray)
    buffer = io.BytesIO()
    image.convert(mode if mode not in ("I;16", "F") else image.mode).save(buffer, file_format)
    return buffer.getvalue()


@st.composite
def made_folders(draw):
    """A folder or an archive of up to 30 pictures, damaged ones and other files."""
    made = Made(draw(st.sampled_from(TOPS)))
    inner = draw(st.lists(st.sampled_from(INNER), min_size=1, max_size=4))
    for _ in range(draw(st.integers(8, 30) | st.integers(0, 3))):
        ending = draw(st.sampled_from([*FORMATS, ".jpg", ".jpg", ".png"]))
        file_format, modes = FORMATS[ending]
        is_bright = draw(st.booleans())
        content = picture(file_format, draw(st.sampled_from(modes.split())), is_bright)
        path = os.path.join(draw(st.sampled_from(inner)), draw(names) + ending)
        if draw(st.integers(0, 29)) == 29:
            made.files[path] = DAMAGE[draw(st.sampled_from([*DAMAGE]))](content)
            made.sound.pop(path, None)
        elif is_possible(path):
            made.files[path], made.sound[path] = content, is_bright
    for name in draw(st.lists(st.sampled_from([*OTHERS]), max_size=3)):
        made.files[os.path.join(draw(st.sampled_from(inner)), name)] = OTHERS[name]
    add_list(draw, made)
    made.files = {path: made.files[path] for path in made.files if is_possible(path)}
    folders = {str(above) for path in made.files for above in Path(path).parents}
    for path in folders & made.files.keys():  # it cannot be both
        made.files.pop(path), made.sound.pop(path, None)
    made.zipped = draw(st.sampled_from(["", "", "plain", "with a top", "no flags", "damaged"]))
    return made


def is_possible(path):
    name = os.path.basename(path)
    return name not in (".", "..") and len(name.encode("utf-8", "surrogateescape")) < 250


def add_list(draw, made):
    """In half of all folders, add a list of attributes that says which pictures are bright."""
    if not made.sound or draw(st.booleans()):
        return
    name_of = draw(st.sampled_from([os.path.basename, str, lambda path: Path(path).stem + ".png"]))
    seen = {path: is_bright for path, is_bright in made.sound.items() if not is_hidden(path)}
    rows = {name_of(path): is_bright for path, is_bright in seen.items()}
    if any(re.search(r"[\s\",]", name) for name in rows):
        return
    ending = draw(st.sampled_from([".txt", ".csv"]))
    mark = "," if ending == ".csv" else " "
    lines = [f"image_id{mark}Bright{mark}Dark"] if ending == ".csv" else ["Bright Dark"]
    for name, is_bright in rows.items():
        lines.append(mark.join([name, *(("1", "-1") if is_bright else ("-1", "1"))]))
    place = draw(st.sampled_from(["", "Anno", os.path.dirname(next(iter(made.sound)))]))
    made.files[os.path.join(place, f"list_attr_celeba{ending}")] = "\n".join(lines).encode()


def write(made):
    """Write what was made below the working folder; returns the data_dir to give."""
    if not made.zipped:
        for path, content in made.files.items():
            place = Path(made.top, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        Path(made.top).mkdir(parents=True, exist_ok=True)
        return made.top
    archive = Path(f"{made.top}.zip")
    archive.parent.mkdir(parents=True, exist_ok=True)
    top = "top folder/" if made.zipped == "with a top" else ""
    with zipfile.ZipFile(archive, "w") as pack:
        for path, content in made.files.items():
            pack.writestr(top + path, content)
    content = bytearray(archive.read_bytes())
    if made.zipped == "no flags":
        for sign, offset in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
            for found in re.finditer(re.escape(sign), bytes(content)):
                content[found.start() + offset] &= 0xF7
    if made.zipped == "damaged":
        content[len(content) // 3] ^= 255
    archive.write_bytes(content)
    return str(archive)


def check(made):
    """From find_data to a batch -> None for pictures, or the sentence that it ended in.

    AssertionError unless all is right, or said not to be.
    """
    say_once.cache_clear()
    printed = io.StringIO()
    with working_folder():
        data_dir = write(made)
        try:
            with contextlib.redirect_stdout(printed):
                folder = find_data(unicodedata.normalize("NFC", data_dir))
                loader = notebook().get_dataloader(2, 16, folder)
                images, labels = next(iter(loader))
                known = loader.dataset.known
        except Exception as error:
            assert_ours(error)
            return str(error)
        assert images.shape == (2, 3, 16, 16) and len(labels) == 2, f"got {images.shape}"
        if made.zipped != "damaged":
            check_words(made, loader.dataset, printed.getvalue())
        check_labels(made, loader.dataset, known)
    return None


@contextlib.contextmanager
def working_folder():
    """Within it, the working folder is an empty one."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)


@functools.lru_cache(1)
def notebook():
    return problem_unittests.read_notebook()


def assert_ours(error):
    """The error was raised by our code, with a sentence."""
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    is_ours = f"{os.sep}assets{os.sep}lib" in where or ".ipynb" in where
    is_ours = is_ours and isinstance(error, (ValueError, OSError)) and str(error).endswith(".")
    if not is_ours:
        raise AssertionError(f"expected a sentence of ours, got {error!r}") from error
    str(error).encode()  # a notebook keeps no other text


def check_words(made, faces, printed):
    """Each file is a face, or counted in what was printed, or a list, or of no interest."""
    printed.encode()
    n, seen = int((faces.parts >= 0).sum()), set(filter(is_seen, made.files))
    passed = re.findall(r"([\d,]+) (?:\.|without|masks|files|others)", printed)
    left_out = re.findall(r"Left out ([\d,]+)", printed)
    counted = sum(int(count.replace(",", "")) for count in passed + left_out)
    assert n <= len(made.files), f"expected at most {len(made.files)} files, got {n} faces"
    assert n + counted >= len(seen), f"{n} faces of {len(seen)} files, and no word: {printed}"
    hidden = {path for path in made.sound if is_hidden(path)}
    has_word = "hidden" in printed or made.zipped  # of a shared top folder all is seen
    assert not hidden or has_word, f"{len(hidden)} hidden pictures: {printed}"


def is_hidden(path):
    """Whether a person would not see it, and a word is expected if it is a picture."""
    names = path.split("/")
    return not SILENT.intersection(names) and any(name.startswith(".") for name in names)


def is_seen(path):
    """Whether a file is to be a face, or to be counted."""
    *folders, name = path.split("/")
    is_known = name == "Thumbs.db" or name.startswith("list_attr_celeba")
    return not (is_known or is_hidden(path) or SILENT.intersection(folders))


def check_labels(made, faces, known):
    """The label "Bright", where it is known, is that of the pixels."""
    if "Bright" in known:
        rows = torch.nonzero(faces.parts >= 0).flatten()
        is_bright = faces.images[rows].float().mean((1, 2, 3)) > 127
        wrong = (known["Bright"][rows] != is_bright).sum()
        assert not wrong, f"{wrong} of {len(rows)} labels are of other pictures"


def search(n):
    """Check n folders made by chance -> the sentences, or None, that they ended in."""
    ends = []
    settings = hypothesis.settings(max_examples=n, deadline=None, database=None, print_blob=False)
    settings(hypothesis.given(made_folders())(lambda made: ends.append(check(made))))()
    return ends


if __name__ == "__main__":
    n_folders = int(sys.argv[1]) if sys.argv[1:] else 300
    torch.set_num_threads(1)
    ends = search(n_folders)
    print(f"{len(ends)} folders: {ends.count(None)} ended in pictures, the others in a sentence.")
    kinds = Counter(re.sub(r"'[^']*'|\d+", "...", end)[:60] for end in ends if end)
    for sentence, count in kinds.most_common():
        print(f"{count:4} {sentence}")
