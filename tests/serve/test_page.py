"""The page in a real browser: draw, search, click, draw over, undo, words, links, keys, a phone."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from served_command import Server

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}")
QUICKLY = 15_000  # ms that a busy machine may take


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, served):
    """Opens the page, and checks in the end that nothing went wrong in it and that it asked no other host."""
    contexts, wrong, asked = [], [], []

    def opening(width=1200, height=900, path="/", **options):
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **options))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(QUICKLY)
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(served + path)
        tab.wait_for_selector("#hits li")
        return tab

    yield opening
    for context in contexts:
        context.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith((served, "blob:", "data:"))} == set()


def ids(tab):
    return tab.eval_on_selector_all("#hits > li", "all => all.map(each => each.dataset.id)")


def drag(tab, start, end):
    """Draws from one place to another, as shares of the drawing."""
    box = tab.locator("#canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    tab.mouse.move(*places[1], steps=4)
    tab.mouse.up()


def choose(tab, group, name):
    tab.locator(group).get_by_text(name, exact=True).click()


def draw(tab, name="thing", start=(0.05, 0.05), end=(0.25, 0.3), tool="Rectangle"):
    """Draws a class, and waits until the results are those of the drawing."""
    choose(tab, "#tools", tool)
    choose(tab, "#classes", name)
    with tab.expect_response(lambda answer: "/api/search" in answer.url):
        drag(tab, start, end)
    settled(tab)


def settled(tab):
    """Waits until nothing is searched any more, nor due to be."""
    tab.wait_for_function("() => !document.getElementById('hits').classList.contains('stale')")


def labels(tab):
    """Returns how many px of the canvas are painted."""
    return tab.eval_on_selector(
        "#canvas",
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length",
    )


def test_what_is_drawn_is_found_and_undone(opened):
    tab = opened()
    first = ids(tab)
    assert first == [f"scenes/{number}" for number in range(12)]
    draw(tab)
    top = ids(tab)
    assert top != first
    distances = [float(text.split()[-1]) for text in tab.locator(".distance").all_inner_texts()]
    assert distances == sorted(distances)
    draw(tab, "ground", (0, 0.7), (1, 1), "Brush")
    assert ids(tab) != top
    painted = labels(tab)
    choose(tab, "#tools", "Eraser")
    drag(tab, (0.5, 0.85), (0.6, 0.85))
    assert labels(tab) < painted
    for key in "zZ":  # as Caps Lock has it
        tab.keyboard.press(f"Control+{key}")
    settled(tab)
    assert ids(tab) == top
    tab.click("#redo")
    assert labels(tab) == painted
    tab.click("#clear")
    settled(tab)
    assert ids(tab) == first
    assert labels(tab) == 0


def test_a_result_becomes_the_query_and_is_drawn_over(opened):
    tab = opened()
    draw(tab)
    chosen = ids(tab)[1]
    tab.locator(".hit").nth(1).click()
    settled(tab)
    assert chosen not in ids(tab)
    assert tab.inner_text("#base-name") == f"Like {chosen}"
    tab.wait_for_function("() => document.getElementById('below').naturalWidth > 100")
    alike = ids(tab)
    draw(tab, "sky", (0.02, 0.02), (0.98, 0.98))
    assert ids(tab) != alike
    tab.locator("#opacity").fill("20")
    assert tab.eval_on_selector("#below", "image => image.style.opacity") == "0.2"
    tab.locator(".why summary").first.click()
    told = tab.locator(".why").first.inner_text()
    assert "sky" in told or "ground" in told
    assert "apart" in told
    tab.click("#leave")
    settled(tab)
    assert tab.locator("#base").is_hidden()


def test_words_rank_first(opened):
    tab = opened()
    tab.fill("#text", "red thing")
    tab.wait_for_function("() => document.querySelector('#hits').innerText.includes('2 words')")
    assert ids(tab)[:3] == ["scenes/0", "scenes/3", "scenes/6"]
    tab.fill("#text", "")
    settled(tab)
    assert "words" not in tab.inner_text("#hits")


def test_more_are_shown_behind_the_first(opened):
    tab = opened()
    draw(tab)
    first = ids(tab)
    tab.click("#more")
    tab.wait_for_function("() => document.querySelectorAll('#hits > li').length === 24")
    assert ids(tab)[:12] == first
    assert len(set(ids(tab))) == 24
    assert "first 24 of 60 images" in tab.inner_text("#status")
    # While another search is under way, more of what it will replace would be lies.
    tab.evaluate(
        "() => { const soon = window.fetch; window.fetch = (...asked) =>"
        " new Promise((go) => setTimeout(go, 500)).then(() => soon(...asked)); }"
    )
    tab.click("#clear")
    tab.wait_for_timeout(150)
    tab.click("#more")
    settled(tab)
    assert ids(tab) == [f"scenes/{number}" for number in range(12)]


def test_a_link_to_what_the_index_does_not_hold_says_so_and_shows_all(chromium, opened, served):
    link = opened().evaluate("async () => (await import('/static/codec.js')).packed({ i: 'nope' })")
    tab = chromium.new_page()  # whose console tells of the refusal
    tab.goto(f"{served}/#q={link}")
    tab.wait_for_selector("#hits li")
    assert "nope" in tab.inner_text("#problem")
    assert tab.locator("#base").is_hidden()
    assert len(ids(tab)) == 12
    tab.close()


def test_a_link_is_the_query(opened, served):
    tab = opened()
    draw(tab)
    tab.fill("#text", "thing")
    settled(tab)
    tab.wait_for_function("() => location.hash.startsWith('#q=')")
    found, painted = ids(tab), labels(tab)
    other = opened(path=tab.url.removeprefix(served))
    settled(other)
    assert (ids(other), labels(other), other.input_value("#text")) == (found, painted, "thing")
    broken = opened(path="/#q=nonsense")
    settled(broken)
    assert "This link is damaged" in broken.inner_text("#problem")
    assert ids(broken) == [f"scenes/{number}" for number in range(12)]
    draw(broken)
    assert broken.locator("#problem").is_hidden()


def test_keys_alone_will_do(opened):
    tab = opened()
    tab.keyboard.press("3")
    assert tab.eval_on_selector("[name=class]:checked", "radio => radio.value") == "2"
    tab.focus("#canvas")
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp"):
        tab.keyboard.press(key)
    assert re.fullmatch(r"column 8, row 5, nothing", tab.inner_text("#where"))
    pixel = "canvas => [...canvas.getContext('2d').getImageData(7, 4, 1, 1).data].slice(0, 3).join(', ')"
    ink = tab.eval_on_selector("#canvas", "canvas => getComputedStyle(canvas).color")
    assert ink == f"rgb({tab.eval_on_selector('#canvas', pixel)})"
    with tab.expect_response(lambda answer: "/api/search" in answer.url):
        tab.keyboard.press("Space")
    settled(tab)
    assert re.fullmatch(r"column 8, row 5, thing", tab.inner_text("#where"))
    assert tab.eval_on_selector("#canvas", pixel) == "255, 255, 255"  # on dark red
    assert "distance" in tab.inner_text("#hits")
    for key in ("r", "Space", "Escape"):  # a corner that is given up
        tab.keyboard.press(key)
    drawn = labels(tab)
    tab.keyboard.press("Space")
    tab.keyboard.press("Escape")
    assert labels(tab) == drawn
    for key in ("b", "r", "ArrowRight", "Space", "ArrowDown", "ArrowDown", "ArrowRight", "Space"):
        tab.keyboard.press(key)
    assert labels(tab) > 10
    settled(tab)
    tab.locator(".hit").first.focus()
    tab.keyboard.press("Enter")
    settled(tab)
    assert tab.inner_text("#base-name").startswith("Like scenes/")
    assert tab.eval_on_selector(".hit", "hit => hit === document.activeElement")


def test_everything_has_a_name_and_fits_a_phone(opened):
    tab = opened(width=390, height=844, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = tab.eval_on_selector_all(
        "button, input, canvas",
        "all => all.filter(each => each.checkVisibility() && !(each.innerText || each.ariaLabel"
        " || each.labels?.[0]?.innerText || each.closest('label')?.innerText)).map(each => each.outerHTML)",
    )
    assert nameless == []
    box = tab.locator("#canvas").bounding_box()
    with tab.expect_response(lambda answer: "/api/search" in answer.url):
        tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    settled(tab)
    assert labels(tab) > 0
    assert tab.locator(".hit").first.bounding_box()["width"] > 100


def drop(tab, path):
    """Drops a file on the drawing, as from a file manager."""
    dropped = tab.evaluate_handle(
        "([name, bytes]) => { const held = new DataTransfer();"
        " held.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' })); return held; }",
        [path.name, list(path.read_bytes())],
    )
    tab.dispatch_event("#canvas", "drop", {"dataTransfer": dropped})


def test_a_photo_is_sent_dropped_and_refused_in_words(chromium, described, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("photos"), f"index_path={described}")
    try:
        tab = chromium.new_page(viewport={"width": 1000, "height": 800})
        tab.set_default_timeout(QUICKLY)
        tab.goto(server.url)
        tab.wait_for_selector("#hits li")
        tab.set_input_files("#photo", described.parent / "photos/b/2.png")
        tab.wait_for_function("() => document.querySelector('#base-name').innerText === 'Like your photo 2.png'")
        settled(tab)
        assert ids(tab)[0] == "b/2"
        tab.click("#leave")
        settled(tab)
        drop(tab, described.parent / "photos/a/1.png")
        tab.wait_for_function("() => document.querySelector('#base-name').innerText === 'Like your photo 1.png'")
        settled(tab)
        assert ids(tab)[0] == "a/1"
        tab.wait_for_function("() => location.hash.startsWith('#q=')")
        other = chromium.new_page()
        other.goto(tab.url)
        other.wait_for_selector("#problem:not([hidden])")
        assert "A photo belongs to this query, which links don't hold" in other.inner_text("#problem")
        tab.set_input_files("#photo", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
        tab.wait_for_selector("#problem:not([hidden])")
        assert "photo must" in tab.inner_text("#problem")
    finally:
        server.stop(signal.SIGTERM)
