"""The importance of hyperparameters: what the score was made of is found, and nothing else."""

import numpy as np

from fmnist.report.importance import LEAST, importances

COUNT = 40


def search(count: int = COUNT) -> tuple[dict[str, list[str]], list[float]]:
    """Trials whose score depends on the optimizer, a little on the rate, on the epochs, and not on the width."""
    random = np.random.default_rng(0)
    rate = random.uniform(-4, -1, count)
    adam = random.random(count) < 0.5
    epochs = np.where(np.arange(count) % 4, 2, 15)
    scores = 0.7 + 0.1 * adam - 0.02 * abs(rate + 2.5) + 0.05 * (epochs > 2) + random.normal(0, 0.002, count)
    parameters = {
        "epochs": [str(value) for value in epochs],
        "width": [str(value) if value else "" for value in random.choice([0, 64, 128], count)],
        "rate": [str(10**value) for value in rate],
        "optimizer": ["adam" if value else "sgd" for value in adam],
    }
    return parameters, scores.tolist()


def test_what_the_score_was_made_of_is_found() -> None:
    found = importances(*search(), "epochs")
    assert found
    assert [row.name for row in found.rows][:2] == ["optimizer", "epochs"]
    rows = {row.name: row for row in found.rows}
    assert rows["optimizer"].mean > 2 * rows["optimizer"].deviation > 0
    assert abs(rows["width"].mean) < rows["width"].deviation
    assert found.error < found.guess / 2
    assert importances(*search(), "epochs") == found


def test_scores_of_chance_are_not_predicted() -> None:
    parameters, scores = search()
    found = importances(parameters, np.random.default_rng(1).normal(size=len(scores)).tolist(), "epochs")
    assert found
    assert found.error > 0.8 * found.guess
    assert all(abs(row.mean) < 2 * row.deviation for row in found.rows)


def test_few_configurations_tell_nothing_however_often_they_were_tried() -> None:
    parameters, scores = search(LEAST - 1)
    assert importances(parameters, scores, "epochs") is None
    again = {name: values * 3 for name, values in parameters.items()}
    again["epochs"] = [str(number) for number in range(3 * (LEAST - 1))]
    assert importances(again, scores * 3, "epochs") is None
    assert importances(*search(LEAST), "epochs") is not None
