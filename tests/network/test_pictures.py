"""What is drawn of a model's rights and wrongs."""

import numpy as np

from fmnist.network import pictures


def test_confusion_image_darkens_with_the_share_of_the_row() -> None:
    image = pictures.confusion_image(np.array([[1, 0, 0], [5, 5, 0], [0, 0, 0]]), ["Shirt", "Coat", "Bag"])
    assert image.shape == (232, 232, 3)
    assert image.dtype == np.uint8
    cells = image[100:, 100:]
    full, half, none = cells[0, 0], cells[44, 0], cells[0, 44]
    assert tuple(none) == (255, 255, 255)
    assert (full < half).all()
    assert (half < none).all()
    assert (cells[88:, ::43] == 255).all()


def test_confusion_image_has_names_and_counts() -> None:
    """Each of another text is drawn otherwise, and in its own place alone."""
    matrix, names = np.array([[8, 2], [3, 7]]), ["Shirt", "Coat"]
    before = pictures.confusion_image(matrix, names)

    def changed(matrix: np.ndarray, names: list[str]) -> list[tuple[int, int]]:
        rows, columns = np.nonzero((pictures.confusion_image(matrix, names) != before).any(axis=2))
        return sorted(
            {(int(row) // 44, int(column) // 44) for row, column in zip(rows - 100, columns - 100, strict=True)}
        )

    assert changed(2 * matrix, names) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    rows, columns = zip(*changed(matrix, ["Shirt", "Bag"]), strict=True)
    # Beside the second row, and above the second column.
    assert {(row, column) for row, column in zip(rows, columns, strict=True) if row >= 0} <= {(1, -1), (1, -2)}
    assert {column for row, column in zip(rows, columns, strict=True) if row < 0} == {1}


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
