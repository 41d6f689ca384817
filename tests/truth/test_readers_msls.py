"""Made-up trees with the headers of the published tables; the data set itself does not come along."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.truth import readers

HEADERS = {
    "raw": ",key,lon,lat,ca,captured_at,pano",
    "postprocessed": ",key,easting,northing,unique_cluster,control_panel,night,view_direction",
    "subtask_index": ",key,all,w2s,s2w,d2n,n2d,o2n,n2o",
}
EAST, NORTH = 345678.123, 6172840.45  # Copenhagen, as UTM coordinates are


def read_msls(root, cities, radius=25.0, leaderboard=False):
    return readers.read_msls(root, cities, radius=radius, leaderboard=leaderboard)


def write_side(folder, images):
    """Writes one folder's tables; images: (key, metres east, metres north, panorama, marked `all`)."""
    folder.mkdir(parents=True)
    rows = {name: [header] for name, header in HEADERS.items()}
    for place, (key, east, north, pano, marked) in enumerate(images):
        rows["raw"].append(f"{place},{key},12.57,55.67,181.5,2018-06-01,{pano}")
        rows["postprocessed"].append(f"{place},{key},{float(EAST + east)},{float(NORTH + north)},7,False,False,Forward")
        rows["subtask_index"].append(f"{place},{key},{marked},False,False,False,False,False,False")
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def image(key, east=0.0, north=0.0, pano=False, marked=True):
    return key, east, north, pano, marked


def write_city(root, city, queries, database, split="train_val"):
    write_side(root / split / city / "query", queries)
    write_side(root / split / city / "database", database)


@pytest.fixture
def root(tmp_path):
    queries = [image("q0"), image("q_far", 900), image("q_pano", pano=True), image("q1", 100, marked=False)]
    database = [
        image("at_25", 15, 20),  # a triangle of 15, 20, 25
        image("beyond", 15, 20.01),
        image("pano", 1, 1, pano=True),
        image("near_q1", 101, marked=False),
        image("here"),
        image("unmarked", 2, marked=False),
    ]
    write_city(tmp_path, "cph", queries, database)
    write_city(tmp_path, "miami", [image("m")], [image("m_here", 24.999), image("m_beyond", 0, -25.001)], "test")
    return tmp_path


def positives(lists):
    return dict(zip(lists.query_ids, lists.groups["relevant"], strict=True))


def test_positives_lie_within_the_radius_of_their_own_city(root):
    lists = read_msls(root, ["cph", "miami"])
    assert positives(lists) == {"q0": ("at_25", "here", "unmarked"), "q1": ("near_q1",), "m": ("m_here",)}
    gallery = ("at_25", "beyond", "near_q1", "here", "unmarked", "m_here", "m_beyond")
    assert lists.gallery_ids == gallery
    assert lists.excluded == {"q_pano", "pano"}
    assert lists.query_images == lists.query_ids
    assert lists.notes == (
        "panoramas left out: 2",
        "queries left out because nothing lies within 25 m: 1 of 4",
    )
    assert read_msls(root, ["miami", "cph"]).gallery_ids == gallery[5:] + gallery[:5]


def test_another_radius(root):
    assert positives(read_msls(root, ["cph"], radius=2))["q0"] == ("here", "unmarked")
    assert positives(read_msls(root, ["cph"], radius=1.99))["q0"] == ("here",)


def test_the_leaderboard_takes_marked_images_only(root):
    lists = read_msls(root, ["cph"], leaderboard=True)
    assert positives(lists) == {"q0": ("at_25", "here")}
    assert lists.gallery_ids == ("at_25", "beyond", "here")
    assert lists.notes[1] == "queries left out because nothing lies within 25 m: 1 of 2"


@settings(max_examples=300)
@given(
    st.decimals(1e5, 9e5, places=3), st.decimals(0, 9_999_000, places=3), st.sampled_from([(7, 24), (15, 20), (25, 0)])
)
def test_the_radius_is_included_whatever_the_rounding(tmp_path_factory, east, north, legs):
    root = tmp_path_factory.mktemp("msls")
    for side, (easting, northing) in (("query", (east, north)), ("database", (east + legs[0], north + legs[1]))):
        write_side(root / "train_val" / "city" / side, [image(side)])
        table = root / "train_val" / "city" / side / "postprocessed.csv"
        table.write_text(f"{HEADERS['postprocessed']}\n0,{side},{easting},{northing},0,False,False,Forward\n")
    assert positives(read_msls(root, ["city"])) == {"query": ("database",)}


def test_positives_against_all_distances(tmp_path):
    chance = np.random.default_rng(0)
    points = {side: chance.uniform(0, 200, (60, 2)).round(2) for side in ("q", "d")}
    write_city(tmp_path, "x", *([image(f"{side}{i}", *xy) for i, xy in enumerate(points[side])] for side in points))
    distances = np.hypot(*(points["q"][:, None] - points["d"]).transpose(2, 0, 1))
    expected = {
        f"q{i}": tuple(f"d{j}" for j in np.flatnonzero(row <= 25)) for i, row in enumerate(distances) if row.min() <= 25
    }
    assert positives(read_msls(tmp_path, ["x"])) == expected


def test_tables_may_be_in_different_orders(root):
    table = root / "train_val" / "cph" / "database" / "raw.csv"
    header, *rows = table.read_text().splitlines()
    before = read_msls(root, ["cph"])
    table.write_text("\n".join([header, *reversed(rows)]))
    assert read_msls(root, ["cph"]).fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cities": []}, "cities must name at least one city"),
        ({"cities": ["cph", "cph"]}, "each once"),
        ({"cities": ["sf"]}, r"got 'sf'; found \['cph', 'miami'\]"),
        ({"radius": 0}, "radius must be a positive number of metres, got 0"),
        ({"radius": float("nan")}, "radius must be a positive"),
    ],
)
def test_arguments_are_checked(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_msls(root, **{"cities": ["cph"], **arguments})


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("postprocessed", "easting", "east", r"the columns \['easting'\] are missing"),
        ("postprocessed", ",7,False,False,Forward", "", None),
        ("postprocessed", "6172840.45,7,False,False,Forward", "nan", "northing must be finite, got 'nan'"),
        ("postprocessed", "6172840.45,7,False,False,Forward", "x", "northing must be a number, could not convert"),
        ("postprocessed", ",6172840.45,7,False,False,Forward", "", "line 2 has no 'northing'"),
        ("raw", "q0", "other", "'pano' of image 'q0' must be True or False, got None"),
        ("raw", "2018-06-01,False", "2018-06-01,0", "'pano' of image 'q0' must be True or False, got '0'"),
        ("postprocessed", "q_far", "q0", "an image may have one row, got 'q0' twice"),
    ],
)
def test_damaged_tables(root, table, old, new, message):
    path = root / "train_val" / "cph" / "query" / f"{table}.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    if message is None:
        read_msls(root, ["cph"])
        return
    with pytest.raises(ValueError, match=message) as caught:
        read_msls(root, ["cph"])
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_tables(root):
    (root / "test" / "miami" / "query" / "postprocessed.csv").unlink()
    with pytest.raises(FileNotFoundError, match="were published without positions"):
        read_msls(root, ["miami"])


def test_a_key_in_two_cities(root):
    write_city(root, "sf", [image("s")], [image("here")])
    with pytest.raises(ValueError, match="gallery_ids must be unique, got 'here' twice"):
        read_msls(root, ["cph", "sf"])


def test_no_query_has_a_positive(root):
    write_city(root, "sf", [image("s")], [image("far", 26)])
    with pytest.raises(ValueError, match="at least one query"):
        read_msls(root, ["sf"])
    write_city(root, "empty", [image("e")], [image("e_pano", pano=True)])
    write_city(root, "unasked", [], [image("u")])
    lists = read_msls(root, ["empty", "cph", "unasked"])
    assert set(lists.query_ids) == {"q0", "q1"}
    assert lists.gallery_ids[-1] == "u"
