"""Search hyperparameters: a Keras Tuner oracle, the chief that drives it, and the workers that run its trials."""
