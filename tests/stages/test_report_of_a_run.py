"""Every curve that the report knows is fed by a real run's rows: a renamed key must not make a chart vanish."""

import json
from pathlib import Path

import finflow
from finflow.report.learning_curves import EXPERTS, FINETUNE, PRETRAIN

from .conftest import TINY, TUNE


def test_every_curve_occurs_in_the_rows_of_a_run(tmp_path: Path) -> None:
    market = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3", *TINY, f"output_root={tmp_path}"]
    first = finflow.pretrain(finflow.load("pretrain", market))
    second = finflow.finetune(finflow.load("finetune", [*market, *TUNE]))
    for path, wanted in ((first.metrics_path, PRETRAIN), (second.metrics_path, (*FINETUNE, *EXPERTS))):
        keys = {key for line in path.read_text().splitlines() for key in json.loads(line)}
        assert {curve.key for curve in wanted} <= keys
        assert {curve.validation for curve in wanted if curve.validation} <= keys
