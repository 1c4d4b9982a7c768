import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finflow.artifacts.provenance import find_parent, parent_facts, publish_parent, weights_of
from finflow.config.compose import load
from finflow.errors import ParentError, StorageError
from finflow.io.files import atomic_json
from finflow.io.weights import save_weights
from finflow.schema import Config

Change = Callable[[dict[str, Any]], Any]
DATES = {
    "name": "2018",
    "train": ["1996-01-04", "2014-11-28"],
    "validation": ["2014-12-31", "2017-11-28"],
    "test": ["2018-01-02", "2022-12-28"],
}
SPEC = {"features": ["return", "rsi"], "market_features": ["breadth"]}


@functools.cache
def pretrain_config() -> Config:
    return load("pretrain")


def facts_of(change: Change | None = None) -> dict[str, Any]:
    facts = copy.deepcopy(parent_facts(pretrain_config(), "data0", SPEC, DATES))
    if change is not None:
        change(facts)
    return facts


def pretrain(root: Path, change: Change | None = None, name: str = "run", value: float = 1.0) -> Path:
    facts = facts_of(change)
    folder = root / "pretrain" / "iql" / name
    weights = folder / "weights.safetensors"
    sha256 = save_weights(weights, {"a": torch.full((3,), value)}, {"facts": facts})
    atomic_json(folder / "summary.json", {"weights_sha256": sha256})
    publish_parent(root, weights, sha256, facts)
    return folder


def refusal(root: Path, weights: str = "latest", change: Change | None = None) -> str:
    with pytest.raises(ParentError) as error:
        find_parent(root, weights, facts_of(change))
    text = str(error.value)
    assert text.startswith(f"init.weights={weights}: ")
    assert "\n" not in text
    assert text.endswith("; run: python experiments/pretrain.py")
    return text


def test_latest_is_found_checked_and_loaded(tmp_path: Path) -> None:
    folder = pretrain(tmp_path)
    parent = find_parent(tmp_path, "latest", facts_of())
    assert parent.weights == folder / "weights.safetensors"
    assert parent.tensors["a"].tolist() == [1, 1, 1]
    assert parent.facts == facts_of()
    assert parent.record(tmp_path)["sha256"] == parent.sha256
    json.dumps(parent.record(tmp_path))


def test_a_later_one_of_the_same_key_replaces_it(tmp_path: Path) -> None:
    pretrain(tmp_path)
    pretrain(tmp_path, name="second", value=2.0)
    assert find_parent(tmp_path, "latest", facts_of()).tensors["a"].tolist() == [2, 2, 2]


def test_each_seed_finds_its_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        pretrain(tmp_path, lambda f, seed=seed: f.update(seed=seed), f"s{seed}", float(seed))
    for seed in (0, 1):
        parent = find_parent(tmp_path, "latest", facts_of(lambda f, seed=seed: f.update(seed=seed)))
        assert parent.tensors["a"][0] == seed
        assert not parent.stand_in


@pytest.mark.parametrize("newest", [1, 2])
def test_without_its_own_seed_the_newest_stands_in(tmp_path: Path, newest: int) -> None:
    for seed in (3 - newest, newest):
        pretrain(tmp_path, lambda f, seed=seed: f.update(seed=seed), f"s{seed}", float(seed))
    next((tmp_path / "pretrain" / "latest").glob("*.json")).with_stem("00-s9").write_text("{")
    parent = find_parent(tmp_path, "latest", facts_of())
    assert parent.tensors["a"][0] == newest
    assert parent.facts["seed"] == newest
    assert parent.stand_in


def test_a_parent_is_found_again_from_another_folder_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    pretrain(Path("../out"))
    record = find_parent("../out", "latest", facts_of()).record("../out")
    monkeypatch.chdir(tmp_path)
    assert weights_of(record, "out").samefile("out/pretrain/iql/run/weights.safetensors")
    assert weights_of(record, "elsewhere").exists()  # by its absolute path
    Path("out").rename("moved")
    assert weights_of(record, "moved").exists()


def test_phase_2_wants_what_phase_1_gives_whatever_its_own_settings() -> None:
    wanted = parent_facts(
        load("finetune", ["seed=5", "market_regime=volatile", "algo.network.dropout=0.1"]), "data0", SPEC, DATES
    )
    keys = ("data_fingerprint", "feature_spec", "network", "fold", "budget")
    assert {k: wanted[k] for k in keys} == {k: facts_of()[k] for k in keys}


def test_output_root_can_be_moved(tmp_path: Path) -> None:
    pretrain(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert find_parent(tmp_path / "new", "latest", facts_of()).weights.is_relative_to(tmp_path / "new")


def test_weights_outside_the_output_root(tmp_path: Path) -> None:
    weights = tmp_path / "elsewhere" / "weights.safetensors"
    sha256 = save_weights(weights, {}, {"facts": facts_of()})
    publish_parent(tmp_path / "outputs", weights, sha256, facts_of())
    assert find_parent(tmp_path / "outputs", "latest", facts_of()).weights == weights


def test_nothing_published(tmp_path: Path) -> None:
    assert "nothing is published" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f["network"].update(hidden_dim=128), "network.hidden_dim=256 (newest has 128)"),
        (lambda f: f["budget"].update(epochs=8), "budget.epochs=20 (newest has 8)"),
        (lambda f: f["budget"].update(updates_per_epoch=60), "budget.updates_per_epoch=50 (newest has 60)"),
        (lambda f: f.update(fold="2008"), "fold='2018' (newest has '2008')"),
        (lambda f: f.update(data_fingerprint="other"), "data_fingerprint='data0' (newest has 'other')"),
        (lambda f: f["feature_spec"]["features"].pop(), "feature_spec.features.1='rsi' (newest has None)"),
    ],
)
def test_latest_names_the_field_that_differs(tmp_path: Path, change: Change, named: str) -> None:
    pretrain(tmp_path, change)
    text = refusal(tmp_path)
    assert f"no pretrained weights with {named};" in text


@pytest.mark.parametrize("field", ["seed", "algo"])
def test_what_is_not_in_the_key_does_not_matter(tmp_path: Path, field: str) -> None:
    pretrain(tmp_path, lambda f: f.update({field: "other"}))
    find_parent(tmp_path, "latest", facts_of())


def test_the_newest_candidate_speaks(tmp_path: Path) -> None:
    pretrain(tmp_path, lambda f: f["network"].update(hidden_dim=64), "near")
    pretrain(tmp_path, lambda f: (f.update(fold="2000"), f["network"].update(hidden_dim=128)), "new")
    (tmp_path / "pretrain" / "latest" / "zz.json").write_text("{")  # a damaged record hides nothing
    named = "network.hidden_dim=256 (newest has 128), fold='2018' (newest has '2000');"
    assert f"no pretrained weights with {named}" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("env.rebalance=weekly", "env.rebalance='weekly' (newest has 'daily')"),
        ("env.cash_yield=0.02", "env.cash_yield=0.02 (newest has 0.0)"),
        ("env.cash_yield=rates.csv", "env.cash_yield='file' (newest has 0.0)"),
        ("env.benchmark=own.csv", "env.benchmark='file' (newest has 'equal_weight')"),
        ("env.min_history=300", "env.min_history=300 (newest has "),
        ("env=csv", "env.source='csv' (newest has 'sp500'), env.start=None (newest has '1995-01-03')"),
    ],
)
def test_a_rule_that_differs_is_named_instead_of_the_fingerprint(tmp_path: Path, line: str, named: str) -> None:
    pretrain(tmp_path)
    config = load("finetune", [line, *(["env.path=p.csv"] if line == "env=csv" else [])])
    with pytest.raises(ParentError) as error:
        find_parent(tmp_path, "latest", parent_facts(config, "other data", SPEC, DATES))
    assert f"no pretrained weights with {named}" in str(error.value)
    assert "data_fingerprint" not in str(error.value)


def test_paths_stay_out_of_the_facts() -> None:
    config = load("pretrain", ["env=csv", "env.path=/secret/p.csv", "env.benchmark=/secret/b.csv"])
    assert "secret" not in json.dumps(parent_facts(config, "data0", SPEC, DATES))


def test_many_differences_stay_one_readable_line(tmp_path: Path) -> None:
    pretrain(tmp_path, lambda f: f.update(feature_spec={"features": [f"f{i}" for i in range(40)]}))
    text = refusal(tmp_path)
    assert "more" in text
    assert len(text) < 500


def test_published_but_gone(tmp_path: Path) -> None:
    (pretrain(tmp_path) / "weights.safetensors").unlink()
    assert "gone" in refusal(tmp_path)


def test_published_hash_is_checked(tmp_path: Path) -> None:
    folder = pretrain(tmp_path)
    save_weights(folder / "weights.safetensors", {"a": torch.zeros(3)}, {"facts": facts_of()})  # whole, but another
    for weights in ("latest", str(folder)):
        with pytest.raises(StorageError, match="SHA-256"):
            find_parent(tmp_path, weights, facts_of())


def test_damaged_record_of_this_key(tmp_path: Path) -> None:
    pretrain(tmp_path)
    record = next((tmp_path / "pretrain" / "latest").glob("*.json"))
    record.write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        find_parent(tmp_path, "latest", facts_of())


def test_only_what_was_saved_is_published(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_weights(weights, {}, {})
    with pytest.raises(StorageError, match="not what was saved"):
        publish_parent(tmp_path, weights, "0" * 64, facts_of())
    assert not (tmp_path / "pretrain").exists()


@pytest.mark.parametrize("file", ["", "weights.safetensors"])
def test_a_named_parent_may_differ_in_data_fold_and_budget(tmp_path: Path, file: str) -> None:
    def other(facts: dict[str, Any]) -> None:
        facts["budget"]["epochs"] = 1
        facts.update(data_fingerprint="other", fold="2013", train=["1996-01-04", "2009-11-30"])
        facts.update(validation=["2010-01-04", "2012-11-30"], test=["2013-01-02", "2017-12-29"])

    folder = pretrain(tmp_path, other)
    assert find_parent(tmp_path, str(folder / file), facts_of()).facts["fold"] == "2013"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f["network"].update(hidden_dim=128), "network.hidden_dim=128 where this run has 256"),
        (lambda f: f["feature_spec"].update(features=["x", "rsi"]), "feature_spec.features.0='x'"),
        (lambda f: f["train"].__setitem__(1, "2014-12-31"), "its train window ends 2014-12-31"),
        (lambda f: f["train"].__setitem__(1, "2030-01-01"), "validation starts 2014-12-31"),
        (lambda f: f["validation"].__setitem__(1, "2018-01-02"), "its validation window ends 2018-01-02"),
    ],
)
def test_a_named_parent_must_fit_and_not_have_peeked(tmp_path: Path, change: Change, named: str) -> None:
    assert named in refusal(tmp_path, str(pretrain(tmp_path, change)))


def test_the_day_before_is_no_peeking(tmp_path: Path) -> None:
    def close(facts: dict[str, Any]) -> None:
        facts["train"][1], facts["validation"][1] = "2014-12-30", "2018-01-01"

    find_parent(tmp_path, str(pretrain(tmp_path, close)), facts_of())


def test_paths_that_name_no_parent(tmp_path: Path) -> None:
    assert "no such run folder" in refusal(tmp_path, str(tmp_path / "none"))
    assert "not a finished training run" in refusal(tmp_path, str(tmp_path))
    foreign = tmp_path / "foreign.safetensors"
    save_weights(foreign, {}, {"facts": {"network": 3}})
    assert "does not say what it was trained on" in refusal(tmp_path, str(foreign))
    foreign.write_bytes(b"PK\x03\x04 a pickle of old")
    with pytest.raises(StorageError, match="not a weights file of FinFlow"):
        find_parent(tmp_path, str(foreign), facts_of())


def test_the_command_is_made_for_a_message_only(tmp_path: Path) -> None:
    def unwanted() -> str:
        raise AssertionError

    pretrain(tmp_path)
    find_parent(tmp_path, "latest", facts_of(), unwanted)
    with pytest.raises(ParentError, match=r"; run: make it so$"):
        find_parent(tmp_path, "latest", facts_of(lambda f: f.update(fold="x")), lambda: "make it so")
