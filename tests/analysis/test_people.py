"""Which images belong together, and how many people there are."""

import numpy as np
import pytest

from bayesdf.analysis.people import cluster_numbers, count_people, kinds_of_fake
from bayesdf.errors import BayesdfError


def test_images_of_one_subject_share_a_number_and_images_of_nobody_share_none():
    np.testing.assert_array_equal(cluster_numbers(["p", "", "q", None, "p", np.nan, ""], 7), [0, 1, 2, 3, 0, 4, 5])
    np.testing.assert_array_equal(cluster_numbers(None, 3), [0, 1, 2])
    with pytest.raises(BayesdfError, match="2 subjects given for 3 images"):
        cluster_numbers(["p", "q"], 3)


def test_people_are_subjects_and_donors():
    assert count_people(["p", "", "q"], ["r", None, "p"]) == 3 and count_people(["", "p", "p"]) == 1


def test_fakes_are_of_people_or_of_nobody():
    kinds = kinds_of_fake(["p", "p", "", "q"], ["real", "swap", "vae", "swap"])
    assert kinds["manipulations"].tolist() == [False, True, False, True]
    assert kinds["new_faces"].tolist() == [False, False, True, False]
    assert kinds_of_fake(["p", "p"], ["real", "swap"]) == {}
