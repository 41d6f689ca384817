"""The page of `zoo report`, opened in a headless Chromium."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_files import ranked, write_run

from zoo.evaluation.compare import compare
from zoo.evaluation.html import Page, PictureKey, thumbnail, worst_queries
from zoo.evaluation.results import read_rankings, read_runs

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" 'id'",
    "a&amp;b",
    "{{ 7 * 7 }}",
    "</title><img src=x onerror=alert(2)>",
    "é_/x",
]
FIRST = [0.75, 0.125, None, 0.5, 0.125, 1.0]
SECOND = [0.5, 0.375, 0.5, None, 0.375, 1.0]
VERDICTS = ("relevant", "irrelevant", "junk", None)
RED, BLUE = (200, 20, 20), (20, 20, 200)


def lists(names):
    return [
        ranked(
            query,
            name,
            [(f"item {rank} <b>", 0.9 - rank / 10, verdict, "gt 1.25") for rank, verdict in enumerate(VERDICTS)],
            image="<photo>",
            box=[10, 20, 110, 80],
            relevant_total=1234,
        )
        for query, name in enumerate(names)
    ]


def picture(key):
    colour = RED if key.box else BLUE
    return thumbnail(np.full((120, 300, 3), colour, np.uint8), key)


def page_of(tmp_path, values, queries=3, with_lists=True, names=HOSTILE):
    words = []
    for number, per_query in enumerate(values):
        folder = tmp_path / f"run{number}"
        metrics = {"map": per_query, "mp@5": per_query}
        write_run(folder, metrics, query_ids=names, rankings=lists(names) if with_lists else None)
        words.append(f"run <{number}>={folder}")
    runs = read_runs(words)
    worst = worst_queries(runs[0], "map", queries)
    return Page(compare(runs), "map", worst, [read_rankings(run, worst, 10) for run in runs])


def written(tmp_path, page, problem="", with_pictures=True):
    html = page.html({key: picture(key) for key in page.pictures()} if with_pictures else {}, problem)
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Opens a file; whatever the page logs or asks for beside itself is kept in `.complaints` and `.requests`."""
    pages = []

    def goto(file, width=1280, scheme="light"):
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(tab)
        tab.complaints, tab.requests = [], []
        tab.on("console", lambda message: tab.complaints.append(message.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: tab.complaints.append(dialog.message))
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.goto(file.as_uri())
        return tab

    yield goto
    for tab in pages:
        tab.close()


@pytest.fixture
def two_runs(tmp_path, opened):
    file = written(tmp_path, page_of(tmp_path, [FIRST, SECOND]))
    return file, opened(file)


def test_it_asks_for_nothing_and_complains_of_nothing(two_runs):
    file, tab = two_runs
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [file.as_uri()]
    assert set(re.findall(r'(?:src|href)="(.)', file.read_text())) == {"d", "#"}
    policy = tab.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_worst_queries_come_first_and_undefined_ones_not_at_all(two_runs):
    _, tab = two_runs
    assert tab.locator(".query h3").all_inner_texts() == [f"1. {HOSTILE[1]}", f"2. {HOSTILE[4]}", f"3. {HOSTILE[3]}"]
    assert "queries without a value, left out: 1" in tab.inner_text("main")
    assert tab.locator("#query-1 .head td").all_inner_texts() == ["run <0>", "0.125", "run <1>", "0.375"]


def test_hostile_names_are_text(two_runs):
    _, tab = two_runs
    assert tab.locator("script").count() == 0
    assert tab.inner_text("h1") == "run <0> against run <1>"
    assert tab.locator(".hit .id").first.inner_text() == "item 0 <b>"
    assert tab.locator("#query-4 .head img").get_attribute("alt") == f"Query {HOSTILE[4]}, image <photo>, its box drawn"
    assert tab.locator("[onerror]").count() == 0


@pytest.mark.parametrize(
    ("scheme", "colours"),
    [
        ("light", {"relevant": (26, 127, 55), "irrelevant": (207, 34, 46), "junk": (110, 119, 129)}),
        ("dark", {"relevant": (63, 185, 80), "irrelevant": (255, 106, 96), "junk": (145, 152, 161)}),
    ],
)
def test_frames_are_green_red_and_grey_and_say_so(tmp_path, opened, scheme, colours):
    tab = opened(written(tmp_path, page_of(tmp_path, [FIRST, SECOND])), scheme=scheme)
    for verdict, colour in colours.items():
        hit = tab.locator(f"#query-1 .hit.{verdict}").first
        assert hit.evaluate("hit => getComputedStyle(hit).borderTopColor") == "rgb({}, {}, {})".format(*colour)
        assert hit.evaluate("hit => parseFloat(getComputedStyle(hit).borderTopWidth)") >= 2
        assert hit.locator(".verdict").inner_text()[2:] == verdict
    neutral = tab.locator("#query-1 .hit:not(.relevant, .irrelevant, .junk)").first
    assert neutral.locator(".verdict").count() == 0
    frame = neutral.evaluate("hit => getComputedStyle(hit).borderTopColor")
    assert frame not in [f"rgb{colour}" for colour in colours.values()]
    ink, paper = tab.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map("
        "text => text.match(/\\d+/g).slice(0, 3).reduce((sum, number) => sum + +number, 0)) }"
    )
    assert (ink < 150 and paper > 700) if scheme == "light" else (ink > 600 and paper < 100)


def test_items_show_rank_score_and_note(two_runs):
    _, tab = two_runs
    shown = tab.locator("#query-1 .hits").first.locator(".text").all_inner_texts()
    assert [text.split()[0] for text in shown] == ["1", "2", "3", "4"]
    assert "0.9 · gt 1.25" in shown[0]
    assert "first 4" in tab.locator("#query-1 h4").first.inner_text()
    assert "1,234 relevant in the gallery" in tab.inner_text("#query-1")


def test_pictures_decode_and_have_words(two_runs):
    _, tab = two_runs
    sizes = tab.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])")
    assert len(sizes) == 3 * (1 + 2 * 4)
    assert all(complete and alt for complete, *_, alt in sizes)
    assert {tuple(size[1:3]) for size in sizes} == {(240, 96), (160, 64)}


def test_a_dot_leads_to_its_query(two_runs):
    _, tab = two_runs
    titles = tab.locator("svg a title").all_text_contents()
    assert titles == [f"2 queries: {HOSTILE[1]}, {HOSTILE[4]}: 0.125 and 0.375"]
    tab.locator("svg a circle").click()
    assert tab.url.endswith("#query-1")
    top = tab.locator("#query-1").evaluate("section => section.getBoundingClientRect().top")
    assert -2 <= top <= 900 / 2


def test_dots_stand_where_the_values_say(two_runs):
    _, tab = two_runs
    dots = tab.eval_on_selector_all("svg circle", "all => all.map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])")
    frame = tab.eval_on_selector("svg rect", "r => ['x', 'y', 'width', 'height'].map(name => +r.getAttribute(name))")
    places = sorted(((x - frame[0]) / frame[2], 1 - (y - frame[1]) / frame[3]) for x, y in dots)
    np.testing.assert_allclose(places, [(0.125, 0.375), (0.75, 0.5), (1, 1)], atol=1e-3)  # the axes go from 0 to 1
    assert (
        "is better than run <0> in 2 queries, worse in 1, equal in 1; left out, without a value: 2"
        in tab.inner_text("figcaption")
    )


@pytest.mark.parametrize("runs", [[FIRST], [FIRST, SECOND], [FIRST, SECOND, FIRST]])
def test_a_narrow_window_needs_no_sideways_scrolling(tmp_path, opened, runs):
    names = [*HOSTILE[:5], "a_very_long_name" * 12]
    tab = opened(written(tmp_path, page_of(tmp_path, runs, queries=6, names=names)), width=400)
    for details in tab.locator("summary").all():
        details.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert tab.complaints == []


def test_a_single_run_shows_its_queries_in_order(tmp_path, opened):
    tab = opened(written(tmp_path, page_of(tmp_path, [FIRST], queries=2)))
    dots = tab.eval_on_selector_all("svg circle", "all => all.map(c => [+c.getAttribute('cx'), -c.getAttribute('cy')])")
    assert len(dots) == 5
    assert [height for _, height in sorted(dots)] == sorted(height for _, height in dots)
    assert tab.locator("svg a").count() == 2
    assert tab.locator("svg .diagonal").count() == 0
    tab.locator("svg a").nth(1).click()
    assert tab.url.endswith("#query-4")


def test_the_table_is_there_with_the_best_in_bold(two_runs):
    _, tab = two_runs
    rows = [row.locator("td").all_inner_texts() for row in tab.locator(".wide tbody tr").all()]
    assert [row[0] for row in rows] == ["run <0>", "run <1>"]
    assert tab.locator(".wide td b").all_inner_texts() == rows[1][1::2]
    assert rows[1][1].startswith("0.550 ± ")


def test_without_pictures_the_page_says_why(tmp_path, opened):
    page = page_of(tmp_path, [FIRST, SECOND])
    tab = opened(written(tmp_path, page, "No pictures: moved <away>", with_pictures=False))
    assert tab.inner_text(".problem") == "No pictures: moved <away>"
    assert tab.locator("img").count() == 0
    assert tab.locator(".missing").count() == 3 * (1 + 2 * 4)
    assert tab.complaints == []


def test_without_ranked_lists_the_page_still_stands(tmp_path, opened):
    page = page_of(tmp_path, [FIRST, SECOND], with_lists=False)
    assert page.pictures() == []
    tab = opened(written(tmp_path, page))
    assert tab.locator(".query").count() == 3
    assert "keeps no ranked list" in tab.inner_text("#query-1")


def test_no_query_with_a_value_leaves_an_empty_plot(tmp_path, opened):
    tab = opened(written(tmp_path, page_of(tmp_path, [[None] * 6, FIRST])))
    assert tab.locator(".query, svg circle").count() == 0
    assert tab.complaints == []


def test_each_picture_is_asked_for_once(tmp_path):
    page = page_of(tmp_path, [FIRST, SECOND])
    keys = page.pictures()
    assert len(keys) == len(set(keys)) == 1 + 4
    assert keys[0] == PictureKey("gallery", "<photo>", (10.0, 20.0, 110.0, 80.0), 240)


def test_the_page_is_the_same_each_time(tmp_path):
    pages = [page_of(tmp_path, [FIRST, SECOND]).html({}, "") for _ in range(2)]
    assert pages[0] == pages[1]


def decoded(uri):
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(("shape", "size"), [((1000, 500), (160, 80)), ((40, 30), (40, 30)), ((1, 4000), (1, 160))])
def test_thumbnails_are_shrunk_never_enlarged(shape, size):
    uri = thumbnail(np.zeros((*shape, 3), np.uint8), PictureKey("gallery", "x", None, 160))
    assert uri.startswith("data:image/webp;base64,")
    assert decoded(uri).shape[:2] == size


def test_the_box_is_drawn_where_it_is():
    grey = np.full((400, 800, 3), 128, np.uint8)
    drawn = decoded(thumbnail(grey, PictureKey("gallery", "x", (400, 100, 600, 300), 160))).astype(int)
    yellow = (drawn[..., 0] > 180) & (drawn[..., 2] < 120)
    rows, columns = np.nonzero(yellow)
    assert np.abs([columns.min() - 80, columns.max() - 120, rows.min() - 20, rows.max() - 60]).max() <= 1
    assert not yellow[24:56, 85:116].any()


@pytest.mark.parametrize("box", [(-50, -50, 5000, 5000), (900, 900, 950, 950), (10, 10, 10.2, 10.2)])
def test_boxes_beyond_the_picture_do_no_harm(box):
    assert decoded(thumbnail(np.zeros((100, 100, 3), np.uint8), PictureKey("q", "x", box, 160))).shape == (100, 100, 3)


def test_the_key_explains_the_verdicts_that_occur(two_runs):
    _, tab = two_runs
    assert tab.locator(".key li").all_inner_texts() == ["✓ relevant", "✗ irrelevant", "○ junk: counts neither way"]


def test_eleven_thousand_queries_make_a_page_of_some_megabytes(tmp_path, opened):
    generator = np.random.default_rng(0)
    names = [f"query_{number}" for number in range(11_000)]
    values = [generator.random(11_000).tolist(), generator.random(11_000).tolist()]
    file = written(tmp_path, page_of(tmp_path, values, with_lists=False, names=names))
    assert file.stat().st_size < 3e6
    tab = opened(file)
    assert tab.locator("svg circle").count() > 10_000
    assert tab.locator("svg a").count() == 3


@pytest.mark.parametrize(("height", "kind"), [(40, "webp"), (17000, "png")])
def test_a_runs_contact_sheet_stands_in_the_page_whatever_its_height(tmp_path, height, kind):
    page = page_of(tmp_path, [FIRST], queries=1)
    assert "Contact sheet" not in page.html({}, "")
    Image.new("RGB", (30, height)).save(page.runs[0].folder / "contact_sheet.png")
    assert f"data:image/{kind};base64," in page.html({}, "")
    (page.runs[0].folder / "contact_sheet.png").write_bytes(b"no picture")
    assert "Contact sheet" not in page.html({}, "")
