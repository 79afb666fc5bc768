"""The HTML report: complete, self-contained, and rendered in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import load_engine_artifact
from mvde.bench import peaks
from mvde.bench.compare import compare
from mvde.bench.conditions import Conditions
from mvde.bench.host import describe_machine
from mvde.bench.measure import Assessment, BenchOptions, Efficiency, measure_engines
from mvde.bench.page import page
from mvde.bench.pictures import Picture
from mvde.bench.report import Report, rows, settings_of
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ENGINES = ("openvino:fp32", "onnxruntime:fp32")


@pytest.fixture(scope="module")
def report_and_pictures(
    build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, random_images: Callable
) -> tuple[Report, list[Picture]]:
    """Report of two engines with every optional section, and the pictures."""
    pytest.importorskip("onnxruntime")
    root, patch = tmp_path_factory.mktemp("page"), pytest.MonkeyPatch()
    patch.setattr(peaks, "_SIZES", (128,))
    patch.setattr(peaks, "_SECONDS_PER_SIZE", 0.02)
    pictures = [
        Picture(random_images(60, 90, 3)),
        Picture(random_images(40, 500, 3), np.full((40, 500), 2.0, np.float32)),
    ]
    options = BenchOptions(duration_s=0.2, num_frames=40, paced_fps=50, num_threads=2)

    def assess(runtime: DepthRuntime) -> Assessment:
        accuracy = {"abs_rel": 0.25, "rmse": 0.5, "delta1": 0.9, "num_images": 2.0}
        return Assessment(accuracy, tuple(runtime.infer(picture.image).depth for picture in pictures))

    artifacts = [load_engine_artifact(next(build_tiny(root, engine).glob("engine.[bo]*"))) for engine in ENGINES]
    images = [picture.image for picture in pictures]
    found = measure_engines(artifacts, images, options, assess=assess)
    patch.undo()
    found = [
        dataclasses.replace(one, efficiency=Efficiency(10**7, 3e10, peaks.ProductSpeed(2e11, 1e11))) for one in found
    ]
    conditions = Conditions(0.05, 0.0, 0, None, (1000.0, 3000.0), 70.0, ())
    settings = settings_of(options, images, (0,), "folder <data>")
    report = Report(found, describe_machine(), settings, conditions, 1e10, 50 << 20)
    return dataclasses.replace(report, comparisons=compare(report.to_dict(), report.to_dict())), pictures


@pytest.fixture(scope="module")
def html(report_and_pictures: tuple[Report, list[Picture]]) -> str:
    return page(*report_and_pictures)


class Parser(HTMLParser):
    """HTML parser that records open tags, external references and headings."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [str(value) for name, value in attributes if name in {"src", "href", "srcset", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(html: str) -> None:
    parser = Parser()
    parser.feed(html)
    assert parser.open == []
    assert parser.references
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in parser.references)
    assert "@import" not in html
    assert "url(" not in html
    assert "fetch(" not in html
    assert len(html) < 500_000


def test_the_page_shows_everything_that_was_measured(
    html: str, report_and_pictures: tuple[Report, list[Picture]]
) -> None:
    report, _ = report_and_pictures
    headings = [unescape(text) for text in re.findall(r"<h2>([^<]+)</h2>", html)]
    assert headings == [
        "Latency", "Where the time goes", "Over the run", "At camera rate", "Efficiency",
        "Accuracy against speed", "Depth", "Comparison with the earlier report", "All numbers",
    ]  # fmt: skip
    text = unescape(re.sub("<[^>]+>", "\n", html))
    for name, row in rows(report.measurements).items():
        for cell in (name, *row):
            assert cell in text
    for words in (*report.warnings, "folder <data>", "true depth", *ENGINES):
        assert words in text
    assert "folder <data>" not in html, "text is escaped"


def test_what_was_not_measured_leaves_no_empty_section(report_and_pictures: tuple[Report, list[Picture]]) -> None:
    report, _ = report_and_pictures
    bare = [
        dataclasses.replace(one, assessment=Assessment(), efficiency=None, paced=None, concurrent=None)
        for one in report.measurements[:1]
    ]
    quiet = Conditions(None, None, None, None, None, None, ())
    html = page(dataclasses.replace(report, measurements=bare, conditions=quiet, comparisons=()))
    headings = re.findall(r"<h2>([^<]+)</h2>", html)
    assert headings == ["Latency", "Where the time goes", "Over the run", "Efficiency", "All numbers"]


def test_the_differences_under_the_pictures_are_of_the_depth_shown(
    html: str, report_and_pictures: tuple[Report, list[Picture]]
) -> None:
    report, pictures = report_and_pictures
    depth = report.measurements[0].assessment.depths[1].astype(np.float64)
    expected = float(np.mean(np.abs(depth - 2.0) / 2.0))
    assert f"mean |Δ|/depth to the truth: {expected:.1%}" in unescape(html)
    assert pictures[1].truth_m is not None


def look_at(html: str, width: int, folder: Path, script: str) -> Any:
    """Result of ``script`` in the page, rendered by a browser at ``width`` pixels."""
    spy = '<script>window.errors = []; addEventListener("error", (event) => errors.push(event.message));</script>'
    seen = html.replace("<head>", f"<head>{spy}", 1)
    wrapper = folder / "wrapper.html"
    report = (
        "window.onload = () => {"
        "const page = document.querySelector('iframe').contentWindow;"
        f"const found = ((window, document) => {{ {script} }})(page, page.document);"
        "document.body.textContent = 'FOUND' + JSON.stringify(found) + 'END'; };"
    )
    frame = f'<iframe style="width:{width}px;height:2000px;border:0" srcdoc="{escape(seen)}"></iframe>'
    wrapper.write_text(f"<!doctype html><meta charset=utf-8>{frame}<script>{report}</script>", encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    match = re.search("FOUND(.*)END", unescape(done.stdout))
    assert match is not None, done.stderr[-2000:]
    return json.loads(match[1])


@pytest.mark.skipif(BROWSER is None, reason="no browser here (apt install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_the_page_whole(html: str, tmp_path: Path, width: int) -> None:
    found = look_at(
        html,
        width,
        tmp_path,
        """
        const box = (one) => one.getBoundingClientRect();
        const theme = document.documentElement.dataset.theme;
        const paper = () => window.getComputedStyle(document.body).backgroundColor;
        const before = paper();
        document.getElementById("theme").click();
        const outside = [...document.querySelectorAll("main *")].filter((one) =>
            !one.closest(".wide") && !one.closest("details") && box(one).right > window.innerWidth);
        return {
            errors: window.errors,
            inner: window.innerWidth,
            scroll: document.documentElement.scrollWidth,
            outside: outside.map((one) => one.outerHTML.slice(0, 200)),
            images: [...document.images].map((one) => one.naturalWidth),
            empty: [...document.querySelectorAll(".shape, .part, .fill, .plot")].filter((one) =>
                box(one).height < 1).length,
            text: Math.min(...[...document.querySelectorAll(".tick, td, small, .mark span")].map((one) =>
                parseFloat(window.getComputedStyle(one).fontSize))),
            toggled: document.documentElement.dataset.theme !== theme && paper() !== before,
        };
        """,
    )
    assert found["errors"] == []
    assert found["inner"] == width
    assert found["scroll"] <= width, found["outside"]
    assert found["outside"] == []
    assert len(found["images"]) == 7, "two rows: image and two engines; image, truth and two engines"
    assert min(found["images"]) > 0
    assert found["empty"] == 0
    assert found["text"] >= 11
    assert found["toggled"]
