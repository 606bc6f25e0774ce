"""Archives: download, verify and unpack them."""

import contextlib
import errno
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import threading
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from assets.lib.files import FULL, DataError, locked
from assets.lib.labels import ATTRIBUTE_LIST
from assets.lib.pictures import IMAGE_TYPES, TOOL_FOLDER, holds_images

PUBLISHED_URL = (
    "https://s3.amazonaws.com/video.udacity-data.com/topher/2018/November/"
    "5be7eb6f_processed-celeba-small/processed-celeba-small.zip"
)
PUBLISHED_SHA256 = "2cd4fbba4b618faeb4be18c69da3a68ff6a163057d12ff321cb044fc51f416d3"
PUBLISHED_BYTES = 247_694_507
MAX_UNPACKED_BYTES = 20 * 2**30
BAD_NAME = errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR
PACKED = ".zip", ".7z", ".rar", ".tar", ".gz", ".tgz"
BAD_ARCHIVE = zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError


class Unreachable(Exception):
    """The archive could not be fetched, through no fault of the data."""


def fetch(source, folder, sha256, cache, progress=tqdm):
    """Unpack a zip, by its path or its address, into an empty folder; downloads go to `cache`."""
    if str(source).lower().startswith("file:"):
        address, source = source, Path(urllib.request.url2pathname(urlsplit(source).path))
        if not source.is_file():
            raise DataError(f"data_url = {address!r} does not work: there is no file {source}.")
    if isinstance(source, Path):
        try:
            source.open("rb").close()
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror}.") from error
        check_archive(source, sha256, source)
        unpack(source, folder, progress)
        return
    if not source:
        raise Unreachable("there is no folder of photographs")
    cached = Path(cache, sha256 or hashlib.sha256(source.encode()).hexdigest())
    with locked(cached):
        path = download(source, cached, sha256, progress=progress)
        try:
            unpack(path, folder, progress)
        except DataError:
            path.unlink()
            raise
        path.unlink()


def download(url, path, sha256=None, timeout=15, progress=tqdm):
    """Fetch `url` (http or https) to `path`, with a progress bar, going on where it stopped.

    Returns the path, once zip signature, size and sha256 are right. Raises Unreachable when the
    address does not answer and DataError when what it answers is not the archive.
    """
    path = Path(path).with_suffix(".zip")
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # fetched and checked before, but not unpacked
        return path
    have = partial.stat().st_size if partial.exists() else 0
    answer = open_url(url, have, timeout)
    if answer is None and not zipfile.is_zipfile(partial):
        answer = open_url(url, 0, timeout)
    if answer is not None:
        with contextlib.closing(answer):
            copy_answer(answer, partial, url, progress)
    try:
        check_archive(partial, sha256, url)
    except DataError:
        partial.unlink()
        raise
    os.replace(partial, path)
    return path


def open_url(url, offset, timeout):
    """urlopen in a thread of its own, as looking up a name can hang; None if no bytes are left."""
    headers = {"User-Agent": "face-generation-lesson"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request, outcome = urllib.request.Request(url, headers=headers), [TimeoutError("no answer")]

    def fetch():
        try:
            outcome.append(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:  # raised below
            outcome.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(timeout + 5)
    answer = outcome[-1]
    if isinstance(answer, urllib.error.HTTPError) and answer.code == 416:
        return None
    if isinstance(answer, urllib.error.HTTPError):
        raise Unreachable(f"the server of the archive answers {answer.code} {answer.reason}")
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", answer)
        raise Unreachable(f"no network ({getattr(reason, 'strerror', None) or reason})")
    return answer


def copy_answer(answer, partial, url, progress):
    """Write a server's answer to the file `partial`, or the rest of it."""
    have = partial.stat().st_size if answer.status == 206 else 0
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    try:
        block = answer.read(2**18)
        if not have:
            check_head(block, answer.geturl())  # before anything is overwritten
        print(f"Downloading {url}")
        bar = progress(total=total, initial=have, unit="B", unit_scale=True, desc="download")
        with bar, open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while block:
                have += file.write(block)
                bar.update(len(block))
                block = answer.read(2**18)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (*FULL, errno.EROFS, errno.EACCES, errno.EIO):
            raise  # the disk's
        raise Unreachable(f"the download broke off ({error}); run again to go on") from error
    if total and have < total:
        raise Unreachable("the download broke off; run again to go on")


def check_head(head, url):
    """DataError unless these first bytes are a zip file's."""
    if head.startswith(b"PK"):
        return
    kind = "no zip archive"
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        kind = "a web page (HTML), as for a login or a quota,"
    message = f"At {url} there is {kind} instead of the archive."
    raise DataError(f"{message} Download it in a browser and set data_dir to the .zip.")


def check_archive(path, sha256, source):
    """DataError unless the file, fetched from `source`, has this sha256."""
    if not sha256:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    size, found = path.stat().st_size, digest.hexdigest()
    wrong = f"sha256, {found}, not {sha256}" if found != sha256.lower() else None
    if sha256 == PUBLISHED_SHA256 and size != PUBLISHED_BYTES:
        wrong = f"size, {size:,} bytes, not {PUBLISHED_BYTES:,}"
    if wrong:
        message = f"{source} has the wrong {wrong}: it is damaged, or another file"
        raise DataError(f"{message}. Try again, or set data_sha256 = None to take any archive.")


def unpack(archive, folder, progress=tqdm):
    """Unpack the images and lists of attributes of a zip into an empty folder.

    Without a top folder that all share, and without "New Folder With Items", which Finder made.
    DataError for damaged archives, huge ones, and those that safe_path refuses.
    """
    name = os.path.basename(archive)
    try:
        with zipfile.ZipFile(archive) as pack:
            all_entries = [(safe_path(member), member) for member in pack.infolist()]
            entries = [pair for pair in all_entries if is_wanted(*pair)]
            if sum(member.file_size for _, member in entries) > MAX_UNPACKED_BYTES:
                raise DataError(f"{name} would unpack to more than 20 GiB.")
            tops = {path.parts[0] if path.parts[1:] else "" for path, _ in entries}
            drop = 1 if len(tops) == 1 and "" not in tops else 0
            hidden = len(entries) < 1000
            for path, member in progress(entries, "unpack", unit="img", disable=hidden):
                name = member.filename
                parts = [part for part in path.parts[drop:] if part != "New Folder With Items"]
                target = folder.joinpath(*parts)
                if target.exists():
                    target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with pack.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
    except DataError:
        raise
    except (*BAD_ARCHIVE, OSError) as error:
        number = getattr(error, "errno", None)
        if number not in (None, *BAD_NAME):
            raise  # the disk's fault, not the archive's
        what = f"{name!r} is damaged, or no .zip"
        if number:
            what = f"this system cannot hold the name {name!r}"
        raise DataError(f"The archive cannot be unpacked: {what} ({error}).") from error
    if not holds_images(folder):
        inner = [path.name for path, _ in all_entries if path.suffix.lower() in PACKED]
        advice = f", but {inner[0]}: unpack it, and set data_dir to that folder" if inner else ""
        raise DataError(f"The archive holds no images{advice}.")


def safe_path(member):
    """The path of an entry of a zip; DataError if no honest archive would hold it."""
    name, kind = member.filename.replace("\\", "/"), stat.S_IFMT(member.external_attr >> 16)
    path, refused = PurePosixPath(name), None
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", name):
        refused = "leads outside the folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "is a link or a device, not a file"
    elif member.flag_bits & 1:
        refused = "is encrypted"
    elif os.name == "nt" and re.search('[:*?"<>|]', name):
        refused = "has a name that this system cannot hold"
    if refused:
        raise DataError(f"The archive was refused: its entry {member.filename!r} {refused}.")
    return path


def is_wanted(path, member):
    """Whether to unpack this entry of a zip: a picture, what may be one, a list of attributes."""
    if member.is_dir() or any(map(TOOL_FOLDER.fullmatch, path.parts)):
        return False
    is_list = ATTRIBUTE_LIST.fullmatch(path.name) is not None
    return is_list or path.suffix.lower() in ("", *IMAGE_TYPES)
