"""What is served at `/`, without a browser."""

import re
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("starlette")
from starlette.applications import Starlette
from starlette.routing import Route

from auricle.serve.page import page_routes

PAGE = Path(str(resources.files("auricle.serve").joinpath("page")))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CODE = sorted(each for each in PAGE.iterdir() if each.suffix != ".ogg")
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".ogg": "audio/ogg",
    ".svg": "image/svg+xml",
}


def get(path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request, asked of the routes themselves."""
    import asyncio

    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request"}

    async def send(message: dict) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b"", "root_path": ""}
    asyncio.run(Starlette(routes=page_routes())(scope, receive, send))
    start = sent[0]
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], named, b"".join(each.get("body", b"") for each in sent[1:])


def test_every_file_of_the_page_has_a_route_and_its_type() -> None:
    served = {route.path for route in page_routes() if isinstance(route, Route)}
    assert served == {"/"} | {f"/page/{each.name}" for each in PAGE.iterdir() if each.name != "index.html"}
    for each in PAGE.iterdir():
        status, headers, body = get("/" if each.name == "index.html" else f"/page/{each.name}")
        assert (status, body) == (200, each.read_bytes())
        assert headers["content-type"].partition(";")[0] == TYPES[each.suffix]


@pytest.mark.parametrize(
    "path", ["/page/../page.py", "/page/%2e%2e/page.py", "/page/", "/page/index.html", "/page/page.py"]
)
def test_nothing_else_is_served(path: str) -> None:
    assert get(path)[0] == 404


def test_the_policy_allows_this_server_alone() -> None:
    policy = get("/")[1]["content-security-policy"]
    assert policy.startswith("default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:;")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_an_unchanged_file_is_not_sent_again() -> None:
    _, headers, _ = get("/page/app.js")
    status, again, body = get("/page/app.js", if_none_match=f'"other", W/{headers["etag"]}')
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert get("/page/app.js", if_none_match='"other"')[0] == 200


def test_the_page_is_small() -> None:
    assert sum(each.stat().st_size for each in CODE) < 100_000


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_a_file_names_no_other_server_and_runs_no_text(path: Path) -> None:
    text = (
        path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "").replace("https:// or localhost", "")
    )
    assert not re.search(
        r"https?://|innerHTML|insertAdjacentHTML|outerHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"localStorage|\son\w+=|\sstyle=|javascript:", text)


def test_scripts_and_styles_stand_in_files() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="page/app.js">']
    assert "<style" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:aria-labelledby|for)="([^"]+)"', html)
    assert set(references) <= set(ids)
    used = re.findall(
        r"\$\('([\w-]+)'\)", "".join(each.read_text(encoding="utf-8") for each in CODE if each.suffix == ".js")
    )
    assert set(used) <= set(ids)


def test_the_example_clips_are_those_of_the_examples() -> None:
    clips = sorted(PAGE.glob("*.ogg"))
    assert clips
    for clip in clips:
        assert clip.read_bytes() == (EXAMPLES / clip.name).read_bytes()
        assert f"'{clip.name}'" in (PAGE / "app.js").read_text(encoding="utf-8")
