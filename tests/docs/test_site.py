"""The documentation's site: it builds without a warning, asks nothing of other hosts, and says what the code says."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"
MOST_BYTES = 1_000_000
GENERATED = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'cuescope[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return out


class Loaded(HTMLParser):
    """What a page makes a browser fetch by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(named.get("src", ""))
        if tag == "link" and named.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(named.get("href", ""))


@pytest.mark.slow
def test_it_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        assert [url for url in Loaded(page).found if "//" in url] == [], page
        assert 'class="mermaid"' not in page.read_text("utf-8"), f"{page}: the theme would fetch mermaid from a CDN"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", style.read_text("utf-8")), style


@pytest.mark.slow
def test_the_reference_has_the_docstrings(site: Path) -> None:
    page = (site / "python.html").read_text("utf-8")
    for name in ("pipeline.api.discover", "pipeline.config.Audit.from_yaml", "pipeline.models.protocols.Classifier"):
        assert f'id="{name}"' in page
    assert "hybrid score method" in (site / "statistics.html").read_text("utf-8")


@pytest.mark.parametrize("name", GENERATED)
def test_pages_written_from_the_code_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == GENERATED[name](), "run: python docs/generate.py"


def test_every_key_of_a_configuration_is_explained() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    for key in ("smallest_effect", "max_per_class", "notify_when", "no_split", "seed", "`data: {source: coco"):
        assert key in page
    assert re.search(r"\| `q` \| number, above 0, below 1 \| `0.05` \|", page)


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    named = re.findall(r"[\w/-]+\.md", str(config["nav"]))
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_pictures_are_small_and_all_shown() -> None:
    pictures = sorted((DOCS / "pictures").iterdir())
    assert sum(picture.stat().st_size for picture in pictures) < MOST_BYTES
    text = "".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    assert [picture.name for picture in pictures if f"pictures/{picture.name}" not in text] == []


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (ROOT / link).exists(), (page.name, link)
