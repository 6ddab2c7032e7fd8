"""The network of a one-cycle recipe as one would train it with stock Keras: `benchmarks.stock_recipe RECIPE [EPOCHS]`.

Shifts and mirror images are preprocessing layers, the schedule is CosineDecay with a warm-up, the loop `model.fit` on
NumPy arrays. What is not to be had there in a line is left out: whitening, local contrast, square roots, receptive
fields, L1 decay, last epochs without shifts. Without these it needs more epochs than the recipe.
"""

import dataclasses
import sys

import keras

from fmnist.data import dataset
from fmnist.network.build import build
from fmnist.recipe import config
from fmnist.recipe.schema import IMAGE_SHAPE

# With these, `quick-mlp`'s network reached 91% of the validation images in each run (docs/speed.md).
EPOCHS = 30
LEARNING_RATE = 4e-3


def main(name: str, epochs: int = EPOCHS) -> None:
    recipe = config.load(name)
    training, one_cycle = recipe.training, recipe.training.one_cycle
    assert one_cycle
    loaded = dataset.load_train(None, recipe.data)
    inputs = keras.Input(IMAGE_SHAPE)
    values = keras.layers.Reshape((*IMAGE_SHAPE, 1))(inputs)
    shift = training.augment.shift / IMAGE_SHAPE[0]
    values = keras.layers.RandomTranslation(shift, shift, fill_mode="constant", interpolation="nearest")(values)
    values = keras.layers.RandomFlip("horizontal")(values)
    values = keras.layers.Reshape(IMAGE_SHAPE)(values)
    plain = dataclasses.replace(
        recipe.model, square_root=False, whitening=None, local_contrast=None, receptive_field=None
    )
    for layer in build(plain).layers[1:]:
        values = layer(values)
    model = keras.Model(inputs, values)
    steps = epochs * -(-len(loaded.train) // training.batch_size)
    rising = int(one_cycle.warmup * steps)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - rising, warmup_target=LEARNING_RATE, warmup_steps=rising
            ),
            weight_decay=training.weight_decay,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        loaded.train.images,
        loaded.train.labels,
        batch_size=training.batch_size,
        epochs=epochs,
        validation_data=(loaded.validation.images, loaded.validation.labels),
        # A line an epoch.
        verbose=2,
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
