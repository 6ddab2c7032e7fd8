"""What is drawn of a model's rights and wrongs."""

import numpy as np

from fmnist.network import pictures


def test_confusion_image_darkens_with_the_share_of_the_row() -> None:
    image = pictures.confusion_image(np.array([[1, 0, 0], [5, 5, 0], [0, 0, 0]]))
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    full, half, none = image[0, 0], image[32, 0], image[0, 32]
    assert tuple(none) == (255, 255, 255)
    assert (full < half).all()
    assert (half < none).all()
    assert (image[64:] == 255).all()


def test_the_most_confident_mistakes_come_first_and_no_right_answer_does() -> None:
    y_true = np.array([0, 0, 0, 0, 1])
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.3, 0.7], [0.0, 1.0]])
    assert pictures.confident_mistakes(y_true, probabilities, 2).tolist() == [2, 3]
    assert pictures.confident_mistakes(y_true, probabilities, 9).tolist() == [2, 3, 0]
    assert pictures.confident_mistakes(np.array([1]), np.array([[0.0, 1.0]]), 9).tolist() == []


def test_the_gallery_shows_each_image_three_times_its_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)
    sheet = pictures.gallery(images, np.zeros(8, int), np.ones(8, int), ["Shirt", "Coat"])
    seventh = sheet[128 : 128 + 84, :84, 0]
    assert (seventh[1::3, 1::3] == images[6]).all()
    assert sheet.shape[0] == 2 * 128
    assert (pictures.gallery(images[:0], np.zeros(0, int), np.zeros(0, int), []) == 255).all()
