import hashlib
import http.server
import io
import json
import stat
import tarfile
import threading
import zipfile

import pytest

from auricle.data.downloads import (
    RemoteFile,
    bytes_left,
    download,
    download_record,
    unpack,
    zenodo_record,
)
from auricle.errors import DataError, OutputError
from auricle.files import locked

CONTENTS = bytes(range(256)) * 40


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[self.path])
            self.end_headers()
            return
        if self.path not in server.pages:
            self.send_error(server.refusal)
            return
        body, start = server.pages[self.path], 0
        if server.resumes and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.pages, server.moved = [], {}, {}
        server.resumes, server.breaks_after, server.refusal = True, 1 << 30, 404
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(contents):
    return hashlib.md5(contents, usedforsecurity=False).hexdigest()


def record(server, files, **metadata):
    rows = [{"key": key, "size": len(body), "checksum": f"md5:{md5(body)}"} for key, body in files.items()]
    server.pages["/api/records/7"] = json.dumps({"files": rows, "metadata": metadata}).encode()
    for key, body in files.items():
        server.pages[f"/api/records/7/files/{key.replace(' ', '%20')}/content"] = body


def remote(server, contents=CONTENTS, **changes):
    server.pages["/f"] = contents
    return RemoteFile(
        **{"name": "f.bin", "url": f"{server.url}/f", "size": len(contents), "md5": md5(contents), **changes}
    )


def test_a_record(server, tmp_path):
    record(server, {"a b.tar": CONTENTS, "c.tar": b"C"})
    seen = []
    paths = download_record(
        "7", tmp_path / "new", base_url=server.url, progress=lambda name, done, size: seen.append((name, done, size))
    )
    assert [path.read_bytes() for path in paths] == [CONTENTS, b"C"]
    assert seen[-1] == ("c.tar", 1, 1)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a b.tar", "c.tar"]
    before = len(server.requests)
    assert download_record("7", tmp_path / "new", base_url=server.url) == paths
    assert len(server.requests) == before + 1  # the record alone


def test_a_record_states_its_licence_and_size(server, tmp_path):
    record(server, {"a.tar": CONTENTS, "b.tar": b"B"}, title="X-ARES ESC-50", license={"id": "cc-by-nc-4.0"})
    found = zenodo_record("7", base_url=server.url)
    assert (found.title, found.licence, found.page) == ("X-ARES ESC-50", "cc-by-nc-4.0", f"{server.url}/records/7")
    assert found.size == len(CONTENTS) + 1 and [file.name for file in found.files] == ["a.tar", "b.tar"]
    assert bytes_left(found.files, tmp_path / "new") == found.size
    (tmp_path / "b.tar").write_bytes(b"B")
    (tmp_path / ".a.tar.part").write_bytes(CONTENTS[:1000])
    assert bytes_left(found.files, tmp_path) == len(CONTENTS) - 1000
    record(server, {"a.tar": CONTENTS})
    found = zenodo_record("7", base_url=server.url)
    assert (found.title, found.licence) == ("record 7", None)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"new: cannot be written \(Not a directory\)"):
        download(remote(server), tmp_path / "file" / "new")


def test_a_partial_file_is_gone_on_with(server, tmp_path):
    (tmp_path / ".f.bin.part").write_bytes(CONTENTS[:1000])
    assert download(remote(server), tmp_path).read_bytes() == CONTENTS
    assert server.requests == [("/f", "bytes=1000-")]
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_one_process_downloads_a_file(server, tmp_path):
    with locked(tmp_path / "f.bin"), pytest.raises(OutputError, match=r"f\.bin: another run is writing here"):
        download(remote(server), tmp_path)
    assert not server.requests and download(remote(server), tmp_path).read_bytes() == CONTENTS
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_a_server_that_cannot_resume_starts_anew(server, tmp_path):
    server.resumes = False
    (tmp_path / ".f.bin.part").write_bytes(b"x" * 1000)
    assert download(remote(server), tmp_path).read_bytes() == CONTENTS


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.breaks_after = 4000
    assert download(remote(server), tmp_path).read_bytes() == CONTENTS
    assert [header for _, header in server.requests] == [None, "bytes=4000-", "bytes=8000-"]


def test_a_server_that_never_gets_further_ends_in_an_error(server, tmp_path):
    server.resumes, server.breaks_after = False, 4000
    with pytest.raises(DataError, match="ended at byte 4,000 of 10,240; run again"):
        download(remote(server), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".f.bin.part"]


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=f"MD5 {md5(CONTENTS)}, the record states {'0' * 32}; the copy was deleted"):
        download(remote(server, md5="0" * 32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_spoiled_partial_file_is_found_out(server, tmp_path):
    (tmp_path / ".f.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="the copy was deleted"):
        download(remote(server), tmp_path)
    assert download(remote(server), tmp_path).read_bytes() == CONTENTS


def test_more_than_stated_is_refused(server, tmp_path):
    with pytest.raises(DataError, match="more bytes came than the 100"):
        download(remote(server, size=100), tmp_path)
    with pytest.raises(DataError, match="the limit is 50"):
        download(remote(server), tmp_path, max_bytes=50)
    assert list(tmp_path.iterdir()) == []


def test_another_file_of_the_name_is_not_overwritten(server, tmp_path):
    (tmp_path / "f.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="exists already and is not the published file"):
        download(remote(server), tmp_path)
    assert (tmp_path / "f.bin").read_bytes() == b"mine"


def test_no_network_is_said(server, tmp_path):
    file = remote(server, url="http://127.0.0.1:9/f")  # the discard port: nobody listens
    with pytest.raises(DataError, match=r"cannot be reached .* is there a network"):
        download(file, tmp_path)
    with pytest.raises(DataError, match="is there a network"):
        download_record("7", tmp_path, base_url="http://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


def test_only_https(server, tmp_path):
    for url in ("http://example.org/f", "file:///etc/passwd", "ftp://127.0.0.1/f"):
        with pytest.raises(DataError, match="no https address"):
            download(remote(server, url=url), tmp_path)
    file = remote(server, url=f"{server.url}/moved")
    server.moved["/moved"] = "http://example.org/f"
    with pytest.raises(DataError, match=r"http://example\.org/f is no https address"):
        download(file, tmp_path)
    server.moved["/moved"] = f"{server.url}/f"
    assert download(file, tmp_path).read_bytes() == CONTENTS


@pytest.mark.parametrize(("status", "advice"), [(404, "see its page"), (429, "wait an hour")])
def test_a_refusal_of_the_server_is_said(server, status, advice):
    server.refusal = status
    with pytest.raises(DataError, match=f"the server answered {status} .*; {advice}"):
        zenodo_record("7", base_url=server.url)


@pytest.mark.parametrize(
    "page",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": [{"key": "a", "size": 1, "checksum": "sha1:00"}]}',
        b'{"files": [{"key": "a", "size": 1, "checksum": "md5:../"}]}',
        b'{"files": [], "metadata": [1]}',
        b'{"files": [], "metadata": {"license": "free"}}',
    ],
)
def test_an_answer_that_is_no_record(server, page):
    server.pages["/api/records/7"] = page
    with pytest.raises(DataError, match="no description of a record"):
        zenodo_record("7", base_url=server.url)


def test_names_of_a_record_stay_in_the_folder(server, tmp_path):
    for key in ("../a", "a/b", ".hidden", "a\nb", ""):
        record(server, {key: b"A"})
        with pytest.raises(DataError, match="no plain file name"):
            download_record("7", tmp_path, base_url=server.url)
    record(server, {})
    with pytest.raises(DataError, match="has no files"):
        download_record("7", tmp_path, base_url=server.url)
    with pytest.raises(DataError, match="is a number"):
        zenodo_record("../7", base_url=server.url)


def a_zip(path, rows):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in rows:
            archive.writestr(name, contents)
    return path


def a_tar(path, rows, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, contents in rows:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    return path


@pytest.mark.parametrize("mode", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_unpack(tmp_path, mode):
    rows = [("set/a.wav", CONTENTS), ("./set/deep/b.txt", b"B"), ("c", b"")]
    path = a_zip(tmp_path / "x", rows) if mode == "zip" else a_tar(tmp_path / "x", rows, mode)
    folder = unpack(path, tmp_path / "new" / "out")
    assert (folder / "set/a.wav").read_bytes() == CONTENTS
    assert (folder / "set/deep/b.txt").read_bytes() == b"B"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    with pytest.raises(DataError, match="exists already"):
        unpack(path, folder)


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped_link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        ("zip", "../evil", "outside the folder"),
        ("zip", "/evil", "outside the folder"),
        ("zip", "a/../../evil", "outside the folder"),
        ("zip", zipped_link("link"), "link or device"),
        ("zip", "good", "cannot be unpacked"),
        ("tar", "../evil", "outside the folder"),
        ("tar", "/evil", "outside the folder"),
        ("tar", "a\\..\\evil", "outside the folder"),
        ("tar", "good", "cannot be unpacked"),
        ("tar", special("link", tarfile.SYMTYPE, "/etc"), "link, device"),
        ("tar", special("link", tarfile.LNKTYPE, "good"), "link, device"),
        ("tar", special("pipe", tarfile.FIFOTYPE), "link, device"),
        ("tar", special("disk", tarfile.BLKTYPE), "link, device"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_leaves_nothing(tmp_path, kind, bad, message):
    rows = [("good", b"fine"), (bad, b"" if isinstance(bad, tarfile.TarInfo) else b"/etc/passwd")]
    path = a_zip(tmp_path / "x.zip", rows) if kind == "zip" else a_tar(tmp_path / "x.tgz", rows)
    (tmp_path / "place").mkdir()
    with pytest.raises(DataError, match=message):
        unpack(path, tmp_path / "place" / "out")
    assert list((tmp_path / "place").iterdir()) == []
    assert sorted(found.name for found in tmp_path.iterdir()) == ["place", path.name]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs(tmp_path, kind):
    rows = [(f"{number}", bytes(3 << 20)) for number in range(3)]
    path = a_zip(tmp_path / "x.zip", rows) if kind == "zip" else a_tar(tmp_path / "x.tgz", rows)
    with pytest.raises(DataError, match="more than the limit at '1'"):
        unpack(path, tmp_path / "out", max_bytes=4 << 20)
    with pytest.raises(DataError, match="more than 2 members"):
        unpack(path, tmp_path / "out", max_members=2)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["zip", "tar", "xz", "text", "gone"])
def test_a_damaged_archive(tmp_path, kind):
    path = tmp_path / "x"
    noise = hashlib.shake_256(b"noise").digest(100_000)
    if kind == "zip":
        a_zip(path, [("a", noise)])
        path.write_bytes(path.read_bytes().replace(noise[500:600], bytes(100)))
    elif kind in ("tar", "xz"):
        a_tar(path, [("a", noise)], "w:gz" if kind == "tar" else "w:xz")
        stored = path.read_bytes()
        path.write_bytes(stored[:5000] + bytes(200) + stored[5200:60_000])
    elif kind == "text":
        path.write_text("not an archive")
    with pytest.raises(DataError, match="no archive at" if kind == "gone" else "cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
