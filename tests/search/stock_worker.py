"""A worker as Keras Tuner's own guide writes it, for a chief that it finds by Keras Tuner's environment variables."""

import sys

import keras
import keras_tuner
import numpy as np


def build(hp: keras_tuner.HyperParameters) -> keras.Model:
    layers = [
        keras.layers.Dense(hp.Int(f"model.units_{layer + 1}", 16, 64), activation="relu")
        for layer in range(hp.Int("model.layers", 1, 3))
    ]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.compile(
        optimizer=hp.Choice("training.optimizer", ["sgd", "adam"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.learning_rate = hp.Float("training.learning_rate", 1e-4, 1e-1, sampling="log")
    return model


random = np.random.default_rng(0)
images, labels = random.normal(size=(32, 4)), random.integers(2, size=32)
tuner = keras_tuner.RandomSearch(
    build, objective="val_accuracy", max_trials=99, directory=sys.argv[1], project_name="stock"
)
tuner.search(images, labels, validation_data=(images, labels), epochs=2, verbose=0)
