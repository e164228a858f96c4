"""The page in headless Chromium, against a server that can be slow, busy, locked or away."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("selenium", reason="needs selenium, and Debian's chromium and chromium-driver")
pytest.importorskip("uvicorn", reason="needs the extra serve")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs Debian's chromium and chromium-driver", allow_module_level=True)

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from .stub import CAPTION, Stub

FLAGS = [
    "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900",
    "use-fake-ui-for-media-stream", "use-fake-device-for-media-stream", "autoplay-policy=no-user-gesture-required",
]  # fmt: skip
PATIENCE_S = 20  # this is how long a loaded machine may take, no claim about speed


class Page:
    """The browser, with the few acts that the tests need."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self) -> "Page":
        self.driver.get(self.url)
        return self

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText || ''", selector)

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def until(self, test: Callable[[], Any], what: str) -> Any:
        return WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(lambda _: test(), what)

    def until_text(self, selector: str, pattern: str) -> str:
        found = lambda: re.search(pattern, self.text(selector))  # noqa: E731
        return self.until(found, f"{selector}: {pattern!r} in {self.text(selector)!r}").group()

    def press(self, selector: str, words: str = "") -> None:
        button = next(each for each in self.all(f"{selector} button") if words in each.text)
        self.js("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def add(self, *files: Path) -> None:
        self.one("#file").send_keys("\n".join(str(file) for file in files))

    def settle(self) -> None:
        """Wait for what a new clip asks of the server."""
        self.until_text("#describe-out", re.escape(CAPTION))
        self.until(lambda: not self.text("#mel-note"), "a spectrogram")

    def write(self, selector: str, words: str) -> None:
        self.one(selector).clear()
        self.one(selector).send_keys(words + Keys.ENTER)

    def command(self, name: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, values)

    def errors(self) -> list[str]:
        return [each["message"] for each in self.driver.get_log("browser") if each["level"] in {"SEVERE", "WARNING"}]

    def requests(self) -> list[str]:
        """Where each request of this page went."""
        events = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def server() -> Iterator[Stub]:
    stub = Stub()
    stub.start()
    yield stub
    stub.stop()


@pytest.fixture
def page(driver: Any, server: Stub) -> Iterator[Page]:
    """The page, opened; afterwards no fault but refusals that the test wanted, and no request to anywhere else."""
    page = Page(driver, server.url)
    page.errors(), page.requests()
    yield page.open()
    strange = [each for each in page.errors() if not re.search(r"Failed to load resource|net::ERR_|getImageData", each)]
    assert strange == []
    away = [
        each for each in page.requests() if not each.startswith((server.url, f"blob:{server.url}", "data:,", "about:"))
    ]
    assert away == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    time = np.arange(3 * 16_000) / 16_000
    for name, hz in {"low.wav": 200, "high.wav": 5000, "mac.aiff": 440}.items():
        soundfile.write(folder / name, 0.4 * np.sin(2 * np.pi * hz * time), 16_000)
    (folder / "broken.wav").write_text("This is no audio.")
    return {each.stem: each for each in folder.iterdir()}


def test_the_first_view_is_fast_and_without_a_fault(page: Page) -> None:
    page.until_text("#server", "Ready · auricle-tiny")
    paint = page.js("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1000
    assert page.errors() == []
    assert not page.one("#clip").is_displayed()


def test_a_file_is_described_and_drawn(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.settle()
    page.until_text("#coverage-words", "0.0–3.0 s processed")
    page.until_text("#time", r"0:00\.0 / 0:03\.0")
    shades = """const canvas = document.querySelector(arguments[0]); const seen = new Set();
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 4).join()); return seen.size"""
    page.until(lambda: page.js(shades, "#mel canvas") > 50, "a spectrogram")
    assert page.js(shades, "#wave canvas") > 1
    assert page.text("#say").startswith("low.wav: ")
    assert page.errors() == []


def test_the_low_tone_is_low_in_the_spectrogram(page: Page, clips: dict[str, Path]) -> None:
    brightest = """const canvas = document.querySelector('#mel canvas'); const {width, height} = canvas;
        const data = canvas.getContext('2d').getImageData(Math.floor(width / 2), 0, 1, height).data;
        const light = (y) => data[4 * y] + data[4 * y + 1];
        let best = 0; for (let y = 0; y < height; y++) if (light(y) > light(best)) best = y;
        return best / height"""
    page.add(clips["low"])
    page.until(lambda: page.js(brightest) > 0.85, "the tone of 200 Hz at the bottom")
    page.add(clips["high"])
    page.until(lambda: 0.05 < page.js(brightest) < 0.3, "the tone of 5 kHz near the top")


def test_files_are_dropped(page: Page) -> None:
    page.js("""fetch('page/alarm.ogg').then((reply) => reply.blob()).then((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], 'dropped.ogg', {type: 'audio/ogg'}));
        data.items.add(new File(['x'], 'notes.txt', {type: 'text/plain'}));
        document.body.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: data}));
    })""")
    page.until_text("#clip-name", r"dropped\.ogg")
    page.until_text("#mic", "One file was left out")
    page.until_text("#describe-out", re.escape(CAPTION))


def test_an_example_is_a_press_away(page: Page) -> None:
    page.press("#examples", "An alarm")
    page.until_text("#describe-out", "An electronic alarm")


def test_the_microphone_becomes_a_wav_file(page: Page, server: Stub) -> None:
    page.press(".add", "Record")
    page.until_text("#rec-time", r"0:0[1-9]")
    page.press("#recording", "Stop and use")
    page.until_text("#clip-name", r"recording 1\.wav")
    page.until_text("#coverage-words", r"0\.0–\d+\.\d s processed")
    page.until(lambda: page.js("return document.getElementById('audio').duration") > 0.5, "a recording that plays")


def test_a_blocked_microphone_is_explained(page: Page) -> None:
    page.js("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.press(".add", "Record")
    page.until_text("#mic", "The microphone is blocked for this page. Allow it")


def test_an_answer_is_text_whatever_it_says(page: Page, clips: dict[str, Path], server: Stub) -> None:
    page.add(clips["low"])
    page.settle()
    page.write("#ask", "Who <i>speaks</i>?")
    page.until_text("#ask-out .answer", "one</b> after the other")
    assert page.text("#ask-out .question") == "Who <i>speaks</i>?"
    assert page.all("#ask-out :is(b:not([aria-hidden]), i)") == []
    assert server.seen[-1] == ("audio/ask", {"prompt": "Who <i>speaks</i>?", "stream": "true"})


def test_a_stream_is_stopped_in_its_middle(page: Page, clips: dict[str, Path], server: Stub) -> None:
    page.add(clips["low"])
    page.settle()
    server.pause_s = 0.5
    page.write("#ask", "Who speaks?")
    page.until_text("#ask-out .answer", "Two")
    page.press("#ask-out", "Stop")
    page.until_text("#ask-out .status", "Stopped")
    page.until(lambda: server.cancelled, "the server to be told")
    assert "after the other" not in page.text("#ask-out")
    server.pause_s = 0
    page.press("#ask-out", "Start again")
    page.until_text("#ask-out .answer", "after the other")
    assert len(page.all("#ask-out .entry")) == 1


@pytest.mark.parametrize(
    ("ending", "message", "code"),
    [("error", "Out of memory.", "out_of_memory"), ("cut", "The answer was cut off before its end.", "stream_ended")],
)
def test_a_stream_that_fails_keeps_what_was_written(
    page: Page, clips: dict[str, Path], server: Stub, ending: str, message: str, code: str
) -> None:
    page.add(clips["low"])
    page.settle()
    server.ending = ending
    page.write("#ask", "Who speaks?")
    page.until_text("#ask-out .fault", re.escape(message))
    assert page.text("#ask-out code") == code
    assert page.text("#ask-out .answer").startswith("Two people speak")
    server.ending = "whole"
    page.press("#ask-out", "Try again")
    page.until_text("#ask-out", "confidence 0.60")


def test_a_busy_server_is_counted_down_to(page: Page, clips: dict[str, Path], server: Stub) -> None:
    page.add(clips["low"])
    page.settle()
    server.busy = 1
    page.write("#ask", "Who speaks?")
    page.until_text("#ask-out", r"Next try in [12] s\.")
    page.until_text("#ask-out .answer", "after the other")
    server.busy, server.retry_after = 1, 60
    page.write("#ask", "And now?")
    page.until_text("#ask-out", r"Next try in (60|59) s")
    page.press("#ask-out", "Try now")
    page.until(lambda: len(page.all("#ask-out .answer")) == 2, "an answer before the minute is over")
    server.busy = 1
    page.write("#ask", "No more?")
    page.until_text("#ask-out", r"Next try in (60|59) s")
    page.press("#ask-out", "Stop")
    page.until_text("#ask-out", "Stopped")


def test_a_broken_file_leaves_the_others_alone(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["broken"])
    page.until_text("#describe-out", r"Error\. broken\.wav: not audio that can be decoded")
    assert page.text("#describe-out code") == "unknown_format"
    page.until_text("#mel-note", "No spectrogram")
    page.press("#parts-form")
    page.until_text("#parts-out", "cannot decode the clip")
    page.add(clips["low"])
    page.settle()
    assert "⚠ Error" in page.text("#clips")
    page.js("document.querySelectorAll('#clips li')[0].lastChild.click()")
    page.until(lambda: len(page.all("#clips li")) == 1, "one clip")


def test_a_clip_that_only_the_server_can_decode(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["mac"])
    page.settle()
    page.until_text("#clip-facts", r"3\.0 s")
    page.until_text("#time", "This browser cannot play the clip")
    page.write("#search", "a low hum")
    page.until_text("#search-out", r"mac\.aiff")


def test_two_tabs_do_not_mix(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.settle()
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open().add(clips["high"])
    page.until_text("#describe-out", re.escape(CAPTION))
    assert page.text("#clip-name") == "high.wav"
    page.driver.close()
    page.driver.switch_to.window(first)
    assert page.text("#clips").count(".wav") == 1
    page.write("#ask", "Who speaks?")
    page.until_text("#ask-out .answer", "after the other")


def test_a_key_is_wanted_and_kept_for_the_tab(page: Page, clips: dict[str, Path], server: Stub) -> None:
    server.key = "secret"
    page.open()
    page.until(lambda: page.one("#key-form").is_displayed(), "a field for the key")
    page.write("#key", "wrong")
    page.until(lambda: page.one("#key-form").is_displayed(), "the field again")
    page.write("#key", "secret")
    page.until_text("#server", "Ready")
    page.add(clips["low"])
    page.settle()
    assert page.js("return [localStorage.length, sessionStorage.length]") == [0, 1]
    page.js("sessionStorage.clear()")


def test_what_waits_for_the_server_goes_on_when_it_is_back(page: Page, clips: dict[str, Path], server: Stub) -> None:
    page.add(clips["low"])
    page.settle()
    server.stop()
    page.write("#ask", "Who speaks?")
    page.until_text("#offline", "The server does not answer")
    page.until_text("#ask-out", "This goes on when the server is back")
    assert CAPTION in page.text("#describe-out")
    server.start()
    page.until_text("#ask-out .answer", "after the other")
    assert not page.one("#offline").is_displayed()


def test_the_keyboard_plays_moves_searches_and_asks(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.until_text("#time", r"/ 0:03\.0")
    page.one("#scrub").send_keys(" ")
    page.until(lambda: not page.js("return document.getElementById('audio').paused"), "the clip to play")
    assert page.one("#play").get_attribute("aria-label") == "Pause"
    page.one("#scrub").send_keys(" ")
    page.one("#scrub").send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    page.until_text("#time", r"0:01\.0 / 0:03\.0")
    assert page.one("#scrub").get_attribute("aria-valuetext") == "1.0 of 3.0 seconds"
    page.one("#scrub").send_keys("/")
    assert page.js("return document.activeElement.id") == "search"
    page.one("#search").send_keys("a / b", Keys.ESCAPE)
    assert page.one("#search").get_attribute("value") in {"a / b", ""}  # Escape also empties a search field
    page.one("#scrub").send_keys("a")
    assert page.js("return document.activeElement.id") == "ask"
    assert page.one("#ask").get_attribute("value") == ""


def test_a_press_on_the_picture_moves_the_player(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.until_text("#time", r"/ 0:03\.0")
    page.until_text("#describe-out", re.escape(CAPTION))
    page.one("#scrub").click()  # its middle
    page.until_text("#time", r"0:01\.[45] / 0:03\.0")


def test_clips_are_ranked_by_the_words(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["high"], clips["broken"], clips["low"])
    page.until_text("#clips", "⚠ Error")
    page.write("#search", "a low hum")
    page.until(lambda: len(page.all("#search-out .hits li")) == 2, "two hits")
    assert re.findall(r"(?:low|high)\.wav|\d+\.\d", page.text("#search-out .hits")) == [
        "low.wav",
        "100.0",
        "high.wav",
        "0.0",
    ]
    assert "Not compared, for they could not be read: broken.wav." in page.text("#search-out")
    page.press("#search-out", "low.wav")
    page.until_text("#clip-name", r"low\.wav")


def test_words_with_times_become_subtitles(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.press("#transcribe-out", "Transcribe")
    page.until_text("#transcribe-out", "seven two")
    assert [each.text for each in page.all("#labels button")] == ["A man says", "seven two", "four"]
    page.js("URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#'; }")
    for choice, start in {
        "srt": "1\n00:00:00,000 --> 00:00:01,000\nA man says\n\n2\n",
        "vtt": "WEBVTT\n\n00:00:00.000 -->",
    }.items():
        page.one("#transcribe-out select").send_keys(choice)
        page.press("#transcribe-out", "Download")
        page.until(lambda start=start: (page.js("return window.saved") or "").startswith(start), choice)


def test_a_long_transcript_is_shown_while_it_is_written(page: Page, server: Stub, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", 0.1 * np.sin(np.arange(31 * 8_000) / 9), 8_000)
    page.add(tmp_path / "long.wav")
    page.settle()
    server.pause_s = 0.3
    page.press("#transcribe-out", "Transcribe")
    page.until_text("#transcribe-out .answer", "A man says")
    assert page.text("#transcribe-out .status").startswith("Writing")
    page.until_text("#transcribe-out .timed", r"20\.7–31\.0 s\s+four")
    asked = [fields for path, fields in server.seen if path == "audio/transcriptions"]
    assert asked == [{"model": "auricle-tiny", "response_format": "json", "stream": "true"}]


@pytest.mark.parametrize(
    ("seconds", "stamp"), [(4.35, "00:00:04,350"), (59.9996, "00:01:00,000"), (3661.0015, "01:01:01,002")]
)
def test_a_subtitle_rounds_its_milliseconds_once(page: Page, seconds: float, stamp: str) -> None:
    script = """const done = arguments[1]; import('./page/words.js').then(({subtitles}) =>
        done(subtitles([{start: 0, stop: arguments[0], text: 'x'}], 'srt')))"""
    assert stamp in page.driver.execute_async_script(script, seconds)


def test_a_receipt_says_what_was_left_out(page: Page) -> None:
    receipt = {
        "read": [{"start_s": 0, "stop_s": 4}, {"start_s": 4, "stop_s": 8.04}, {"start_s": 9, "stop_s": 12.4}],
        "skipped": [{"start_s": 8.04, "stop_s": 9, "reason": "silence"}],
        "dropped": [{"start_s": 12.4, "stop_s": 12.403, "reason": "short"}],
        "overlaps": [], "padded_s": 0.0, "truncated": True, "damaged": 2, "notes": ["one thing"], "complete": False,
    }  # fmt: skip
    script = (
        "const done = arguments[1]; import('./page/words.js').then((words) => done(words.receiptWords(arguments[0])))"
    )
    found = page.driver.execute_async_script(script, receipt)
    assert found["line"] == "0.0–8.0 s, 9.0–12.4 s processed; not the whole clip"
    assert found["more"] == [
        "8.0–9.0 s skipped: silence.",
        "3 ms at 12.4 s not processed: short.",
        "The file ends before its header says.",
        "Places that could not be decoded: 2.",
        "One thing.",
    ]


def test_each_part_gets_a_label_on_the_waveform(page: Page, clips: dict[str, Path], server: Stub) -> None:
    page.add(clips["low"])
    page.settle()
    page.press("#parts-form")
    page.until(lambda: len(page.all("#labels button")) == 3, "three parts of a second")
    page.until(lambda: page.text("#parts-out").count(CAPTION) == 3, "their captions")
    assert page.text("#parts-out").startswith("0.0–1.0 s")


def test_labels_are_compared(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.write("#words", "hum, whistle")
    page.until_text("#classify-out", r"hum\s+80 %\s+whistle\s+20 %")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(page: Page, clips: dict[str, Path], scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.add(clips["low"], clips["broken"])
    page.until_text("#clips", "⚠ Error")
    page.press("#transcribe-out", "Transcribe")
    page.until_text("#transcribe-out", "seven two")
    faint = page.js(CONTRAST)
    page.command("Emulation.setEmulatedMedia", features=[])
    assert faint == []


CONTRAST = """
const shade = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4);
const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
const behind = (node) => {
  const colour = node ? shade(getComputedStyle(node).backgroundColor) : [255, 255, 255];
  return colour.length < 4 || colour[3] > .9 ? colour : behind(node.parentElement);
};
const faint = [];
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
  if (!own || !node.checkVisibility() || node.closest('.unseen, .skip, :disabled, select, #hz')) continue;
  const [a, b] = [light(shade(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) faint.push(`${node.tagName}.${node.className}: ${node.textContent.slice(0, 30)}`);
}
return faint;
"""


@pytest.mark.parametrize("width", [360, 640, 3840])
def test_nothing_is_wider_than_the_window(page: Page, clips: dict[str, Path], width: int) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    page.add(clips["low"], clips["broken"])
    page.until_text("#clips", "⚠ Error")
    page.press("#parts-form")
    page.until(lambda: page.text("#parts-out").count(CAPTION) == 3, "captions")
    page.write("#search", "a low hum")
    page.until_text("#search-out", r"Error|low\.wav")
    page.write("#ask", "x" * 300)
    page.until_text("#ask-out .answer", "after the other")
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.command("Emulation.clearDeviceMetricsOverride")


def test_every_control_has_a_name(page: Page, clips: dict[str, Path]) -> None:
    page.add(clips["low"])
    page.press("#transcribe-out", "Transcribe")
    page.until_text("#transcribe-out", "seven two")
    page.write("#ask", "Who speaks?")
    page.until_text("#ask-out .answer", "after the other")
    roles = {"button", "textbox", "searchbox", "combobox", "slider", "link", "meter", "progressbar", "image"}
    tree = page.command("Accessibility.getFullAXTree")["nodes"]
    controls = [each for each in tree if each.get("role", {}).get("value") in roles and not each.get("ignored")]
    assert len(controls) > 20
    assert [each["role"] for each in controls if not each.get("name", {}).get("value")] == []
