"""Tells what stands where in an image, as probabilities of classes to search by (Furuta et al. 2018)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torchmetrics.classification import MulticlassConfusionMatrix

from zoo.backbones import create_segmenter, pieces
from zoo.checks import check_flags, check_integers, check_not_negative, check_positive, check_words
from zoo.classes import Colour, class_list, class_lists
from zoo.metrics.functional.segmentation import intersection_over_union, pixel_accuracy
from zoo.models.fcn_segment.checks import (
    HEADS,
    OPTIMIZERS,
    WEIGHTINGS,
    check_correction,
    check_finish,
    check_head,
    check_scales,
    check_shares,
)
from zoo.models.fcn_segment.heads import AtrousSum, LightHead
from zoo.models.fcn_segment.net import FCN, enlarged, rescaled
from zoo.models.fcn_segment.training import log_weights, lovasz_softmax, poly_factor, segmentation_loss
from zoo.models.fcn_segment.trunk import create_trunk
from zoo.module import Embedder
from zoo.ops.label_maps import VOID
from zoo.types import Batch, Representation, Role, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.models.fcn_segment.trunk import Trunk

_NO_LABELS = "data must give label maps, data={} doesn't: label_maps, camvid, voc and pascal_context do"


class FCNSegment(Embedder):
    """Semantic segmentation whose probability maps are the representation; see `conf/model/fcn_segment.yaml`.

    `class_names` and `class_colours` say what the C maps stand for. Raises ValueError for a backbone that can't be
    used, an unknown word, or a number out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("probability_map",)
    monitor: ClassVar[str] = "val/miou"
    judges_itself: ClassVar[bool] = True
    on_reload: ClassVar[dict[str, Any]] = {"backbone_weights": None}
    apart_from_embedding: ClassVar[tuple[str, ...]] = (
        *("class_weighting", "class_shares", "freeze_norm", "finish", "optimizer", "learning_rate"),
        *("head_learning_rate", "momentum", "weight_decay", "power"),
    )
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_resnet", "backbone_weights": "random", "head": "light", "output_stride": 16,
        "dilations": [1, 2], "width": 8, "skip_stride": 4, "skip_width": 4, "classes": ["sky", "ground", "thing"],
        "optimizer": "adamw",
    }  # fmt: skip

    def __init__(
        self, *, backbone: str, backbone_weights: str | None, backbone_options: Mapping[str, Any],
        output_stride: int | None, head: str, dilations: Sequence[int], width: int, image_pooling: bool,
        skip_stride: int | None, skip_width: int, freeze_norm: bool,
        classes: str | Sequence[str | Mapping[str, str]], class_weighting: str, class_shares: Sequence[float] | None,
        prior_correction: float, scales: Sequence[float], finish: float, optimizer: str, learning_rate: float,
        head_learning_rate: float, momentum: float, weight_decay: float, power: float,
    ) -> None:  # fmt: skip
        super().__init__()
        check_words(head=(head, HEADS), optimizer=(optimizer, OPTIMIZERS))
        check_words(class_weighting=(class_weighting, WEIGHTINGS))
        check_flags(image_pooling=image_pooling, freeze_norm=freeze_norm)
        check_integers(1, width=width, skip_width=skip_width)
        check_head(head, dilations, image_pooling, output_stride, backbone_options)
        rates = {"learning_rate": learning_rate, "head_learning_rate": head_learning_rate}
        check_positive(**rates, power=power)
        check_not_negative(momentum=momentum, weight_decay=weight_decay)
        check_correction(prior_correction, class_weighting)
        check_scales(scales)
        check_finish(finish)
        self._classes = class_list(classes)
        check_shares(class_shares, class_weighting, len(self._classes))
        count = len(self._classes)
        if head == "own":
            parts = create_segmenter(backbone, backbone_weights, count)
        else:
            stride = {} if output_stride is None else {"output_stride": output_stride}
            fine = skip_stride if head == "light" else None
            trunk = create_trunk(str(backbone), backbone_weights, {**stride, **backbone_options}, fine)
            light = {"width": width, "image_pooling": image_pooling, "skip_width": skip_width}
            parts = trunk, _head(head, trunk, count, dilations, light)
        self.net = FCN(*parts, freeze_norm)
        self._weighting, self._shares, self._correction = class_weighting, class_shares, prior_correction
        self._scales = tuple(map(float, scales))
        self._optimizer, self._rates = optimizer, (learning_rate, head_learning_rate)
        self._momentum, self._decay, self._power, self._finish = momentum, weight_decay, power, finish
        self.register_buffer("class_weights", torch.ones(count) if class_shares is None else log_weights(class_shares))
        confusion = {"ignore_index": VOID, "validate_args": False}
        self.confusion = MulticlassConfusionMatrix(count, **confusion)
        self.own_confusion = MulticlassConfusionMatrix(count, **confusion)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the C classes, in the order of the maps."""
        return self._classes.names

    @property
    def class_colours(self) -> tuple[Colour, ...]:
        """Returns the colours (R, G, B) that the classes are drawn in."""
        return self._classes.colours

    @property
    def registered(self) -> dict[str, Any] | None:
        """Returns what `zoo.create` set; classes of a file are written out, so that the model's own file knows them."""
        return self.__dict__.get("_registered")

    @registered.setter
    def registered(self, described: dict[str, Any]) -> None:
        parameters = described["parameters"]
        if isinstance(parameters["classes"], str) and parameters["classes"] not in class_lists():
            described = {**described, "parameters": {**parameters, "classes": self._classes.plain()}}
        self.__dict__["_registered"] = described

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the probability maps (B, C, ⌈H/8⌉, ⌈W/8⌉), without gradients."""
        with torch.no_grad():
            maps = [self._maps(self._looks(piece), piece) for piece in pieces(batch.images)]
        return Representation(probability_map=torch.cat(maps))

    def _looks(self, images: Tensor) -> list[Tensor]:
        """Returns the logits (B, C, h, w) of the images at each scale, finer ones where they are enlarged."""
        return [self._corrected(rescaled(images, scale)) for scale in self._scales]

    def _maps(self, looks: Sequence[Tensor], images: Tensor) -> Tensor:
        """Returns the mean of the looks' probabilities, (B, C, ⌈H/8⌉, ⌈W/8⌉).

        DeepLab-v2 takes the largest of its scores at three scales (Chen et al. 2017, Sec. 3.2), and learns so.
        """
        return torch.stack([self.net.at_stride(logits, images.shape[2:]) for logits in looks]).mean(0)

    def _corrected(self, images: Tensor) -> Tensor:
        """Returns the logits (B, C, h, w), without the share of the class weights that is to be taken back.

        Training by weights w makes a class w times as probable as it is (Menon et al. 2021, "Long-tail learning via
        logit adjustment", Sec. 4.2); all of it taken back suits pixel accuracy, none the mean recall.
        """
        logits = self.net(images)
        return logits - self._correction * self.class_weights.log()[:, None, None] if self._correction else logits

    @property
    def descriptor_name(self) -> str:
        """Returns what is compared where vectors are wanted."""
        return "probability map"

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns the maps as vectors, class-major (Sec. 3.2; their L2 distance is Eq. 2), and the shares of classes.

        The latter say what is there, and not where.
        """
        maps = self.embed(batch, role).probability_map
        return {self.descriptor_name: maps.flatten(1), "class shares": maps.mean((2, 3))}

    def check_data(self, data: Any) -> None:
        """Raises ValueError where the data has no label maps, or those of other classes or in another order."""
        if not hasattr(data, "label_map"):
            name = name_of(data)
            raise ValueError(_NO_LABELS.format(name))
        if tuple(data.classes.names) != self.class_names:
            pairs = zip(self.class_names, data.classes.names, strict=False)
            first = next((pair for pair in pairs if pair[0] != pair[1]), ("nothing", "nothing"))
            raise ValueError(
                f"model.classes must be those of the data in its order ({data.classes.name}, {len(data.classes)}), got "
                f"{len(self.class_names)}, '{first[0]}' in the place of '{first[1]}'"
            )

    def setup(self, stage: str) -> None:
        """Counts, to fit with weights by share that aren't given, the classes of the training split; rank 0 alone."""
        if stage != "fit" or self._weighting != "log" or self._shares is not None:
            return
        data = self.trainer.datamodule
        if data is None:  # a bare loader, as tests have
            return
        shares = data.class_shares(data.train_split) if self.trainer.is_global_zero else None
        self.class_weights.copy_(log_weights(self.trainer.strategy.broadcast(shares)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the cross entropy of the pixels that have a class; in the finish as `_finishing_loss` has it.

        Raises ValueError for a batch without labels.
        """
        labels = _labels(batch)
        if self._finish and self.global_step >= (1 - self._finish) * self.trainer.estimated_stepping_batches:
            loss = self._finishing_loss(batch.images, labels)
        else:
            loss = segmentation_loss(self.net(batch.images), labels, self.class_weights)
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def _finishing_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Returns what judges the network as it is used: corrected, without weights, by cross entropy and by IoU.

        The IoU is that of the logits and that of the maps, each enlarged to the labels.
        """
        logits = self._corrected(images)
        loss = segmentation_loss(logits, labels, torch.ones_like(self.class_weights))
        for found in (logits.softmax(1), self.net.at_stride(logits, images.shape[2:])):
            loss = loss + lovasz_softmax(enlarged(found, labels), labels)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Gives all ranks the statistics of the first one's batch normalisation, which is what checkpoints hold."""
        if dist.is_available() and dist.is_initialized():
            for buffer in self.net.buffers():
                dist.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts which pixels the maps, and the network's own finer probabilities, enlarged, take for which class."""
        labels = _labels(batch)
        for piece, truth in zip(pieces(batch.images), pieces_like(labels, batch.images), strict=True):
            looks = self._looks(piece)
            own = [enlarged(logits.softmax(1), truth) for logits in looks]
            self.confusion.update(enlarged(self._maps(looks, piece), truth).argmax(1), truth)
            self.own_confusion.update(sum(own).argmax(1), truth)

    def on_validation_epoch_end(self) -> None:
        """Logs mean IoU, pixel accuracy and the IoU of every class that was seen, over all ranks.

        They are those of the maps; `val/own_miou` is what the network reaches at its own, perhaps finer, resolution.
        """
        confusion, own = self.confusion.compute(), self.own_confusion.compute()  # of all ranks
        self.confusion.reset()
        self.own_confusion.reset()
        overlap = intersection_over_union(confusion)
        self.log("val/own_miou", intersection_over_union(own).nanmean().item(), sync_dist=True)
        self.log("val/miou", overlap.nanmean().item(), prog_bar=True, sync_dist=True)
        self.log("val/pixel_accuracy", pixel_accuracy(confusion).item(), sync_dist=True)
        for name, value in zip(self.class_names, overlap.tolist(), strict=True):
            if not math.isnan(value):
                self.log(f"val/iou/{name}", value, sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns the optimiser, the head having a rate of its own, and the poly schedule over the run's steps."""
        groups = [
            {"params": params, "lr": rate}
            for part, rate in zip(("trunk", "head"), self._rates, strict=True)
            if (params := list(self.net.trained(part)))
        ]
        if self._optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, momentum=self._momentum, weight_decay=self._decay)
        else:
            optimizer = torch.optim.AdamW(groups, weight_decay=self._decay)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError("the poly schedule needs an end: set trainer.max_epochs or trainer.max_steps, got neither")
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: poly_factor(step, max(1, int(steps)), self._power)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images with label maps of three classes."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(VOID, 3, (3, 6, 8), generator=generator)
        return Batch(
            index=torch.arange(3),
            images=torch.rand(3, 3, 96, 128, generator=generator),
            label_map=labels.repeat_interleave(16, 1).repeat_interleave(16, 2),
        )


def _head(name: str, trunk: Trunk, classes: int, dilations: Sequence[int], light: dict[str, Any]) -> torch.nn.Module:
    if name == "deeplab_v2":
        return AtrousSum(trunk.channels, classes, dilations)
    return LightHead((trunk.channels, trunk.fine_channels), classes, dilations, **light)


def _labels(batch: Batch) -> Tensor:
    if batch.label_map is None:
        raise ValueError("fcn_segment is trained and validated on label maps, this batch has none")
    return batch.label_map


def pieces_like(rows: Tensor, images: Tensor) -> list[Tensor]:
    """Returns `rows (B, …)` in the pieces into which `pieces` cuts the images."""
    return list(rows.split([len(piece) for piece in pieces(images)]))


export = FCNSegment
