"""Search, train and evaluate dense networks on Fashion-MNIST."""

__version__ = "0.1.0"
