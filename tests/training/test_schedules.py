import pytest

from finflow.training.session import cosine, linear


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 2.0), (0.25, 1.75), (0.5, 1.5), (1.0, 1.0), (-1.0, 2.0), (1.5, 1.0)]
)
def test_linear_between_its_ends_and_flat_outside(progress: float, expected: float) -> None:
    assert linear([2.0, 1.0], progress) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1.0, 0.0), (1.5, 0.0)]
)
def test_cosine_falls_from_one_to_zero(progress: float, expected: float) -> None:
    assert cosine(progress) == pytest.approx(expected, abs=1e-12)
