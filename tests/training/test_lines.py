"""The lines of a training's log."""

import logging

import pytest

from benchmarks.quick import validation_accuracy
from fmnist.devices import Devices
from fmnist.recipe import config
from fmnist.training import job


@pytest.mark.parametrize(
    ("epoch", "images", "seconds", "line"),
    [
        (6, 54_000, 1.234, "epoch  7/40  loss 0.491/0.448  accuracy 0.8240/0.8365  1.2 s  43,760 images/s"),
        (39, 54_000, 0.05, "epoch 40/40  loss 0.491/0.448  accuracy 0.8240/0.8365  0.05 s  1,080k images/s"),
        (0, 1000, 12.0, "epoch  1/40  loss 0.491/0.448  accuracy 0.8240/0.8365  12.0 s  83 images/s"),
    ],
)
def test_an_epoch_has_its_seconds_and_images_and_fits_a_terminal(
    caplog: pytest.LogCaptureFixture, epoch: int, images: int, seconds: float, line: str
) -> None:
    caplog.set_level(logging.INFO)
    figures = {"loss": 0.4911, "accuracy": 0.824, "val_loss": 0.4482, "val_accuracy": 0.8365}
    job.log_epochs(40, images)(epoch, figures, seconds, False)
    assert caplog.messages == [line]
    assert len(line) <= 80
    # By which `make bench` tells when a training is good enough.
    assert validation_accuracy(line) == 0.8365


def test_an_epoch_without_validation_has_the_training_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job.log_epochs(3, 100)(0, {"loss": 0.5, "accuracy": 0.8}, 1.0, False)
    assert caplog.messages == ["epoch 1/3  loss 0.500  accuracy 0.8000  1.0 s  100 images/s"]


@pytest.mark.parametrize(
    ("recipe", "precision", "end"),
    [
        ("quick-mlp", "float32", "float32, compiled by XLA"),
        ("quick-mlp", "mixed_bfloat16", "compiled by XLA; whitening, local contrast and output layer in float32"),
        ("baseline-mlp", "mixed_bfloat16", "compiled by XLA; output layer in float32"),
    ],
)
def test_the_first_line_says_what_the_model_computes_in(recipe: str, precision: str, end: str) -> None:
    line = job.device_line("train", config.load(recipe), 0, Devices("cpu", ("CPU:0",), precision, "A Processor"))
    assert " ".join(line.split()).startswith(f"train {recipe} (seed 0) on 1 CPU (A Processor), {precision}")
    assert " ".join(line.split()).endswith(end)
    assert max(map(len, line.splitlines())) < 80
