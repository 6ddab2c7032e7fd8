"""Find, train and judge dense-only networks on Fashion-MNIST."""

__version__ = "0.1.0"
