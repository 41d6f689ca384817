"""Starting weights from which the pair network learns to bind attributes to the object that a question names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.models.two_stage_rn.net import TwoStageRNNet

_NOISE = 0.05  # standard deviation that tells apart the units with the same gate


def initialise(net: TwoStageRNNet, groups: Sequence[int], gate: float) -> None:
    """Gives every linear layer He's initialisation, and each unit that reads the question one question to listen to.

    `groups` are the sizes of the one-hot groups of a question vector, (6, 2, 3) for colour, kind and type. A unit is
    given one bit of each group in turn; any other bit of a group lowers its input by `gate`, so that it is active only
    for its own question. From ordinary weights the network first learns what can be answered without binding attributes
    to colours (.79 relational, .74 non-relational) and stays there for thousands of steps. The architecture is the
    paper's.

    Raises ValueError if the groups don't add up to the width of a question.
    """
    if sum(groups) != net.h_question.in_features:
        raise ValueError(f"groups must add up to question_dim {net.h_question.in_features}, got {list(groups)}")
    for layer in (*net.g, net.h_pair, *net.h, *net.f[:-1]):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(net.f[-1].bias)
    weight = net.h_question.weight
    with torch.no_grad():
        weight.normal_(std=_NOISE)
        weight -= gate * (1 - _chosen_bits(len(weight), groups))


def _chosen_bits(units: int, groups: Sequence[int]) -> torch.Tensor:
    """Returns (units, sum of groups): 1 for the bits that a unit listens to, which count up like an odometer."""
    number = torch.arange(units)
    columns = []
    for size in reversed(groups):
        columns.append(nn.functional.one_hot(number % size, size))
        number = number // size
    return torch.cat(columns[::-1], dim=1).float()
