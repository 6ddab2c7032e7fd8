"""The hyperparameter search: a Keras Tuner oracle, the chief that drives it, the workers that run its trials."""
