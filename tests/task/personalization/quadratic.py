"""A linear regression on which every step is known in closed form."""

import torch

from conf.compose import compose
from task.base import Examples
from task.client_update.base import ClientUpdate, Work
from task.flat import FlatModel
from task.objectives import Regression
from task.personalization import personalization_of

LR = 0.05
X = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.2, -1.0], [1.5, 0.3]])
DATA = Examples(X, torch.tensor([1.0, -0.4, 0.3, 0.9]))
DESIGN = torch.cat([X, torch.ones(4, 1)], 1)
START = torch.tensor([0.3, -0.2, 0.1])


def grad(theta):
    """Return the gradient of the mean squared error at weights and bias."""
    return 2 / 4 * DESIGN.T @ (DESIGN @ theta - DATA.y)


def settings(*overrides):
    return compose(("train.batch_size=4", "model.hidden=[8]", f"train.lr={LR}", *overrides))


def work(config, kept=None, values=START):
    model = FlatModel(torch.nn.Linear(2, 1))
    model.vector.data.copy_(values)
    return Work(model, DATA, Regression(), config.train, seed=3, kept=kept or {})


def trained(*overrides, kept=None):
    """Train one round; return the update."""
    config = settings(*overrides)
    return personalization_of(config).wrap(ClientUpdate()).run(work(config, kept))


def own(update):
    """Return the personal weights and bias that a client keeps."""
    memory = update.trained.memory
    return torch.cat([memory[f"own/model/{name}"].reshape(-1) for name in ("weight", "bias")])


def kept(values, **others):
    model = {"own/model/weight": values[:2].view(1, 2), "own/model/bias": values[2:]}
    return model | {f"own/{name}": value for name, value in others.items()}
