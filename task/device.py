"""Where a process computes: on the CPU, or on a GPU that all processes of a machine share."""

from __future__ import annotations

import torch

from conf.errors import FedproofError
from conf.schema import Device

CPU = torch.device("cpu")


def device_of(wanted: Device) -> torch.device:
    """Return the device that ``train.device`` means on this machine.

    Raises
    ------
    FedproofError
        If it is ``cuda`` and there is none.
    """
    if wanted is Device.cpu:
        return CPU
    # Not asked for in a process that others are forked from: a fork cannot use CUDA afterwards.
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted is Device.cuda:
        raise FedproofError(
            "train.device=cuda: torch finds no GPU on this machine: leave it at auto, or cpu."
        )
    return CPU
