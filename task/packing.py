"""Compressed updates, and models, as both sides make and read them.

What is compressed are trainable parameters. What a model holds besides, such as BatchNorm's
statistics and counters, travels as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from conf.errors import FedproofError
from conf.schema import Settings
from task.arrays import array_of, record_of, values_of
from task.base import ModelSpec
from task.compression import compressors_of
from task.compression.base import Compressor, Layout, MalformedError, Packet, floats, taken
from task.flat import State, build_model
from task.personalization import personalization_of
from task.privacy.client_dp import clipped
from task.seeding import derive
from task.training import Memory

_RESIDUAL = "residual"
_REST = "rest"
_MARK = "~"
"""Before the names of a compressed model's arrays: no parameter's name starts like this."""


class Packing:
    """The compression of one model and its updates.

    Parameters
    ----------
    up : Compressor
        Of updates.
    down : Compressor or None
        Of the model itself. Not of its changes: a client that was not drawn for some rounds has no
        model that they are changes of.
    seed : int
        Of the run.
    module : nn.Module
        The model; its values do not matter.
    private : collection of str
        Names in its state dict that do not travel.
    """

    def __init__(
        self,
        up: Compressor,
        down: Compressor | None,
        seed: int,
        module: nn.Module,
        private: Collection[str] = (),
    ) -> None:
        self._up, self._down, self._seed = up, down, seed
        names = {name for name, p in module.named_parameters() if p.requires_grad}
        state = {key: v for key, v in module.state_dict().items() if key not in private}
        self._shapes = {
            key: tuple(value.shape) if key in names else None for key, value in state.items()
        }
        self._sizes = [value.numel() for value in state.values()]
        self._layout = Layout(tuple(s for s in self._shapes.values() if s is not None))

    @property
    def keeps(self) -> bool:
        """Whether clients keep something from update to update."""
        return self._up.feedback or self._up.remembers

    def pack(
        self, update: Tensor, memory: Memory, of: tuple[int, str], clip: float | None
    ) -> tuple[ArrayRecord, Tensor, Memory]:
        """Compress an update.

        Parameters
        ----------
        update : Tensor, shape (s,)
            In the order of `FlatModel.values`; finite.
        memory : dict of str to Tensor
            What the client kept after its last update; empty at first.
        of : (int, str)
            The round, and the client.
        clip : float or None
            Norm that the update must not exceed when it is read.

        Returns
        -------
        ArrayRecord, Tensor, dict of str to Tensor
            What travels; the update that it stands for, shape (s,); and what to keep.
        """
        update = update.detach().float().cpu()
        wanted, rest = update[self._trainable], update[~self._trainable]
        if _RESIDUAL in memory:
            wanted = wanted + memory[_RESIDUAL]
        packet, kept = self._up.encode(wanted, self._layout, memory, self._drawn(*of))
        if len(rest):
            packet[_REST] = rest.numpy()
        read = self.unpack(packet, of, clip)
        if self._up.feedback:
            kept = {**kept, _RESIDUAL: wanted - read[self._trainable]}
        return record_of({name: array_of(v) for name, v in packet.items()}), read, kept

    def unpack(self, packet: Packet, of: tuple[int, str], clip: float | None) -> Tensor:
        """Return the update that a packet stands for, shape (s,).

        One that exceeds the clip is shortened, because compression may lengthen what was clipped.

        Raises
        ------
        MalformedError
            If it stands for none.
        """
        update = torch.empty(len(self._trainable))
        update[self._trainable] = self._up.decode(packet, self._layout, self._drawn(*of))
        rest = len(update) - self._layout.size
        if rest:
            update[~self._trainable] = floats(taken(packet, _REST, np.float32, rest))
        return update if clip is None else clipped(update, clip)[0]

    def pack_model(self, arrays: ArrayRecord, number: int) -> ArrayRecord:
        """Return a model as it travels to clients in a round."""
        if self._down is None:
            return arrays
        mine = (key for key, shape in self._shapes.items() if shape is not None)
        vector = floats(np.concatenate([values_of(arrays[key]).reshape(-1) for key in mine]))
        packet, _ = self._down.encode(vector, self._layout, {}, self._drawn(number))
        rest = {key: arrays[key] for key, shape in self._shapes.items() if shape is None}
        return record_of(rest | {_MARK + name: array_of(v) for name, v in packet.items()})

    def state_of(self, arrays: ArrayRecord) -> State:
        """Return a model as clients take it up.

        Raises
        ------
        FedproofError
            If it cannot be read.
        """
        told = {key: values_of(array) for key, array in arrays.items()}
        if self._down is None:
            return told
        packet = {key[1:]: value for key, value in told.items() if key.startswith(_MARK)}
        try:
            vector = self._down.decode(packet, self._layout, 0)
            parts = iter(torch.split(vector, self._layout.sizes))
            return {
                key: told[key] if shape is None else next(parts).view(shape).numpy()
                for key, shape in self._shapes.items()
            }
        except (MalformedError, KeyError) as error:
            raise FedproofError(f"the server's compressed model {error}.") from None

    @cached_property
    def _trainable(self) -> Tensor:
        """Whether each value of a state dict is compressed, shape (s,)."""
        flags = [shape is not None for shape in self._shapes.values()]
        return torch.tensor(flags).repeat_interleave(torch.tensor(self._sizes))

    def _drawn(self, number: int, *client: str) -> int:
        return derive(self._seed, "compression", number, *client)


def packing_of(settings: Settings, spec: ModelSpec) -> Packing | None:
    """Return how a task's model and its updates travel, or None if as they are.

    Raises
    ------
    FedproofError
        If the settings are wrong.
    """
    compressors = compressors_of(settings)
    if compressors is None:
        return None
    method, module = personalization_of(settings), build_model(settings, spec)
    if method is None:
        return Packing(*compressors, settings.seed, module)
    if method.clusters:
        raise FedproofError(
            f"personalization={settings.personalization.name} sends several models, which "
            f"compression={settings.compression.name} does not know: leave one of them out."
        )
    return Packing(*compressors, settings.seed, module, method.private(module))
