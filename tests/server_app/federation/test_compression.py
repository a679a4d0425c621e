"""Compressed federations, end to end in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Message
from safetensors.torch import load_file

from conf.compose import compose
from conf.errors import FedproofError
from server_app.evidence import files
from server_app.privacy import curator
from task.wire import Cohort, wire_bytes
from tests.conftest import interrupt
from tests.server_app.test_faults import rewrite, spoil

SHORT = ("rounds=2", "model.hidden=[8]", "evaluate_every=2")
SYNTHETIC = (
    "task=synthetic", "task.shape=[6]", "task.classes=3", "task.clients=20", "task.rows=12",
    "train.lr=0.5", "federation.fraction=0.3", "federation.vectorize=off", "rounds=2",
)  # fmt: skip


def model_of(ran: Any) -> torch.Tensor:
    state = load_file(ran.directory / files.MODEL)
    return torch.cat([state[key].reshape(-1).float() for key in sorted(state)])


@pytest.mark.parametrize("name", ["int8", "topk", "random_mask", "powersgd"])
def test_the_model_and_the_bytes_do_not_depend_on_the_nodes(
    name: str, federate: Callable[..., Any]
) -> None:
    """Updates are added up on one node, and sent one by one from four."""
    told = (*SHORT, f"compression={name}", "compression.down=int8")
    one, many = federate(*told), federate(*told, nodes=4)
    assert one.model == many.model
    plain = federate(*SHORT)
    assert one.model != plain.model
    for key in ("bytes_up", "bytes_down"):
        assert one.summary[key] == many.summary[key] < plain.summary[key]


@pytest.mark.parametrize("strategy", ["fedadam", "krum", "qfedavg"])
def test_strategies_see_models(strategy: str, federate: Callable[..., Any]) -> None:
    """Half precision is so near that each strategy ends where it would have in clear."""
    told = (*SHORT, f"strategy={strategy}")
    start = federate(*told, "train.lr=1e-30", "rounds=1")
    plain, short = federate(*told), federate(*told, "compression=fp16", nodes=2)
    moved = (model_of(plain) - model_of(start)).abs().max()
    assert (model_of(plain) - model_of(short)).abs().max() < 0.02 * moved


@pytest.mark.parametrize("strategy", ["scaffold", "fednova", "moon", "fedexp"])
def test_strategies_with_a_clients_half(strategy: str, federate: Callable[..., Any]) -> None:
    """The model's bytes shrink, what is sent beside it stays; nodes do not matter."""
    told = (*SHORT, f"strategy={strategy}", "compression=int8")
    one, many = federate(*told), federate(*told, nodes=4)
    assert one.model == many.model
    plain = federate(*SHORT, f"strategy={strategy}")
    moved = (model_of(plain) - model_of(federate(*told, "train.lr=1e-30"))).abs().max()
    assert 0 < (model_of(one) - model_of(plain)).abs().max() < 0.1 * moved
    averaged = [federate(*SHORT, *more).summary["bytes_up"] for more in ((), ("compression=int8",))]
    saved = plain.summary["bytes_up"] - one.summary["bytes_up"]
    assert saved == averaged[0] - averaged[1] > 0


def test_the_bytes_are_those_that_travel(federate: Callable[..., Any]) -> None:
    sizes: dict[str, list[int]] = {"train": [], "evaluate": []}

    def look(reply: Message) -> Message:
        kind = reply.metadata.message_type
        if kind in sizes:
            parts = Cohort.unpack(reply.content).parts.values()
            sizes[kind] += [wire_bytes(part) for part in parts]
        return reply

    ran = federate(*SHORT, "compression=topk", nodes=4, tamper=look)
    assert ran.summary["bytes_up"] == sum(map(sum, sizes.values()))
    together = federate(*SHORT, "compression=topk")
    assert together.summary["bytes_up"] == ran.summary["bytes_up"]


def test_a_node_that_lies_about_bytes(federate: Callable[..., Any]) -> None:
    def lie(reply: Message) -> Message:
        told = {"unsent": {"va": -5, "hungary": "many", "cleveland": True}}
        return rewrite(reply, lambda c: replace(c, header={**c.header, **told}))

    assert federate(*SHORT, "compression=topk", tamper=lie).summary["bytes_up"] > 0


MALFORMED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "bytes": (
        lambda p: p["arrays"].__setitem__("values", Array("uint8", (9,), "numpy.ndarray", b"x")),
        "'values' cannot be decoded",
    ),
    "length": (
        lambda p: p["arrays"].__setitem__("values", Array(np.zeros(3, np.uint8))),
        "its compressed update holds no 'values' of 273 uint8",
    ),
    "scale": (
        lambda p: p["arrays"].__setitem__("scales", Array(np.array([np.nan], np.float32))),
        "its compressed update holds NaN or infinity in 'scales'",
    ),
    "none": (lambda p: p.pop("arrays"), "exactly one model"),
    "empty": (lambda p: p["arrays"].clear(), "its compressed update holds no 'values'"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_update_is_excluded_and_named(fault: str, federate: Callable[..., Any]) -> None:
    change, reason = MALFORMED[fault]
    told = ("rounds=1", "model.hidden=[8]", "compression=int8")
    ran = federate(*told, nodes=4, tamper=spoil("va", change))
    assert set(ran.rounds[0]["failed"]) == {"va"}
    assert reason in ran.rounds[0]["failed"]["va"]
    assert len(ran.rounds[0]["answered"]) == 3


@pytest.mark.parametrize("name", ["topk", "powersgd"])
def test_what_waits_survives_a_restart(
    name: str, federate: Callable[..., Any], tmp_path: Path
) -> None:
    """Half of the clients are drawn in a round: what waits also survives rounds without them."""
    told = (f"compression={name}", "model.hidden=[8]", "federation.fraction=0.5", "rounds=5")
    whole, directory = federate(*told), tmp_path / "cut"
    interrupt(federate, directory, *told, "checkpoint_every=2", after=3)
    kept = sorted((directory / "clients" / "compression").rglob("*.safetensors"))
    assert kept and all("residual" in load_file(path) for path in kept)
    resumed = federate(*told, f"resume={directory}", directory=directory)
    assert resumed.model == whole.model
    forgetful = federate(*told, "compression.error_feedback=false")
    assert forgetful.model != whole.model


def test_clients_that_train_at_once_compress_too(federate: Callable[..., Any]) -> None:
    told = (*SYNTHETIC, "compression=random_mask", "federation.fraction=1.0")
    alone, together = federate(*told), federate(*told, "federation.vectorize=on")
    assert torch.allclose(model_of(alone), model_of(together), atol=1e-5)
    assert alone.summary["bytes_up"] == together.summary["bytes_up"]


@pytest.mark.parametrize(
    ("name", "alone"), [("quantize", True), ("random_mask", False), ("topk", False)]
)
def test_what_is_added_up_under_central_noise_is_clipped_as_it_is_read(
    name: str, alone: bool, federate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit per value lengthens updates tenfold; sums still hold what the noise is for."""
    clip, sums = 0.01, []
    original = curator.Curator._release

    def noted(self: Any, total: torch.Tensor, unclipped: int, answered: int) -> torch.Tensor:
        sums.append((float(total.norm()), answered))
        return original(self, total, unclipped, answered)

    monkeypatch.setattr(curator.Curator, "_release", noted)
    everyone = [{"partition-id": i, "num-partitions": 20} for i in range(20)]
    bits = ("compression.bits=1",) if name == "quantize" else ("compression.error_feedback=false",)
    ran = federate(
        *SYNTHETIC, "privacy=client_dp", "privacy.sigma=1e-9", "privacy.delta=0.01",
        "federation.fraction=1.0", f"privacy.clip={clip}", f"compression={name}", *bits,
        nodes=everyone if alone else 1,
    )  # fmt: skip
    assert ran.summary["rounds"] == 2 and len(sums) == 2
    for norm, answered in sums:
        assert answered == 20
        assert 0 < norm <= answered * clip * (1 + 1e-5)


@pytest.mark.parametrize(
    "privacy",
    [
        ("privacy=record_dp", "privacy.sigma=1.0", "privacy.delta=1e-3"),
        ("privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=0.01",
         "privacy.placement=local"),
    ],
)  # fmt: skip
def test_private_models_are_compressed_after_the_noise(
    privacy: tuple[str, ...], federate: Callable[..., Any]
) -> None:
    told = (*SYNTHETIC, "task.shape=[200]", *privacy)
    ran, plain = federate(*told, "compression=topk"), federate(*told)
    assert ran.summary["privacy"]["epsilon_most"] == plain.summary["privacy"]["epsilon_most"]
    assert ran.summary["bytes_up"] < plain.summary["bytes_up"]


@pytest.mark.parametrize("aggregation", ["secagg", "he"])
def test_secure_sums_are_refused(aggregation: str) -> None:
    with pytest.raises(FedproofError, match=r"cannot be added up unread.*aggregation.bits=16"):
        compose((f"aggregation={aggregation}", "compression=int8"))
