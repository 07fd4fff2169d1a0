"""Golden file of decision rows: the draws of four presets never change by accident.

After a change that is meant to alter draws, raise LAWS_VERSION and run this file as a program.
"""

import csv
from pathlib import Path

import numpy as np

from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe_load import load_recipe

TABLE = Path(__file__).with_name("plan_golden.csv")
CASES = [
    # preset, seed, epoch, id, height, width
    ("dino(local_crops=6)", 0, 0, 0, 375, 500),
    ("dino(local_crops=6)", 2**64 - 1, 99, 2**40 + 3, 33, 500),
    ("gtsa(local_crops=4)", 1, 0, 1_281_166, 500, 333),
    ("gtsa(local_crops=4)", 1, 1, 1_281_166, 500, 333),
    ("selfie", 7, 3, 12, 32, 32),
    *(("dilo(paste=0.7)", 3, 1, id, 375, 500) for id in range(4)),
    ("dilo_v1(paste=1, background='texture')", 3, 2, 41, 500, 375),
    ("dilo_v1(paste=1, background='images')", 3, 2, 42, 500, 375),
]

# The table's header has the names that fields had when it was written.
FORMER_NAMES = {
    "ground": "background",
    "soft": "mask_sigma",
    "ground_y": "background_y",
    "ground_x": "background_x",
}


def drawn() -> list[list[str]]:
    lines = []
    for case in CASES:
        preset, seed, epoch, id, height, width = case
        rows = draw.draw(load_recipe(preset), seed, epoch, [id], [(height, width)]).rows[0]
        for view, row in enumerate(rows):
            lines.append([*map(str, (*case, view)), *map(str, row.item())])
    return lines


def test_draws_match_the_golden_file():
    with TABLE.open(newline="") as file:
        header, *golden = csv.reader(file)
    assert [FORMER_NAMES.get(name, name) for name in header[7:]] == list(ROW.names)
    for line, expected in zip(drawn(), golden, strict=True):
        assert line[:7] == expected[:7]
        for name, value, known in zip(ROW.names, line[7:], expected[7:], strict=True):
            assert np.isclose(float(value), float(known), rtol=1e-6, atol=0), (line[:7], name)


if __name__ == "__main__":
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        former = {new: old for old, new in FORMER_NAMES.items()}
        names = [former.get(name, name) for name in ROW.names]
        writer.writerow(["preset", "seed", "epoch", "id", "height", "width", "view", *names])
        writer.writerows(drawn())
