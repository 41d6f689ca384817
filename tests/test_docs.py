"""The guide and the README do what they say: blocks run, links lead somewhere, the models' pages are up to date."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import Block, blocks_of, shell, write_script
from PIL import Image, ImageDraw
from places import ROOT

from zoo import config
from zoo.commands._app import quoted

DATA = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
CARDS = sorted((ROOT / "zoo" / "models").glob("*/README.md"))
LINKED = [*GUIDE, *sorted((ROOT / "docs" / "models").glob("*.md")), README, *CARDS]
LABELS = ("dalmatian", "ketch", "pizza", "sunflower")  # folders of photos/ that the guide speaks of
HOSTS = ("127.0.0.1", "docs.astral.sh", "github.com", "lightning.ai")  # that pages may name
TIMEOUT = 240  # s of a page; it should take one


def prepare(folder: Path) -> None:
    """Puts into a page's folder what the guide takes for granted: photos/LABEL/1.jpg … 6.jpg, and photo.jpg."""
    real = DATA / "caltech101_subset" / "images"
    for label in LABELS:
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(1, 8):
            path = folder / "photos" / label / f"{number}.jpg" if number < 7 else folder / "photo.jpg"
            if real.is_dir():
                shutil.copy(sorted((real / label).iterdir())[number], path)
            else:
                drawn(LABELS.index(label), number).save(path)


def drawn(kind: int, number: int) -> Image.Image:
    """Returns a picture for machines without the real ones: shapes of a colour for each kind."""
    picture = Image.new("RGB", (300, 220), (230, 230, 40 * kind))
    for place in range(kind + 2):
        x, y = 35 * place + 7 * number, 20 + 17 * number
        ImageDraw.Draw(picture).ellipse((x, y, x + 40 + 10 * kind, y + 40), fill=(60 * kind, 90, 20 * number))
    return picture


def environment(folder: Path) -> dict[str, str]:
    """Returns what a page is run with: no shared data, weights from a file in place of a download, a free port."""
    weights = DATA / "weights" / "mobilenetv2_100.fp16.safetensors"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "ZOO_DATA": str(folder / "nothing"),
        "WEIGHTS": str(weights) if weights.is_file() else "random",
        "PORT": str(port),
        "HF_HUB_OFFLINE": "1",
    }


def runnable(page: Path) -> list[Block]:
    """Returns the blocks of a page that are run: of the README, whose commands are examples side by side, Python."""
    return [block for block in blocks_of(page) if page != README or block.language == "python"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with shell(tmp_path_factory.mktemp("shell")) as one:
        yield one


@pytest.mark.parametrize("page", [*GUIDE, README], ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, opened, tmp_path):
    blocks = runnable(page)
    if any("curl " in block.text for block in blocks) and not shutil.which("curl"):
        pytest.skip("needs curl")
    for name in ("blocks", "page"):
        (tmp_path / name).mkdir()
    prepare(tmp_path / "page")
    script = write_script(blocks, tmp_path / "blocks")
    opened.run(script, tmp_path / "page", tmp_path / "site", TIMEOUT, **environment(tmp_path))


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_what_becomes_of_them(page):
    for block in blocks_of(page):
        known = not block.info or block.file or block.reason is not None
        assert known, f"{block.place}: behind the language stands nothing, file=PATH or no-run: REASON: {block.info!r}"
        assert block.language != "yaml" or block.info, f"{block.place}: YAML is a file: file=PATH"
        assert block.reason is None or len(block.reason) > 5, f"{block.place}: no-run wants a reason"


UNRUN = [
    block
    for page in (*GUIDE, README, *CARDS)
    for block in blocks_of(page)
    if block.language == "bash" and (block.reason is not None or page not in GUIDE)
]


@pytest.mark.parametrize("block", UNRUN, ids=lambda block: f"{block.place}-{block.reason or 'examples'}")
def test_commands_that_are_not_run_exist(block):
    """Names and keys of commands are looked up where the commands themselves can't be run."""
    for words in commands(block.text):
        if words[0] == "make":
            assert subprocess.run(["make", "-n", words[1]], cwd=ROOT, capture_output=True, check=False).returncode == 0
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{block.place}: no {words[1]}"
        elif words[0] == "zoo":
            look_up(words[1], words[2:], block.place)


def commands(text: str) -> list[list[str]]:
    """Returns the words of each simple command of a shell block."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((place for place, word in enumerate(words) if word in ("&&", "|", ";", "&")), len(words))
            found.append(words[:end])
            words = words[end + 1 :]
    return [words for words in found if words]


def look_up(verb: str, words: list[str], place: str) -> None:
    """Raises where a verb, a name, or a key of a command line doesn't exist."""
    assert (ROOT / "zoo" / "commands" / f"{verb.replace('-', '_')}.py").is_file(), f"{place}: no verb {verb}"
    if not (config.conf_dir() / f"{verb}.yaml").is_file():
        return
    overrides = []
    for key, mark, value in (word.partition("=") for word in words):
        if not mark or (key in config.groups() and "…" in value):
            continue
        value = value.split(",")[0] if "-m" in words and "[" not in value else value
        plain = re.fullmatch(r"[\w./,{}\[\]: -]*", value) and (" " not in value or value[0] in "[{")
        overrides.append(f"{key}={value if plain else quoted(value)}")
    try:
        config.compose(verb, overrides)
    except Exception as error:
        raise AssertionError(f"{place}: zoo {verb} {' '.join(words)}: {error}") from error


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"https?://([^/:)\"\s`]+)", text))
    assert named <= set(HOSTS), "a host that no page names yet: is it meant?"
    for target in links(text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert file.is_relative_to(ROOT), f"{target}: leads out of the project"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}: no such heading"


def links(text: str) -> list[str]:
    """Returns the targets of a page's links but those that lead to other hosts."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def prose(text: str) -> str:
    """Returns a page without its code."""
    lines, fenced = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return re.sub(r"`[^`]*`", "", "\n".join(lines))


def anchors(text: str) -> set[str]:
    """Returns what headings are called in links, by GitHub's rule: of equal ones the second ends with -1."""
    found: set[str] = set()
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = re.fullmatch(r"#{1,6} (.*)", line)
        if fenced or not heading:
            continue
        name = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
        count = next(number for number in range(1000) if (f"{name}-{number}" if number else name) not in found)
        found.add(f"{name}-{count}" if count else name)
    return found


def test_the_index_names_every_page():
    named = links((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages <= set(named), f"docs/README.md doesn't name {pages - set(named)}"


def test_pages_of_models_are_up_to_date():
    tool = [sys.executable, str(ROOT / "tools" / "model_pages.py"), "--check"]
    done = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
