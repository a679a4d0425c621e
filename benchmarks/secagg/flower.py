"""The same with the SecAgg+ that Flower ships: its server's last stage, and one of its clients.

Stages are called as they are, with stand-ins for the network and the strategy. Its clients quantize
and mask in one stage. It exchanges no signatures.
"""

from __future__ import annotations

import os
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import (
    SecAggPlusWorkflow,
    WorkflowState,
)
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from benchmarks.he import timed
from benchmarks.secagg.session import HEAVIEST, Cohort, Timed
from server_app.compat import adopt_identity

_THRESHOLD = 0.66


class FlowerPlay:
    """A session of Flower's, of which only what is timed takes place.

    Parameters
    ----------
    cohort : Cohort
    update : float32 array, shape (size,)
    """

    def __init__(self, cohort: Cohort, update: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        adopt_identity(run_id=1)
        count = cohort.clients
        self.update = update
        self.settings: dict[str, Any] = {
            Key.SAMPLE_NUMBER: count, Key.SHARE_NUMBER: count,
            Key.THRESHOLD: round(_THRESHOLD * count), Key.CLIPPING_RANGE: 8.0,
            Key.TARGET_RANGE: 1 << 22, Key.MOD_RANGE: 1 << 32, Key.MAX_WEIGHT: float(HEAVIEST),
        }  # fmt: skip
        self.everybody = set(range(1, count + 1))
        self.alive = self.everybody - {i + 1 for i in cohort.gone}
        keys = {i: generate_key_pairs() for i in self.everybody}
        self.public = {
            i: [public_key_to_bytes(key) for key in (public, generate_key_pairs()[1])]
            for i, (_, public) in keys.items()
        }
        # The shares that the server will want, and no others: they take seconds a client.
        self.shares = {
            i: create_shares(
                os.urandom(32) if i in self.alive else private_key_to_bytes(private),
                self.settings[Key.THRESHOLD],
                count,
            )
            for i, (private, _) in keys.items()
        }

    def run(self) -> Timed:
        """Do the work of a client and of the server."""
        return {**self.client(), "server_s": timed(self.server)[0]}

    def client(self) -> Timed:
        """Do the work of a client."""
        state = SecAggPlusState()
        state.nid = min(self.alive)
        sent = [*_setup(state, ConfigRecord(self.settings)).values()]
        public = {str(i): pair for i, pair in self.public.items()}
        public[str(state.nid)] = [state.pk1, state.pk2]
        share_s, dealt = timed(partial(_share_keys, state, cast(Any, public)))
        forwarded = {
            Key.SOURCE_LIST: list(state.ss2_dict),
            Key.CIPHERTEXT_LIST: [sealed(i, state) for i in state.ss2_dict],
        }
        update = ndarrays_to_parameters([self.update])
        mask_s, masked = timed(
            partial(_collect_masked_vectors, state, cast(Any, forwarded), HEAVIEST, update)
        )
        asked = {
            Key.ACTIVE_NODE_ID_LIST: list(self.alive),
            Key.DEAD_NODE_ID_LIST: list(self.everybody - self.alive),
        }
        unmask_s, revealed = timed(partial(_unmask, state, cast(Any, asked)))
        sent += [*dealt[Key.CIPHERTEXT_LIST], *masked[Key.MASKED_PARAMETERS]]
        sent += revealed[Key.SHARE_LIST]
        seconds = {"share_s": share_s, "mask_s": mask_s, "unmask_s": unmask_s}
        return {**seconds, "upload_bytes": sum(map(len, cast(list[bytes], sent)))}

    def server(self) -> None:
        """Do the server's last stage: shares are there, and the sum of the masked vectors."""
        settings, everybody = self.settings, self.everybody
        state = WorkflowState(
            sampled_node_ids=set(everybody),
            active_node_ids=set(self.alive),
            threshold=settings[Key.THRESHOLD],
            clipping_range=settings[Key.CLIPPING_RANGE],
            quantization_range=settings[Key.TARGET_RANGE],
            mod_range=settings[Key.MOD_RANGE],
            nid_to_neighbours={i: set(everybody) for i in everybody},
            nid_to_publickeys={i: list(pair) for i, pair in self.public.items()},
            # Seconds do not depend on what is in it; that the weights' sum comes first matters.
            aggregate_ndarrays=[np.ones(1, np.int64), np.zeros(len(self.update), np.int64)],
        )
        config = {MAIN_CONFIGS_RECORD: {WorkflowKey.CURRENT_ROUND: 1}}
        context = SimpleNamespace(
            state=SimpleNamespace(config_records=config),
            strategy=SimpleNamespace(aggregate_fit=lambda *_: (None, {})),
        )
        grid = SimpleNamespace(send_and_receive=lambda *_, **__: self.replies())
        workflow = SecAggPlusWorkflow(1.0, _THRESHOLD)
        assert workflow.unmask_stage(cast(Any, grid), cast(Any, context), state)

    def replies(self) -> list[SimpleNamespace]:
        """Return the shares that the clients reveal, as messages."""
        owners = list(self.shares)
        return [
            SimpleNamespace(
                has_error=lambda: False,
                metadata=SimpleNamespace(src_node_id=i),
                content=SimpleNamespace(
                    config_records={
                        RECORD_KEY_CONFIGS: {
                            Key.NODE_ID_LIST: owners,
                            Key.SHARE_LIST: [self.shares[owner][i - 1] for owner in owners],
                        }
                    }
                ),
            )
            for i in self.alive
        ]


def sealed(sender: int, state: SecAggPlusState) -> bytes:
    """Return shares for a client, of the right size; it does not look into them."""
    own = (state.rd_seed_share_dict[state.nid], state.sk1_share_dict[state.nid])
    return encrypt(state.ss2_dict[sender], share_keys_plaintext_concat(sender, state.nid, *own))
