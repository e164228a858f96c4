"""Published archives: downloaded, verified and unpacked, or an error that says what happened.

A download is written to a hidden ``.part`` file beside its target, resumed from there after an interruption, and takes
its name only when size and MD5 are those of the record. Archives are untrusted: one with a member that is anything but
a plain file or folder below the target is refused as a whole.

pooch 1.9 does none of that but the checksum: it starts over after an interruption, replaces files that it did not
write, has no limit of size, follows redirects to plain http, and unpacks what an archive declares.
"""

import errno
import hashlib
import http.client
import json
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from auricle.errors import DataError
from auricle.files import atomic_folder, is_printable, locked, make_folder, output_errors, publish

ZENODO = "https://zenodo.org"
MAX_FILE_BYTES = 256 << 30  # the largest audio record of X-ARES is smaller
MAX_UNPACKED_BYTES = 512 << 30
MAX_MEMBERS = 2_000_000

_CHUNK = 1 << 20
_MAX_RECORD_BYTES = 16 << 20  # of the JSON that describes a record
_TIMEOUT_S = 60.0  # without a byte
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MD5 = re.compile(r"[0-9a-f]{32}")
# What readers of archives raise about damage, and about a second file of one name.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a record, as the record states it."""

    name: str
    url: str
    size: int  # bytes
    md5: str  # 32 hexadecimal digits


@dataclass(frozen=True, slots=True)
class RemoteRecord:
    """A record as it describes itself; its texts are untrusted."""

    title: str
    licence: str | None  # short name, such as cc-by-4.0; None: not stated
    page: str  # address of its web page
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def zenodo_record(record: str, *, base_url: str = ZENODO) -> RemoteRecord:
    """Read which files a Zenodo record holds, and under which licence; ``base_url`` is https, or http on this machine.

    Raises:
        DataError: no network, no such record, or an answer that is no record.
    """
    if not record.isdigit():
        raise DataError(f"a Zenodo record is a number, got {record!r}")
    url = f"{base_url}/api/records/{record}"
    with _open(url, {}) as reply:
        stored = reply.read(_MAX_RECORD_BYTES + 1)
    try:
        if len(stored) > _MAX_RECORD_BYTES:
            raise ValueError("too long")
        described = json.loads(stored)
        about = described.get("metadata") or {}
        licence = (about.get("license") or {}).get("id")
        files = tuple(_remote(row, url) for row in described["files"])
        title, page = str(about.get("title") or f"record {record}"), f"{base_url}/records/{record}"
        return RemoteRecord(title, str(licence) if licence else None, page, files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{url} is no description of a record ({error}); see {base_url}/records/{record}") from None


def bytes_left(files: Iterable[RemoteFile], folder: str | Path) -> int:
    """Bytes of the files that are not in the folder yet, by their sizes alone."""
    left = 0
    for file in files:
        target = Path(folder) / file.name
        had = next((path.stat().st_size for path in (target, _partial(target)) if path.is_file()), 0)
        left += max(0, file.size - had)
    return left


def download_record(
    record: str,
    folder: str | Path,
    *,
    base_url: str = ZENODO,
    max_bytes: int = MAX_FILE_BYTES,
    progress: Progress | None = None,
) -> list[Path]:
    """Download every file of a Zenodo record; verified files that are present are kept.

    Args:
        record: its number.
        folder: created if missing.
        base_url: see `zenodo_record`.
        max_bytes: of one file.
        progress: called with the name of the file, bytes so far and bytes in all.

    Raises:
        DataError: see `zenodo_record` and `download`; finished files stay.
    """
    files = zenodo_record(record, base_url=base_url).files
    if not files:
        raise DataError(f"record {record} of {base_url} has no files; it may be restricted")
    return [download(file, folder, max_bytes=max_bytes, progress=progress) for file in files]


def download(
    file: RemoteFile, folder: str | Path, *, max_bytes: int = MAX_FILE_BYTES, progress: Progress | None = None
) -> Path:
    """Download one file, or the rest of it, and verify it.

    Returns:
        Its path.

    Raises:
        DataError: larger than `max_bytes`, no network, an interruption (run again to resume), another size or checksum
            than stated (the copy is deleted), or a different file of that name is present.
        OutputError: the folder cannot be written, or another process is downloading the file.
    """
    if not 0 < file.size <= max_bytes:
        raise DataError(f"{file.name} has {file.size:,} bytes; the limit is {max_bytes:,}. Pass a larger max_bytes")
    target = make_folder(folder) / _plain(file.name)
    with locked(target):
        if target.exists():
            if target.stat().st_size != file.size or _md5(target) != file.md5:
                raise DataError(f"{target} exists already and is not the published file; move or delete it first")
            return target
        partial = _partial(target)
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        while (done := partial.stat().st_size if partial.exists() else 0) < file.size:
            _fetch(file, partial, done, progress)
        if (found := _md5(partial)) != file.md5:
            partial.unlink()
            raise DataError(
                f"{file.name} has MD5 {found}, the record states {file.md5}; the copy was deleted. "
                "Download it again; if it happens twice, report it to the publisher"
            )
        publish(partial, target)
    return target


def unpack(
    archive: str | Path, folder: str | Path, *, max_bytes: int = MAX_UNPACKED_BYTES, max_members: int = MAX_MEMBERS
) -> Path:
    """Unpack a zip or a tar (plain, gz, bz2, xz) into a new folder, completely or not at all.

    Args:
        archive: its kind is found by content.
        folder: must not exist; its parent is created if missing.
        max_bytes: of all members together, counted while they are written, because headers can be wrong.
        max_members: files and folders.

    Returns:
        The folder.

    Raises:
        DataError: no such archive, damaged or encrypted; a member that is absolute, climbs out, is a link, a device, a
            sparse file or a second file of one name; a limit exceeded; or the folder exists.
        OutputError: the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists already; give a new folder, or delete it first")
    with atomic_folder(folder) as aside:
        try:
            left, members = max_bytes, 0
            for name, contents in _members(archive):
                members += 1
                if members > max_members:
                    raise DataError(f"{archive} has more than {max_members:,} members; pass a larger max_members")
                left -= _write(archive, aside, name, contents, left)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EEXIST):
                raise  # the disk's, not the archive's
            raise DataError(f"{archive} cannot be unpacked ({error}); download it again") from error
    return folder


def _remote(row: Any, url: str) -> RemoteFile:
    kind, _, md5 = row["checksum"].partition(":")
    if kind != "md5" or not _MD5.fullmatch(md5):
        raise ValueError(f"checksum {row['checksum']!r}, expected md5:…")
    return RemoteFile(_plain(row["key"]), f"{url}/files/{quote(row['key'], safe='')}/content", int(row["size"]), md5)


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _plain(name: str) -> str:
    if not name or name.startswith(".") or not is_printable(name, "/\\:"):
        raise DataError(f"{name!r} is no plain file name; it is not written to this disk")
    return name


class _SameSafety(HTTPRedirectHandler):
    """Follows no redirect away from https."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        """Check the new address, then do as always."""
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise DataError(f"{url} is no https address; nothing is downloaded over an unencrypted connection")


@contextmanager
def _open(url: str, headers: dict[str, str]) -> Iterator[Any]:
    _check_address(url)
    request = Request(url, headers={"User-Agent": "auricle", **headers})
    try:
        with build_opener(_SameSafety()).open(request, timeout=_TIMEOUT_S) as reply:
            yield reply
    except HTTPError as error:
        with error:
            advice = (
                "wait an hour: the server limits how much one address may fetch" if error.code in (403, 429) else ""
            )
            raise DataError(
                f"{url}: the server answered {error.code} {error.reason}; {advice or 'see its page'}"
            ) from None
    except http.client.HTTPException as error:
        raise DataError(f"{url}: the connection broke off ({type(error).__name__}); run again to resume") from None
    except URLError as error:
        raise DataError(
            f"{url} cannot be reached ({error.reason}); is there a network? Nothing was downloaded: try again, or "
            "fetch it elsewhere and put it into the folder"
        ) from None
    except OSError as error:
        raise DataError(f"{url}: the connection broke off ({error}); run again to resume") from None


def _fetch(file: RemoteFile, partial: Path, had: int, progress: Progress | None) -> None:
    """Append to the partial file from its end where the server supports that, else write it from the start."""
    with _open(file.url, {"Range": f"bytes={had}-"} if had else {}) as reply:
        resumes = reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {had}-")
        done = had if resumes else 0
        with output_errors(partial), partial.open("ab" if resumes else "wb") as out:
            while block := _received(file, reply):
                done += len(block)
                if done > file.size:
                    partial.unlink()
                    raise DataError(f"{file.name}: more bytes came than the {file.size:,} that the record states")
                out.write(block)
                if progress is not None:
                    progress(file.name, done, file.size)
    if done <= had:
        raise DataError(f"{file.url}: the connection ended at byte {done:,} of {file.size:,}; run again to resume")


def _received(file: RemoteFile, reply: Any) -> bytes:
    try:
        return bytes(reply.read(_CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{file.url}: the connection broke off ({error}); run again to resume") from None


def _md5(path: Path) -> str:
    # Zenodo states no other digest; it finds damage, and https keeps others from changing the file.
    total = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            total.update(block)
    return total.hexdigest()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and contents of each member, None for folders; anything else is refused."""
    if not archive.is_file():
        raise DataError(f"no archive at {archive}")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{archive}: {info.filename!r} is a link or device; the archive is refused")
                if info.is_dir():
                    yield info.filename, None
                else:
                    with opened.open(info) as contents:
                        yield info.filename, contents
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
                raise DataError(f"{archive}: {member.name!r} is a link, device or sparse; the archive is refused")
            yield member.name, tar.extractfile(member) if member.isreg() else None


def _write(archive: Path, folder: Path, name: str, contents: IO[bytes] | None, left: int) -> int:
    """Write one member below the folder; returns its bytes."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or not is_printable(name, "\\"):
        raise DataError(f"{archive}: member {name!r} would be outside the folder; the archive is refused")
    target = folder.joinpath(*parts)
    if contents is None:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as out:
        while block := contents.read(_CHUNK):
            written += len(block)
            if written > left:
                raise DataError(f"{archive} unpacks to more than the limit at {name!r}; pass a larger max_bytes")
            out.write(block)
    return written
