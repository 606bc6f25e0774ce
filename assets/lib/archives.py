"""Fetch archives, reject bad ones, unpack them."""

import contextlib
import errno
import hashlib
import itertools
import lzma
import os
import re
import shutil
import stat
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from assets.lib.downloads import Unreachable, check_archive, download
from assets.lib.files import CACHE, ELSEWHERE, DataError, as_text, locked, make_once
from assets.lib.folders import TOOL_FOLDER, holds_images, look_below, what_helps

MAX_UNPACKED_BYTES = 20 * 2**30
BAD_NAME = errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ
NAME_TAKEN = errno.EEXIST, errno.ENOTDIR, errno.EISDIR
BAD_ARCHIVE = zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError
OTHER_ARCHIVES = {
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zX": "an xz archive",
}
BY_HAND = "Unpack it with another program, and set data_dir to that folder"
GET_ANEW = "Copy or download it again"
JUNK = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)
MARK = ".unpacked_from"  # a file in an unpacked folder that says which archive it was
UTF_8_FLAG = 0x800
EAST_ASIAN = "\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e"
MISREAD = re.compile(f"[A-Za-z][{EAST_ASIAN}]|[{EAST_ASIAN}][A-Za-z]|[^\0-\x7f{EAST_ASIAN}]")


def fetch(url, folder, sha256, cache, progress=tqdm):
    """Unpack the zip at `url` (http, https, file) into an empty folder; downloads go to `cache`.

    Unreachable if there is none, DataError if something is wrong with it.
    """
    if not url:
        raise Unreachable("there is no folder of photographs")
    if url.lower().startswith("file:"):
        path = Path(urllib.request.url2pathname(urlsplit(url).path))
        if not path.is_file():
            raise DataError(f"data_url = {url!r} does not work: there is no file {path}.")
        fingerprint(path)  # it can be read
        check_archive(path, sha256, path)
        unpack(path, folder, progress)
        return
    cached = Path(cache, sha256 or hashlib.sha256(url.encode()).hexdigest())
    with locked(cached):
        path = download(url, cached, sha256, progress=progress)
        try:
            unpack(path, folder, progress)
        except DataError:
            path.unlink()
            raise
        path.unlink()


def unpack_once(archive, progress=tqdm):
    """Unpack the user's .zip unless it is unpacked already, and return the folder.

    It is beside the archive or, if nothing can be written there, in the cache. A folder there that
    was not made from the archive as it is stays untouched, and the new one has another name.
    """
    mark = fingerprint(archive)
    base = archive.parent if os.access(archive.parent, os.W_OK) else CACHE
    for number in itertools.count(1):
        folder = base / (archive.stem if number == 1 else f"{archive.stem}-{number}")
        if not folder.exists():
            break
        if read_mark(folder) == mark:
            return folder
        sentence = f"{as_text(folder)} was not made from {as_text(archive.name)} as it is"
        print(f"{sentence}: the archive is unpacked into another folder.")

    def make(empty):
        unpack(archive, empty, progress)
        (empty / MARK).write_text(mark, encoding="utf-8")

    make_once(folder, make, ELSEWHERE)
    return folder


def fingerprint(archive):
    """What tells an archive from others: its size, and its end, which lists the files in it.

    DataError if it cannot be read.
    """
    try:
        with open(archive, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2**25))
            return f"{size} {hashlib.sha256(file.read()).hexdigest()}"
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}.") from error


def read_mark(folder):
    try:
        return (folder / MARK).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def unpack(archive, folder, progress=tqdm):
    """Unpack a zip into an empty folder, without a top folder that all its files share.

    Files whose names this system cannot hold are left out and counted in a line. DataError for
    archives that are damaged, huge, without images or of another kind, and for those that
    check_entry refuses.
    """
    name = os.path.basename(archive)
    check_kind(Path(archive))
    with explain_bad_archive(name), zipfile.ZipFile(archive) as pack:
        entries = layout(pack.infolist())
        if sum(member.file_size for member in entries.values()) > MAX_UNPACKED_BYTES:
            raise DataError(f"{name} would unpack to more than 20 GiB. {BY_HAND}.")
        lost = extract(pack, entries, folder, progress)
    if holds_images(folder):
        if lost:
            sentence = f"Left out {len(lost)} files with names that this system cannot hold"
            print(f"{sentence}, such as {lost[0]}.")
        return
    if lost:
        message = f"The archive cannot be unpacked: this system cannot hold the name {lost[0]}"
        raise DataError(f"{message}. {BY_HAND}.")
    raise DataError(f"The archive {name} holds no images{what_helps(look_below(folder)[1])}.")


def check_kind(archive):
    """DataError for a file that is another kind of archive, or one of several parts."""
    with open(archive, "rb") as file:
        head = file.read(8)
    kind = next((kind for start, kind in OTHER_ARCHIVES.items() if head.startswith(start)), None)
    if archive.with_suffix(".z01").exists():
        kind = "the last of several parts"
    if kind:
        raise DataError(f"{archive.name!r} is {kind}, no complete .zip. {BY_HAND}.")


@contextlib.contextmanager
def explain_bad_archive(name):
    """Turn what is wrong with an archive or with an entry of it into a DataError."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:
        reason = f"Python has no way to unpack {name!r} ({error}). {BY_HAND}"
    except BAD_ARCHIVE as error:
        reason = f"{name!r} is damaged, or no .zip ({error}). {GET_ANEW}"
    except OSError as error:
        if error.errno not in (None, *NAME_TAKEN):
            raise  # the disk's fault, not the archive's
        reason = f"{name!r} is damaged ({error}). {GET_ANEW}"
        if error.errno:
            reason = f"it holds {name!r} twice, up to capitals, or as file and folder. {BY_HAND}"
    else:
        return
    raise DataError(f"The archive cannot be unpacked: {reason}.")


def extract(pack, entries, folder, progress):
    """Write the files of a layout below `folder`; returns the names that the system cannot hold."""
    lost, is_short = [], len(entries) < 1000
    for path, member in progress(entries.items(), "unpack", unit="file", disable=is_short):
        with explain_bad_archive(str(path)):
            if member.header_offset < 0:
                raise zipfile.BadZipFile("its beginning is missing")
            try:
                file = create(folder / path)
            except OSError as error:
                if error.errno not in BAD_NAME:
                    raise
                lost.append(repr(as_text(path)[:60]))
                continue
            with file, pack.open(member) as source:
                shutil.copyfileobj(source, file)
    return lost


def create(path):
    """A new file to write to, and the folders that lead to it."""
    if os.name == "nt" and re.search('[:*?"<>|]', path.name):  # a colon would not be an error
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "xb")


def layout(members):
    """{path in the folder: entry} of the files in a zip; of two with one name the later one.

    Without a top folder that all share, and without "New Folder With Items", which Finder made.
    """
    entries = {}
    for name, member in zip(names_of(members), members):
        path = check_entry(name, member)
        is_junk = any(map(TOOL_FOLDER.fullmatch, path.parts)) or JUNK.fullmatch(path.name)
        if not (member.is_dir() or is_junk):
            entries[path] = member
    tops = {path.parts[:-1][:1] for path in entries}
    n_shared = len(tops.pop()) if len(tops) == 1 else 0
    shorter = {}
    for path, member in entries.items():
        parts = [part for part in path.parts[n_shared:] if part != "New Folder With Items"]
        short = PurePosixPath(*parts)
        shorter[path if short in shorter else short] = member
    return shorter


def names_of(members):
    """The names in a zip. Where no flag says UTF-8 they are read as UTF-8, as Japanese or Chinese
    if all make sense that way, or in the format's own code page."""
    names = [member.orig_filename.partition("\0")[0] for member in members]
    unflagged = [k for k, member in enumerate(members) if not member.flag_bits & UTF_8_FLAG]
    content = [names[k].encode("cp437") for k in unflagged]
    for encoding in ("utf-8", "cp932", "gbk"):
        with contextlib.suppress(UnicodeDecodeError):
            found = [name.decode(encoding) for name in content]
            if encoding == "utf-8" or not any(map(MISREAD.search, found)):
                return list((dict(enumerate(names)) | dict(zip(unflagged, found))).values())
    return names


def check_entry(name, member):
    """The path of an entry of a zip; DataError if it looks malicious."""
    text, kind = name.replace("\\", "/"), stat.S_IFMT(member.external_attr >> 16)
    path, refused = PurePosixPath(text), None
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", text):
        refused = "leads outside the folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "is a link or a device, not a file"
    elif member.flag_bits & 1:
        refused = f"is encrypted. {BY_HAND}"
    if refused:
        raise DataError(f"The archive was refused: its entry {name!r} {refused}.")
    return path
