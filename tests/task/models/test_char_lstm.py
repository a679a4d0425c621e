import pytest
import torch
from opacus.validators import ModuleValidator

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.char_lstm import build

OPTIONS = {"embedding": 4, "hidden": 8, "layers": 2, "dp": False}
SPEC = ModelSpec((6,), 5, vocabulary=5)


def test_every_place_has_its_logits_and_sees_the_past_only():
    model = build(OPTIONS, SPEC)
    x = torch.randint(0, 5, (3, 6))
    outputs = model(x)
    assert outputs.shape == (3, 6, 5)
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % 5
    assert model(changed)[:, :4].equal(outputs[:, :4])
    assert not model(changed)[:, 4:].equal(outputs[:, 4:])


def test_opacus_version_is_the_same_model():
    plain = build(OPTIONS, SPEC)
    private = build(OPTIONS | {"dp": True}, SPEC)
    private.load_state_dict(plain.state_dict())
    assert set(private.state_dict()) == set(plain.state_dict())
    assert set(dict(private.named_parameters())) == set(dict(plain.named_parameters()))
    x = torch.randint(0, 5, (3, 6))
    torch.testing.assert_close(private(x), plain(x))
    assert ModuleValidator.validate(private, strict=True) == []


def test_needs_symbols():
    with pytest.raises(FedproofError, match="needs sequences of symbols"):
        build(OPTIONS, ModelSpec((6,), 5))
