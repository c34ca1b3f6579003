import numpy as np
import pytest

from bayesdf.faces import SIZE, TEMPLATE, photographs, similarity_transform, warp


def test_similarity_recovers_a_known_transform() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(5, 2)) * 20
    angle, scale, shift = 0.4, 1.7, np.array([5.0, -3.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity_transform(points, scale * points @ rotation.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([scale * rotation, shift]), atol=1e-12)


def test_similarity_does_not_mirror() -> None:
    points = TEMPLATE - TEMPLATE.mean(0)
    matrix = similarity_transform(points, points * [-1.0, 1.0])
    assert np.linalg.det(matrix[:, :2]) > 0


def test_warp_by_the_identity_changes_nothing() -> None:
    image = np.random.default_rng(0).uniform(size=(SIZE, SIZE))
    np.testing.assert_allclose(warp(image, np.eye(2, 3)), image, atol=1e-10)


def test_warp_moves_a_point_where_the_matrix_says() -> None:
    image = np.zeros((80, 70))
    image[30, 20] = 1.0
    matrix = np.array([[1.0, 0.0, 7.0], [0.0, 1.0, -4.0]])
    y, x = np.unravel_index(warp(image, matrix).argmax(), (SIZE, SIZE))
    assert (x, y) == (27, 26)


def test_shrinking_does_not_alias() -> None:
    stripes = np.tile([0.0, 1.0], (200, 100))
    shrunk = warp(stripes, np.array([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]]))
    assert np.abs(shrunk[10:50, 10:50] - 0.5).max() < 0.1


def test_photographs_are_ten_of_each_of_forty_people() -> None:
    faces = photographs()
    assert faces.images.shape == (400, SIZE, SIZE) and faces.images.dtype == np.float32
    assert np.unique(faces.subject, return_counts=True)[1].tolist() == [10] * 40
    assert len(set(faces.name.tolist())) == 400
    assert 0.0 <= faces.images.min() < 0.1 and 0.9 < faces.images.max() <= 1.0


def test_landmarks_lie_near_the_template() -> None:
    distance = np.linalg.norm(photographs().landmarks - TEMPLATE, axis=-1)
    assert distance.mean() < 3.0


def test_aligned_people_look_more_like_themselves_than_like_others() -> None:
    """Fails when landmarks and photographs are paired wrongly."""
    faces = photographs()
    flat = faces.images.reshape(400, -1) - faces.images.reshape(400, -1).mean(1, keepdims=True)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    likeness = flat @ flat.T
    same = faces.subject[:, None] == faces.subject
    np.fill_diagonal(likeness, np.nan)
    assert np.nanmean(likeness[same]) > np.nanmean(likeness[~same]) + 0.15


def test_shared_arrays_cannot_be_spoilt() -> None:
    with pytest.raises(ValueError, match="read-only"):
        photographs().images[0] = 0
