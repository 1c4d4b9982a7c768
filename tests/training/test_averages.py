import math

import pytest
import torch

from finflow.errors import DivergedError
from finflow.training.session import Averages


def test_means_over_the_updates_that_have_a_metric() -> None:
    averages = Averages()
    averages.add({"critic_loss": torch.tensor(1.0)})
    averages.add({"critic_loss": torch.tensor(3.0), "actor_loss": torch.tensor(-5.0)})
    assert averages.means("here") == {"critic_loss": 2.0, "actor_loss": -5.0}


def test_metrics_that_are_handed_in_stay_as_they_are() -> None:
    averages, value = Averages(), torch.tensor(1.0)
    averages.add({"loss": value})
    averages.add({"loss": value})
    assert float(value) == 1.0


def test_nothing_yet_is_no_figure() -> None:
    assert Averages().means("here") == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_named(bad: float) -> None:
    averages = Averages()
    averages.add({"v_loss": torch.tensor(1.0), "q_loss": torch.tensor(bad)})
    averages.add({"v_loss": torch.tensor(1.0), "q_loss": torch.tensor(0.0)})
    with pytest.raises(DivergedError, match=r"^episode 3: q_loss is not finite; lower algo\.lr") as caught:
        averages.means("episode 3")
    assert "v_loss" not in str(caught.value)
    assert caught.value.exit_code == 5
