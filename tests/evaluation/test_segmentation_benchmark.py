"""The benchmark of label maps: its figures against scikit-learn's, its table, its pictures, what it refuses."""

from __future__ import annotations

import json

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from label_map_trees import CLASSES, COLOURS, NAMES, scene, write_tree
from photo_runs import run
from PIL import Image
from sklearn.metrics import jaccard_score, recall_score

import zoo
from zoo import config
from zoo.classes import class_list
from zoo.commands._app import quoted
from zoo.evaluation.label_pictures import overlaid_labels
from zoo.evaluation.pictures import legend
from zoo.evaluation.results import read_run
from zoo.evaluation.runner import Companion, evaluate
from zoo.models.fcn_segment.module import FCNSegment
from zoo.search.features import open_features
from zoo.types import Representation

COUNT = 5


class Painter(FCNSegment):
    """Tells classes by colours, somewhat, as maps of an eighth of the image."""

    def embed(self, batch, role="gallery"):
        colours = torch.tensor(self.class_colours) / 255
        away = (batch.images[:, None] - colours[None, :, :, None, None]).square().sum(2)
        small = F.adaptive_avg_pool2d((-4 * away).softmax(1), [-(-side // 8) for side in batch.images.shape[2:]])
        return Representation(probability_map=small)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("label_maps"), {"val": COUNT})


def data_of(root, **changed):
    options = {"classes": CLASSES, "train_split": None, "image_size": 40, "batch_size": 2, **changed}
    return zoo.create("data", "label_maps", root=str(root), **options)


def model_of(kind=Painter, classes=CLASSES):
    torch.manual_seed(0)
    parameters = config.complete("model", "fcn_segment", {**FCNSegment.tiny, "classes": classes})
    made = kind(**parameters)
    made.registered = {"kind": "model", "name": "fcn_segment", "origin": "test", "parameters": parameters}
    return made.eval()


def trainer(folder, devices=1, **changed):
    return lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
        **changed,
    )  # fmt: skip


def judged(root, folder, devices=1, data=None, model=None, companions=(), **changed):
    benchmark = zoo.create("benchmark", "segmentation", sheet_images=3)
    data = data or data_of(root)
    benchmark.open(data)
    metrics = evaluate(
        model or model_of(), data, benchmark, trainer(folder, devices, **changed), folder, {}, companions
    )
    return metrics, json.loads((folder / "results.json").read_text())


def by_hand(root, model):
    data = data_of(root)
    data.setup()
    truth, predicted = [], []
    for place in range(COUNT):
        maps = model.embed(next(iter(data.selection("val", [f"s{place}"])))).probability_map
        predicted.append(F.interpolate(maps, (48, 64), mode="bilinear")[0].argmax(0).numpy().ravel())
        truth.append(data.label_map("val", place).ravel())
    truth, predicted = np.concatenate(truth), np.concatenate(predicted)
    return truth[truth >= 0], predicted[truth >= 0]


@pytest.mark.parametrize("devices", [1, 2])
def test_figures_are_those_of_scikit_learn_on_one_process_and_two(root, tmp_path, devices, capfd):
    truth, predicted = by_hand(root, model_of())
    overlap = jaccard_score(truth, predicted, labels=range(3), average=None)
    recall = recall_score(truth, predicted, labels=range(3), average=None)
    metrics, result = judged(root, tmp_path, devices)
    assert 0.5 < overlap.mean() < 0.99
    wanted = {
        "test/miou": overlap.mean(),
        "test/class_accuracy": recall.mean(),
        "test/pixel_accuracy": (truth == predicted).mean(),
    }
    assert metrics == {name: pytest.approx(value, abs=1e-6) for name, value in wanted.items()}
    (row,) = result["rows"]
    assert row["metrics"]["miou"]["per_query"] == pytest.approx(overlap)
    assert result["query_ids"] == list(NAMES)
    assert (result["fingerprint"]["gallery"], result["fingerprint"]["queries"]) == (COUNT, 3)
    read = read_run(tmp_path)
    assert read.own.scores["miou"].mean == pytest.approx(overlap.mean())
    printed = capfd.readouterr().out + (tmp_path / "table.md").read_text()
    for text in ("mean IoU", "pixel accuracy", f"{overlap[2]:.3f}", f"{100 * (truth == 1).mean():.2f} %"):
        assert text in printed
    sheet = Image.open(tmp_path / "contact_sheet.png")
    assert min(sheet.size) > 3 * 240  # three images, of which another rank has one


def test_the_fingerprint_is_that_of_images_classes_and_truth(root, tmp_path):
    first, again = (judged(root, tmp_path / name)[1]["fingerprint"]["hash"] for name in "ab")
    assert first == again
    other = judged(root, tmp_path / "c", data=data_of(root, ignore=[255, 2], unlisted="void"))[1]["fingerprint"]
    assert other["hash"] != first
    assert other["gallery_ids"] == judged(root, tmp_path / "d")[1]["fingerprint"]["gallery_ids"]


def test_classes_go_by_names_and_a_companion_stands_in_the_same_table(root, tmp_path):
    beside = model_of(FCNSegment)
    turned = model_of(classes=[CLASSES[place] for place in (2, 0, 1)])
    companions = [Companion("untrained", beside, data_of(root))]
    result = judged(root, tmp_path, model=turned, companions=companions)[1]
    assert [row["descriptor"] for row in result["rows"]] == ["probability map", "untrained"]
    for row, model in zip(result["rows"], (model_of(), beside), strict=True):
        overlap = jaccard_score(*by_hand(root, model), labels=range(3), average=None)
        assert row["metrics"]["miou"]["per_query"] == pytest.approx(overlap, abs=1e-9)
    with pytest.raises(ValueError, match=r"must be those of the data, given: 11 against 3, not in both: Bicyclist, B"):
        judged(root, tmp_path / "x", model=model_of(FCNSegment, "camvid11"))


def test_a_class_that_is_nowhere_is_left_out_of_the_mean(root, tmp_path):
    more = [*CLASSES, {"name": "unicorn", "colour": "#ffffff"}]
    result = judged(root, tmp_path, data=data_of(root, classes=more), model=model_of(classes=more))[1]
    cell = result["rows"][0]["metrics"]["miou"]
    assert cell["per_query"][3] is None
    assert cell["mean"] == pytest.approx(np.mean(cell["per_query"][:3]))
    assert "a class that no pixel has" in (tmp_path / "table.md").read_text()
    assert read_run(tmp_path).query_ids[3] == "unicorn"


def test_what_it_cannot_judge_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match="benchmark 'segmentation' needs label maps, data=sort_of_clevr has none"):
        zoo.create("benchmark", "segmentation").open(zoo.create("data", "sort_of_clevr"))
    with pytest.raises(ValueError, match="sheet_images must be an integer of at least 0, got -1"):
        zoo.create("benchmark", "segmentation", sheet_images=-1)
    with pytest.raises(ValueError, match=r"every image must be judged, 3 are missing"):
        judged(root, tmp_path, limit_test_batches=1)

    class Blind(FCNSegment):
        def embed(self, batch, role="gallery"):
            return Representation(vector=batch.images.flatten(1))

    with pytest.raises(ValueError, match=r"benchmark 'segmentation' needs the representation fields \['prob"):
        judged(root, tmp_path, model=model_of(Blind))


def test_labels_are_laid_over_pictures_and_void_is_seen_through():
    labels, picture = scene(0)
    labels = np.where(labels == 255, -1, labels.astype(np.int64))
    found = overlaid_labels(np.zeros_like(picture), labels, COLOURS.tolist())
    assert (found[labels == -1] == 0).all()
    assert (found[labels == 2] == np.round(0.6 * COLOURS[2])).all()


def test_a_legend_names_every_class_in_as_many_lines_as_it_needs():
    classes = class_list("pascal_context60")
    wide, narrow = (legend(classes.names, classes.colours, width) for width in (2000, 300))
    assert (wide.width, narrow.width) == (2000, 300)
    assert narrow.height > 4 * wide.height
    shown = {tuple(colour) for colour in np.array(narrow).reshape(-1, 3).tolist()}
    assert set(classes.colours) <= shown


def test_pictures_with_label_maps_are_embedded_by_the_command(root, tmp_path):
    tiny = {**FCNSegment.tiny, "classes": list(NAMES)}
    model = ["model=fcn_segment", *(f"model.{key}={str(value).replace(' ', '')}" for key, value in tiny.items())]
    data = ["data=label_maps", f"data.root={quoted(str(root))}", f"data.classes=[{','.join(NAMES)}]"]
    more = ["data.train_split=null", "data.image_size=64", "trainer.enable_progress_bar=false"]
    run("embed", tmp_path, *model, *data, *more, f"out={tmp_path / 'features'}")
    features = open_features(tmp_path / "features")
    assert (features.ids, features.kinds) == ([f"s{place}" for place in range(COUNT)], ("probability_map",))
    maps = features.rows([0, 3]).probability_map
    assert maps.shape == (2, 3, 8, 8)
    assert torch.allclose(maps.float().sum(1), torch.ones(2, 8, 8), atol=2e-3)
    folder = ["data=folder", f"data.root={quoted(str(root / 'images'))}", "data.image_size=64"]
    run("embed", tmp_path, *model, *folder, more[-1], f"out={tmp_path / 'others'}")
    assert torch.allclose(open_features(tmp_path / "others").rows([0, 3]).probability_map, maps)
