"""Ranked benchmarks over a model's descriptors: roles, boxes, files, and the same numbers on two processes."""

from __future__ import annotations

import json

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import zoo
from zoo.evaluation.pictures import ranking_sheet
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.record import write_sheet
from zoo.evaluation.runner import evaluate
from zoo.evaluation.source import Source
from zoo.module import Embedder
from zoo.types import Representation

CLASSES, PER_CLASS = 5, 5


class MeanColour(Embedder):
    """Describes an image by its mean colour around grey; a query's is doubled, which the cosine doesn't see."""

    registered = None

    def __init__(self):
        super().__init__()
        self.seen = []

    def embed(self, batch, role="gallery"):
        self.seen.append(role)
        return Representation(vector=(batch.images.mean((2, 3)) - 0.5) * (2 if role == "query" else 1))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """25 noisy plain pictures in five folders: more classes than processes, and an odd number of pictures."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        colour = rng.uniform(60, 200, 3)
        for number in range(PER_CLASS):
            folder = root / f"class_{label}"
            folder.mkdir(exist_ok=True)
            pixels = (colour + rng.normal(0, 25, 3) + rng.normal(0, 5, (12, 12, 3))).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{label}{number}.png")
    return root


def run(folder, data, benchmark, devices=1):
    benchmark.open(data)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    model = MeanColour()
    metrics = evaluate(model, data, benchmark, trainer, folder, {"run_name": "colours"})
    return model, metrics, json.loads((folder / "results.json").read_text())


def folder_data(root, **changed):
    return zoo.create("data", "folder", root=str(root), names="stem", image_size=12, batch_size=4, **changed)


def mean_colours(paths):
    return torch.stack(
        [torch.from_numpy(np.array(Image.open(path))).float().mean((0, 1)) / 255 - 0.5 for path in paths]
    )


@pytest.mark.parametrize("devices", [1, 2])
def test_leave_one_out_by_a_model_on_one_and_two_processes(pictures, tmp_path, devices):
    benchmark = zoo.create("benchmark", "instances", k=[1, 3], sheet_queries=2, kept=7)
    model, metrics, results = run(tmp_path, folder_data(pictures), benchmark, devices)
    if devices == 1:
        assert set(model.seen) == {"gallery", "query"}
    paths = sorted(pictures.rglob("*.png"), key=lambda path: path.stem)
    vectors = torch.nn.functional.normalize(mean_colours(paths), dim=1)
    scores = (vectors @ vectors.T).numpy()
    labels = np.array([path.parent.name for path in paths])
    wanted = []
    for query in range(len(paths)):
        others = np.arange(len(paths)) != query
        wanted.append(average_precision_score(labels[others] == labels[query], scores[query, others]))
    cell = results["rows"][results["own"]]["metrics"]["map"]
    assert cell["per_query"] == pytest.approx(wanted, abs=1e-4)
    assert metrics["test/map"] == pytest.approx(np.mean(wanted), abs=1e-4)
    assert results["query_ids"] == [path.stem for path in paths]
    assert results["schema"] == 2
    rankings = json.loads((tmp_path / "rankings.json").read_text())
    assert rankings["fingerprint"] == results["fingerprint"]["hash"]
    for position, entry in enumerate(rankings["queries"]):
        assert (entry["query"], entry["id"], len(entry["ranked"])) == (position, paths[position].stem, 7)
        assert entry["relevant_total"] == PER_CLASS - 1
        assert entry["id"] not in [item["id"] for item in entry["ranked"]]
        for item in entry["ranked"]:
            same = item["id"][0] == entry["id"][0]
            assert item["relevance"] == ("relevant" if same else "irrelevant")
    assert Image.open(tmp_path / "contact_sheet.png").width > 500


def test_queries_are_cut_to_their_boxes(tmp_path):
    """Each query image is half red, half green; its box decides whether the red or the green gallery image is first."""
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for name, colour in (("red", (250, 20, 20)), ("green", (20, 250, 20)), ("blue", (20, 20, 250))):
        Image.new("RGB", (10, 10), colour).save(gallery / f"{name}.png")
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, :20], halves[:, 20:] = (250, 20, 20), (20, 250, 20)
    Image.fromarray(halves).save(gallery / "both.png")
    truth = {
        "left": {"query": "both", "bbox": [0, 0, 20, 20], "good": ["red"], "ok": [], "junk": ["both"]},
        "right": {"query": "both", "bbox": [20, 0, 40, 20], "good": ["green"], "ok": [], "junk": ["both"]},
        "whole": {"query": "both", "bbox": [0, 0, 40, 20], "good": ["both"], "ok": [], "junk": []},
    }
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    benchmark = zoo.create("benchmark", "oxford", ground_truth=str(tmp_path / "gnd.json"))
    _, _, results = run(tmp_path / "out", folder_data(gallery), benchmark)
    assert results["rows"][0]["metrics"]["map_trapezoid"]["per_query"] == [1.0, 1.0, 1.0]
    assert results["rows"][0]["l2_normalised"] is True


def test_positions_are_named_by_the_folders(tmp_path):
    for folder, names in (("query", "ab"), ("ref", "xyz")):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            colour = [20, 20, 20]
            colour[number] = 250
            Image.new("RGB", (8, 8), tuple(colour)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "gnd.json").write_text("[[0, [0]], [1, [2]]]")
    benchmark = zoo.create("benchmark", "lists", ground_truth=str(tmp_path / "gnd.json"), k=[1, 3])
    data = folder_data(tmp_path / "ref", queries=str(tmp_path / "query"))
    _, _, results = run(tmp_path / "out", data, benchmark)
    assert results["query_ids"] == ["a", "b"]
    assert results["rows"][0]["metrics"]["recall@1"]["per_query"] == [1.0, 0.0]
    assert results["rows"][0]["metrics"]["recall@3"]["per_query"] == [1.0, 1.0]


def test_data_without_names_and_missing_images_are_refused(pictures, tmp_path):
    benchmark = zoo.create("benchmark", "instances")
    with pytest.raises(ValueError, match="choose data=folder, got data of type SortOfClevr"):
        benchmark.open(zoo.create("data", "sort_of_clevr", root=str(tmp_path)))
    (tmp_path / "gnd.json").write_text(json.dumps({"nobody": ["00"], "01": ["02"]}))
    benchmark = zoo.create("benchmark", "lists", ground_truth=str(tmp_path / "gnd.json"))
    with pytest.raises(ValueError, match="1 of 2 query images are missing, 'nobody' first"):
        benchmark.open(folder_data(pictures))
    benchmark = zoo.create("benchmark", "lists", ground_truth=str(tmp_path / "gnd.json"), incomplete="restrict")
    benchmark.open(folder_data(pictures))
    assert benchmark.query_ids == ("01",)
    assert benchmark.notes == ("queries left out because their image is not available: 1",)


def test_predictions_by_query_id_are_shown_with_pictures_by_image_name(pictures, tmp_path):
    truth = {"first": {"query": "00", "bbox": [0, 0, 6, 6], "good": ["01"], "ok": [], "junk": []}}
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    benchmark = zoo.create("benchmark", "oxford", ground_truth=str(tmp_path / "gnd.json"))
    data = folder_data(pictures)
    data.setup()
    predictions = Predictions(("first",), None, ranked=(("01", "02"),))
    benchmark.open_source(Source.of_predictions(predictions, data, "oxford"))
    rankings = benchmark.rankings_of(benchmark.prediction_lists(predictions, ""), "predictions")
    assert (rankings.queries[0].image, rankings.query_split) == ("00", "gallery")
    assert ranking_sheet(rankings, data, 1).width > 100


def test_leaving_one_out_needs_the_queries_in_the_gallery(pictures):
    data = folder_data(pictures, queries=str(pictures / "class_0"))
    with pytest.raises(ValueError, match=r"leave out data\.queries"):
        zoo.create("benchmark", "instances").open(data)


def test_a_picture_that_can_not_be_read_costs_the_sheet_alone(tmp_path, caplog):
    def draw():
        raise ValueError("image x can't be read")

    assert write_sheet(draw, tmp_path) is None
    assert "no contact sheet: image x can't be read" in caplog.text
