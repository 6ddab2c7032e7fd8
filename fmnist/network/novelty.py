"""How unlike the images that a model has learned from another one is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from fmnist import arrays

LEAST_IMAGES = 1000
"""Of fewer training images nothing is said."""

_MOST_IMAGES = 10_000
_CHUNK = 10_000  # images
_COMPONENTS = 20
_GAUSSIANS = 20
# Of the held-back images; one in a hundred of those is further.
_LIMIT = 99.0
# Of a pixel's range. Those that are always black would else be infinitely far at the least grey.
_LEAST_DEVIATION = 0.02


class Novelty(NamedTuple):
    """A density of images, in two parts: a mixture of Gaussians of their first principal components, and the rest.

    The first knows the shapes of garments, the second a background that is not black, noise and texture.

    mean: float [784], of pixels from 0 to 1.
    components: float [k, 784], the principal ones.
    deviations: float [784], of what is left of each pixel.
    weights, means, factors: of the Gaussians, float [g], [g, k] and [g, k, k]; a factor times its transpose is the
        inverse of a covariance.
    typical, limit: float [2], the median and the 99th percentile of each part's distance over held-back images.
    """

    mean: np.ndarray
    components: np.ndarray
    deviations: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    typical: np.ndarray
    limit: np.ndarray

    def distance(self, images: np.ndarray) -> np.ndarray:
        """Return how far each image, uint8 [n, 28, 28], is: float64 [n], typically 0, above 1 for one in a hundred."""
        chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
        parts = np.concatenate([self._parts(chunk) for chunk in chunks])
        return ((parts - self.typical) / (self.limit - self.typical)).max(axis=1).astype(np.float64)

    def _parts(self, images: np.ndarray) -> np.ndarray:
        """Return the negative logarithm of the first part's density, but for a constant, and the second's distance."""
        from scipy.special import logsumexp

        pixels = _pixels(images) - self.mean
        coordinates = pixels @ self.components.T
        rest = (pixels - coordinates @ self.components) / self.deviations
        densities = [
            np.log(weight)
            + np.log(np.diag(factor)).sum()
            - ((coordinates - mean) @ factor) ** 2 @ np.full(len(mean), 0.5)
            for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True)
        ]
        return np.stack([-logsumexp(densities, axis=0), (rest**2).sum(axis=1)], axis=1)


def fit(train: np.ndarray, held_back: np.ndarray) -> Novelty:
    """Learn the density of training images, and the limit of held-back ones; both uint8 [n, 28, 28].

    In one thread: the number of threads changes how linear algebra rounds.
    """
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    chosen = np.random.default_rng(0).permutation(len(train))[:_MOST_IMAGES]
    with threadpool_limits(1):
        pixels = _pixels(train[chosen])
        principal = PCA(_COMPONENTS, random_state=0).fit(pixels)
        coordinates = principal.transform(pixels)
        mixture = GaussianMixture(_GAUSSIANS, reg_covar=0.01, tol=0.05, random_state=0).fit(coordinates)
        rest = pixels - principal.inverse_transform(coordinates)
        learned = Novelty(
            mean=principal.mean_,
            components=principal.components_,
            deviations=rest.std(axis=0) + _LEAST_DEVIATION,
            weights=mixture.weights_,
            means=mixture.means_,
            factors=mixture.precisions_cholesky_,
            typical=np.zeros(2),
            limit=np.ones(2),
        )
        typical, limit = np.percentile(learned._parts(held_back), [50, _LIMIT], axis=0)
    return learned._replace(typical=typical, limit=limit)


def save(path: Path, novelty: Novelty) -> None:
    """Write it to a file, atomically."""
    arrays.save(path, {name: array.astype(np.float32) for name, array in novelty._asdict().items()}, compress=True)


def load(path: Path) -> Novelty:
    """Read what `save` wrote.

    Raises:
        ValueError: the file is damaged.
        OSError: the system cannot read it; FileNotFoundError if it does not exist.
    """
    found = arrays.load(path)
    shapes = {
        "mean": (784,), "components": (_COMPONENTS, 784), "deviations": (784,), "weights": (_GAUSSIANS,),
        "means": (_GAUSSIANS, _COMPONENTS), "factors": (_GAUSSIANS, _COMPONENTS, _COMPONENTS), "typical": (2,),
        "limit": (2,),
    }  # fmt: skip
    if {name: array.shape for name, array in found.items()} != shapes:
        raise ValueError("it holds other arrays than those of a density")
    return Novelty(**found)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / np.float32(255)
