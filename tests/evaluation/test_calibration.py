"""Expected calibration error of a reward model's confidence: by hand, and beside accuracy in suites of pairs."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from ablate.data.json_lines import write_json_lines
from ablate.evaluation.calibration import calibration_error
from ablate.evaluation.graders.pairs import pairwise
from ablate.evaluation.grading import Evidence


def odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_worked_by_hand() -> None:
    # Bin 0.7-0.75: two pairs at 0.72, one right: |0.5 - 0.72| = 0.22. Bin 0.9-0.95: two at 0.92, both right: 0.08.
    margins = [odds(0.72), -odds(0.72), odds(0.92), odds(0.92)]
    assert calibration_error(margins) == pytest.approx((2 * 0.22 + 2 * 0.08) / 4)
    assert calibration_error([odds(0.6)]) == pytest.approx(0.4)
    assert calibration_error([-odds(0.6)]) == pytest.approx(0.6)


def test_edges() -> None:
    assert calibration_error([]) is None
    assert calibration_error([0.0, 0.0]) == 0.0  # a tie is a coin's toss, and it said so
    assert calibration_error([1000.0]) == pytest.approx(0.0)
    assert calibration_error([-1000.0]) == pytest.approx(1.0)


def test_margins_that_are_right_as_often_as_they_say_have_next_to_none() -> None:
    stream = random.Random(5)
    confidences = [stream.uniform(0.5, 0.999) for _ in range(20000)]
    calibrated = [odds(c) if stream.random() < c else -odds(c) for c in confidences]
    assert calibration_error(calibrated) < 0.02
    assert calibration_error([3 * margin for margin in calibrated]) > 0.1, "over-confident"
    assert calibration_error([margin / 5 for margin in calibrated]) > 0.1, "under-confident"


def row(name: str, chosen: float | None, rejected: float | None) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected, "chosen_length": 3, "rejected_length": 4}
    return {"id": name, "task": "t", "subset": "s", **sides}


def test_a_suite_of_pairs_has_it_beside_accuracy(tmp_path: Path) -> None:
    rows = [row("a", odds(0.72), 0.0), row("b", 0.0, odds(0.72)), row("c", 1 + odds(0.92), 1.0), row("d", None, 1.0)]
    write_json_lines(tmp_path / "scores.jsonl", rows)
    grades = pairwise(Evidence(tmp_path, tmp_path, {}, tmp_path / "scores.jsonl"), {"seed": 0})
    found = {metric.metric: metric for metric in grades.metrics}
    assert found["accuracy"].value == pytest.approx(2 / 4)
    assert found["calibration_error"].value == pytest.approx((2 * 0.22 + 0.08) / 3)
    assert (found["calibration_error"].n, found["calibration_error"].task) == (3, "overall")
    assert 0 < found["calibration_error"].stderr < 1
