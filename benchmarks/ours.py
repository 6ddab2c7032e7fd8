"""This project's own loop."""

import dataclasses

import numpy as np

from fmnist.data.dataset import TrainData
from fmnist.devices import Devices, choose
from fmnist.network.build import build
from fmnist.training.epoch import Program, resident

from .cases import Case
from .machine import bfloat16_units
from .worker import Unavailable


def devices_for(case: Case) -> Devices:
    """Return this machine's devices, in the case's precision.

    Raises:
        Unavailable: bfloat16 would be emulated.
    """
    devices = choose(precision=case.precision)
    if case.precision == "mixed_bfloat16" and not bfloat16_units(devices):
        raise Unavailable("no bfloat16 units here")
    return devices


@dataclasses.dataclass(frozen=True)
class _WithoutXla(Devices):
    @property
    def xla(self) -> bool:
        return False


class Fmnist:
    """As `fmnist.fit.Trainer` runs it: the images resident, a shuffle and one call an epoch."""

    def __init__(self, data: TrainData, case: Case, xla: bool = True) -> None:
        devices = devices_for(case)
        if not xla:
            devices = _WithoutXla(**dataclasses.asdict(devices))
        self._batch_size = case.training.batch_size
        self._random = np.random.default_rng(0)
        self._data = resident(data.train, devices)
        self._validation = resident(data.validation, devices)
        self._program = Program(case.model, case.training, devices)
        self._program.reset(case.model, case.training, build(case.model).get_weights(), seed=0)

    def train(self) -> None:
        order = self._random.permutation(self._data.size)
        self._program.train(self._data, order, self._batch_size, self._random)

    def validate(self) -> None:
        self._program.evaluate(self._validation)
