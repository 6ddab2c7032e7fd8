"""A one-cycle recipe as one would write it with stock Keras: `python -m benchmarks.stock_recipe RECIPE`.

Shifts and mirror images are preprocessing layers, the schedule is CosineDecay with a warm-up, the loop `model.fit` on
NumPy arrays. What is not to be had there in a line is left out: whitening, square roots, receptive fields, L1 decay,
last epochs without shifts.
"""

import dataclasses
import sys

import keras

from fmnist.data import dataset
from fmnist.network.build import build
from fmnist.recipe import config
from fmnist.recipe.schema import IMAGE_SHAPE


def main(name: str) -> None:
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
    plain = dataclasses.replace(recipe.model, square_root=False, whitening=None, receptive_field=None)
    for layer in build(plain).layers[1:]:
        values = layer(values)
    model = keras.Model(inputs, values)
    steps = training.epochs * -(-len(loaded.train) // training.batch_size)
    rising = int(one_cycle.warmup * steps)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - rising, warmup_target=training.learning_rate, warmup_steps=rising
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
        epochs=training.epochs,
        validation_data=(loaded.validation.images, loaded.validation.labels),
        # A line an epoch.
        verbose=2,
    )


if __name__ == "__main__":
    main(sys.argv[1])
