"""PyTorch: the same network, the images resident as uint8, as its own users would write it for speed."""

import torch
from torch import nn

from fmnist.data.dataset import Images, TrainData
from fmnist.recipe.schema import CLASSES

from .cases import Case
from .worker import cores


class Torch:
    """A loop over shuffled batches of a resident tensor, with the fused Adam; `compiled` by `torch.compile`."""

    def __init__(self, data: TrainData, case: Case, compiled: bool = False) -> None:
        torch.set_num_threads(cores())
        # TensorFlow's default too: TF32 products on GPUs that have them.
        torch.set_float32_matmul_precision("high")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_size = case.training.batch_size
        self._train = self._resident(data.train)
        self._validation = self._resident(data.validation)
        self._model = _network(case).to(self._device)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=case.training.learning_rate, eps=1e-7, fused=True
        )
        # A second program for the uneven last batch is faster than one for any size.
        self._step = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def train(self) -> None:
        images, labels = self._train
        self._model.train()
        total = torch.zeros((), device=self._device)
        for rows in torch.randperm(len(images), device=self._device).split(self._batch_size):
            loss = self._step(images[rows], labels[rows])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.detach() * len(rows)
        total.item()

    def validate(self) -> None:
        self._model.eval()
        with torch.no_grad():
            self._loss(*self._validation).item()

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self._model(images.float() / 255), labels)

    def _resident(self, data: Images) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels).long()
        return images.to(self._device), labels.to(self._device)


def _network(case: Case) -> nn.Module:
    """Return the layers of `fmnist.network.build.build`, with Keras's constants."""
    stack: list[nn.Module] = [nn.Flatten()]
    width = 28 * 28
    for units, rate in zip(case.model.hidden, case.model.dropout_rates, strict=True):
        stack += [nn.Linear(width, units, bias=False), nn.BatchNorm1d(units, eps=1e-3, momentum=0.01)]
        stack += [nn.ReLU(), nn.Dropout(rate)]
        width = units
    return nn.Sequential(*stack, nn.Linear(width, CLASSES))
