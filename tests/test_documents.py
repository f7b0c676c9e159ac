"""The documentation is true: its links and anchors exist, its lists and its picture match the code, its site builds."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import grimp
import networkx as nx
import pytest
from documentation import PAGES, ROOT, blocks, posbench

from posbench.commands.catalog import names

LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_the_reference_is_what_the_command_prints() -> None:
    """The grids of names were once written by hand and fell behind the configs."""
    run = [sys.executable, "-m", "posbench", "list", "--markdown"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "reference.md").read_text() == printed, (
        "run posbench list --markdown > docs/reference.md"
    )


def slug(heading: str) -> str:
    """Returns the anchor that GitHub and the site give a heading."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def prose(page: Path) -> str:
    """Returns a page without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_exist(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], f"{page.name} links {link}"


def test_every_page_is_linked_from_the_readme_and_is_in_the_site() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages == set(re.findall(r"\]\(docs/([^)#]+)\)", (ROOT / "README.md").read_text()))
    listed = re.findall(r"^([\w-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    assert pages == {f"{name}.md" for name in listed} | {"index.md"}


def test_the_numbers_of_the_pitfalls_are_the_published_ones() -> None:
    tables = ROOT / "results" / "published" / "demo" / "tables"
    rows = re.findall(
        r"^\| (\w+), ([\w-]+ ?\w*) \| ([\d. |]+) \|$",
        (ROOT / "docs" / "pitfalls.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 2
    for scheme, protocol, values in rows:
        table = (tables / f"perplexity-{re.sub('[ -]', '_', protocol)}-bits_per_byte.md").read_text()
        line = next(line for line in table.splitlines() if line.startswith(f"| {scheme} |"))
        assert re.findall(r"[\d.]+(?= \[)", line) == values.split(" | ")


def test_a_block_that_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "bash":
                assert re.fullmatch(r"(no-run: \w.+)?", block.info), f"{page.name}: {block.info}"


SETTING = re.compile(r"`('[^`']+=[^`']+'|(?:runtime|train|grid)\.\S+=[^`\s]+)`")


@pytest.mark.parametrize(
    "setting", sorted({shlex.split(one)[0] for page in PAGES for one in SETTING.findall(prose(page))})
)
def test_settings_in_the_text_compose(setting: str) -> None:
    """Fault: the text had dictionaries that the command line refused; only code blocks were tested."""
    name = "evaluate" if re.match(r"\+?(lm|evaluation)\.", setting) else "sweep"
    posbench(name, setting, "--cfg", "job")


class Page(HTMLParser):
    """The links, pictures, scripts and anchors of a page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.mark.slow
def test_the_site_builds_without_a_warning_a_dead_link_or_a_network(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        "docs/site",
        ".",
        str(tmp_path),
    ]
    ended = subprocess.run(build, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = {path: Page(path) for path in tmp_path.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                assert link not in page.loaded or parts.scheme == "data", f"{path.name} loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.relative_to(tmp_path)} links {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in {"", *pages[target].anchors}, f"{path.name} links {link}"
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", style.read_text("utf-8")), style
    for group in ("scheme", "extension"):
        gallery = (tmp_path / "docs" / "generated" / f"{group}s.html").read_text("utf-8")
        pictures = re.findall(rf"src=\"[^\"]*/{group}-(\w+)\.(?:png|svg)\"", gallery)
        assert sorted(pictures) == [name for name in names(group) if (group, name) != ("extension", "none")]
    prompts = (tmp_path / "docs" / "generated" / "prompts.html").read_text("utf-8")
    assert re.findall(r"<h2>(\w+)<", prompts) == names("task")


def test_the_picture_of_the_folders_is_the_import_graph() -> None:
    """Every import between folders follows from the arrows, and every arrow is an import."""
    graph = grimp.build_graph("posbench", cache_dir=None)
    imports = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = tuple(name.split(".")[1] if "." in name else "" for name in (module, imported))
            if all(pair) and pair[0] != pair[1] and pair[0] != "__main__":
                imports.add(pair)
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    picture = nx.DiGraph(drawn)
    assert nx.is_directed_acyclic_graph(picture)
    missing = [
        (a, b) for a, b in imports if a not in picture or b not in picture or not nx.has_path(picture, a, b)
    ]
    assert missing == []
    assert drawn - imports == set()


# Departures from the code of authors that no number shows -> words of the docstring that states them.
DEPARTURES = {
    "schemes.randomized": ("sorted distances", "github.com/google-deepmind/ randomized_positional_encodings"),
    "extensions.self_extend": ("floor", "github.com/datamllab/LongLM", "none in other forward passes"),
}


@pytest.mark.parametrize("module", DEPARTURES)
def test_docstrings_state_departures_from_the_code_of_authors(module: str) -> None:
    """randomized_alibi draws positions where DeepMind's code draws distances, and only some of LongLM's files have
    Self-Extend's floor; neither was written down."""
    stated = " ".join((import_module(f"posbench.{module}").__doc__ or "").split())
    for words in DEPARTURES[module]:
        assert words in stated
