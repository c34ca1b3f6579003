"""An audit of how files were written: true give-aways are found, chance is not taken for one."""

import numpy as np
import pandas as pd
import pytest

from bayesdf.data.audit import FALSE_ALARMS, audit


def written(
    rng: np.random.Generator, people: int, *, sources: int = 3, each: int = 1, alike: bool = False
) -> pd.DataFrame:
    """Files of random size and format: of each image, or (`alike`) of each person and source."""
    names = ["real", *(f"gan{n}" for n in range(sources - 1))]
    rows = [(source, f"p{person}") for source in names for person in range(people) for _ in range(each)]
    frame = pd.DataFrame(rows, columns=["source", "subject"])
    unit = pd.factorize(frame["subject"])[0] if alike else np.arange(len(frame))
    count = unit.max() + 1
    return frame.assign(
        format=rng.choice(["PNG", "JPEG"], count)[unit],
        mode="RGB",
        width=rng.integers(60, 120, count)[unit],
        height=rng.integers(60, 120, count)[unit],
        jpeg_quality=rng.choice([0.0, 75.0, 90.0], count)[unit],
    )


@pytest.mark.parametrize("people", [6, 20])
@pytest.mark.parametrize("alike", [False, True])
def test_chance_is_taken_for_a_give_away_as_rarely_as_stated(people: int, alike: bool) -> None:
    """Judged on the files that taught it, the rule found something in 12 of 50 sets."""
    alarms = sum(
        bool(audit(written(np.random.default_rng([n, people]), people, each=2, alike=alike))) for n in range(40)
    )
    # Three standard errors over the stated rate.
    assert alarms <= 40 * FALSE_ALARMS + 3 * np.sqrt(40 * FALSE_ALARMS * (1 - FALSE_ALARMS))


def png_fakes(rows: pd.DataFrame) -> None:
    rows["format"] = np.where(rows["source"] == "real", "JPEG", "PNG")


def squares(rows: pd.DataFrame) -> None:
    rows.loc[rows["source"] != "real", ["width", "height"]] = 100


def larger(rows: pd.DataFrame) -> None:
    rows.loc[rows["source"] == "real", ["width", "height"]] += 60


def compressed(rows: pd.DataFrame) -> None:
    rows.loc[rows["source"] == "real", "jpeg_quality"] = 82.0


def one_generator(rows: pd.DataFrame) -> None:
    rows.loc[rows["source"] == "gan1", "mode"] = "L"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (png_fakes, "format tells real from fake"),
        (squares, "size tells real from fake"),
        (larger, "size tells real from fake"),
        (compressed, "JPEG quality tells real from fake"),
        (one_generator, "colour mode tells 'gan0' from the other fakes"),
    ],
)
def test_what_gives_the_source_away_is_found(change: object, said: str) -> None:
    for seed in range(5):
        rows = written(np.random.default_rng(seed), 10, each=2)
        change(rows)  # type: ignore[operator]
        assert any(said in finding for finding in audit(rows)), seed


@pytest.mark.parametrize("people", [5, 8, 3000])
def test_few_people_and_many_are_audited(people: int) -> None:
    """A photograph and a fake of each of five people suffice where the format tells them."""
    rows = written(np.random.default_rng(0), people, sources=2)
    png_fakes(rows)
    assert "balanced accuracy 1.00" in audit(rows.assign(jpeg_quality=0.0, width=64, height=64))[0]


def test_people_of_one_kind_are_dealt_as_wholes() -> None:
    """Photographs of some people and new faces: one camera a person is no give-away, however many images there are."""
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        camera = rng.integers(2, size=12)
        people = pd.DataFrame({"subject": np.repeat([f"p{n}" for n in range(12)], 20), "format": np.repeat(camera, 20)})
        people["source"] = np.where(people["subject"].isin([f"p{n}" for n in range(6)]), "real", "gan")
        alarms += bool(audit(people.assign(mode="L", width=64, height=64, jpeg_quality=0.0)))
    assert alarms <= 5
