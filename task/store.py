"""What clients keep from round to round: a file per client on its own node, never sent.

A round reads what the client's last round before it wrote, so that a round tried again, or done
again after resuming from a checkpoint, starts from the same state as the first time.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from conf.errors import FedproofError
from task.atomic import atomic, make_folder

log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"


Lineage = Sequence[tuple[str, int]]
"""A run's processes, first to last: name, and the round after which each took it up."""


class ClientStore:
    """States of the clients of one run on one node.

    Parameters
    ----------
    base : Path
        Where this node keeps states; made when the first is written.
    lineage : sequence of (str, int)
        The processes of the run so far. What one of them let clients write in rounds that its
        successor did again, because they were after the last checkpoint, does not count.

    Raises
    ------
    FedproofError
        If the server's names could lead elsewhere.
    """

    def __init__(self, base: Path, lineage: Lineage) -> None:
        names = [name for name, _ in lineage]
        if not names or not all(re.fullmatch(r"[0-9a-z]{1,64}", name) for name in names):
            raise FedproofError("the server names the run in a way that cannot be a folder.")
        ends = [start for _, start in lineage[1:]]
        self._rounds_of = {
            name: range(start + 1, end + 1)
            for (name, start), end in zip(lineage, [*ends, 2**63 - 2], strict=True)
        }
        self._folder = base / names[0]
        self._name = names[-1]

    def load(self, client: str, before: int) -> dict[str, Tensor]:
        """Return what the client kept in its last round before `before`; nothing if none.

        Raises
        ------
        FedproofError
            If the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        known = {n: path for n, path in self._known(client).items() if n < before}
        if not known:
            return {}
        path = known[max(known)]
        try:
            # Not mapped: what is trained on changes.
            return {key: value.clone() for key, value in load(path.read_bytes()).items()}
        except (SafetensorError, OSError) as error:
            log.warning("%s: %s", path, error)
            raise FedproofError(
                f"what client '{client}' keeps is damaged: delete its file (its node's log "
                "says which) to start it afresh."
            ) from None

    def save(
        self, client: str, number: int, state: Mapping[str, Tensor], checkpointed: int
    ) -> None:
        """Write what the client keeps after round `number`, whole or not at all.

        Parameters
        ----------
        client : str
            Whose it is.
        number : int
            The round.
        state : mapping of str to Tensor
            What it keeps.
        checkpointed : int
            The last round from which the run can be resumed. Older states that no round can ask
            for any more are deleted.

        Raises
        ------
        FedproofError
            If the disk does not take it; what was there before stays.
        """
        from safetensors.torch import save

        path = self._path(client, f"{number}.{self._name}")
        try:
            make_folder(path.parent)
            with atomic(path) as temporary:
                temporary.write_bytes(save(dict(state)))
        except OSError as error:
            log.warning("%s: %s", path, error)
            raise FedproofError(
                f"what client '{client}' keeps cannot be written: {error.strerror}."
            ) from None
        known = self._known(client)
        needed = {path} | {
            known[max(n for n in known if n <= last)]
            for last in (number - 1, checkpointed)
            if any(n <= last for n in known)
        }
        for old in set(self._files(client)) - needed:
            old.unlink(missing_ok=True)

    def _path(self, client: str, version: str) -> Path:
        # Ids are any text, and many: a digest fits every file system, 256 folders spread them.
        digest = hashlib.sha256(client.encode()).hexdigest()[:40]
        return self._folder / digest[:2] / f"{digest[2:]}.{version}{_SUFFIX}"

    def _files(self, client: str) -> list[Path]:
        pattern = self._path(client, "*")
        return list(pattern.parent.glob(pattern.name))

    def _known(self, client: str) -> dict[int, Path]:
        """Return the file of each round whose state counts."""
        found = {}
        for path in self._files(client):
            _, number, name, _ = path.name.split(".")
            if int(number) in self._rounds_of.get(name, ()):
                found[int(number)] = path
        return found
