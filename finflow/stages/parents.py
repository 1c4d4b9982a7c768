"""The pretrained weights that a fine-tuning of a configuration starts from, and those of each job of a sweep.

A sweep fixes the weights of its jobs when it begins, so that a pretraining that ends later changes no job.
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finflow.allocators.priors import EXPERTS
from finflow.artifacts.provenance import Parent, find_parent, parent_facts
from finflow.artifacts.runs import CONFIG, SUMMARY, command_for, under
from finflow.config.compose import PRESETS, from_yaml, load, parse_override
from finflow.data.market import Market, fold_dates, make_fold
from finflow.errors import ParentError
from finflow.io.files import flatten
from finflow.nn.networks import ObservationSpec
from finflow.schema import MARKS, Config, role_of
from finflow.schema.fields import MATCHED, Role, digest
from finflow.stages.prepare import load_market
from finflow.sweeps.folder import Pin, SweepFolder
from finflow.sweeps.plan import Job, Plan


def find_weights(config: Config, market: Market, weights: str) -> Parent:
    """`find_parent` of weights with the experts of phase 1, which a single expert is merged from, or with its own."""
    own = ObservationSpec.of(market, config.algo)
    dates = fold_dates(market, make_fold(market, config.env, config.fold))

    def find(experts: tuple[str, ...]) -> Parent:
        spec = replace(own, experts=experts)
        wanted = parent_facts(config, market.fingerprint, spec.to_dict(), dates)
        return find_parent(config.output_root, weights, wanted, lambda: command_for("pretrain", config))

    if own.experts != EXPERTS:
        with contextlib.suppress(ParentError):
            return find(own.experts)
    return find(EXPERTS)


def pin(stage: str, plan: Plan) -> dict[str, Pin]:
    """For each job by name: the weights that it starts from, or that its own weights are not published.

    Trials of one pretraining that differ in more than its key would replace each other as `latest`, so that phase 2
    would start from whichever ended last; they publish nothing.

    Raises
    ------
    ParentError
        If a job's weights are not there, with the command that makes those of all jobs.
    """
    if stage == "pretrain":
        trials = any(role_of(key) not in MATCHED for key in plan.swept)
        typed = any(text.startswith("init.publish=") for text in plan.fixed) or "init.publish" in plan.swept
        return {job.name: Pin({"init.publish": False}) for job in plan.jobs} if trials and not typed else {}
    found: dict[str, Pin | None] = {}
    markets: dict[str, Market] = {}
    for job in plan.jobs:
        key = _deciding(job)
        if key not in found:
            found[key] = _pin_one(load(stage, job.overrides), markets, plan)
    pins = {job.name: found[_deciding(job)] for job in plan.jobs}
    return {name: one for name, one in pins.items() if one is not None}


def _deciding(job: Job) -> str:
    """Those values of a job that decide which weights it starts from: of a sweep's, those of its own values."""
    typed = {one.key_or_group: str(one.value()) for one in map(parse_override, job.overrides)}
    folder = SweepFolder(Path(typed.get("init.weights", "latest")))
    theirs = folder.manifest().swept if folder.exists else {}
    return digest({k: v for k, v in job.values.items() if k in PRESETS or k in theirs or _decides(k)})


def _decides(key: str) -> bool:
    """Whether a key, or one of its section or group, decides what a job starts from."""
    return any(mark.role in MATCHED | {Role.INIT} for one, mark in MARKS.items() if under(one, (key,)))


def _pin_one(config: Config, markets: dict[str, Market], plan: Plan) -> Pin | None:
    if config.init.weights is None:
        return None
    market = digest([config.env.model_dump(), config.output_root])
    if market not in markets:
        markets[market] = load_market(config)
    source = _of_sweep(config) or config.init.weights
    try:
        parent = find_weights(config, markets[market], source)
    except ParentError as error:
        wanted = [key for key in plan.swept if role_of(key) in MATCHED and key != "seed"]
        if not wanted:
            raise
        reason, _, command = str(error).partition("; run: ")
        swept = shlex.join(f"{key}={','.join(plan.swept[key])}" for key in wanted)
        first = f"{', '.join(wanted)} is the parent's, so pretrain sweeps it first"
        raise ParentError(f"{reason}; {first}: {command} -m {swept}") from None
    folder = parent.weights.parent  # its summary holds the hash of the weights; else the file lies alone
    place = folder if (folder / SUMMARY).exists() else parent.weights
    return Pin({"init.weights": str(place)}, parent.sha256, parent.facts.get("seed"), markets[market].fingerprint)


def _of_sweep(config: Config) -> str | None:
    """Run folder of the job with this run's values in the sweep that `init.weights` names; None of another path."""
    folder = SweepFolder(Path(str(config.init.weights)))
    if not folder.exists:
        return None
    manifest, mine = folder.manifest(), flatten(config.model_dump())
    found = [job.name for job in manifest.jobs if _agrees(folder, job, list(manifest.swept), mine)]
    if len(found) != 1:
        wanted = ", ".join(f"{key}={mine.get(key, mine.get(f'{key}.name'))}" for key in manifest.swept)
        raise ParentError(
            f"init.weights={folder.path}: {len(found)} of its finished jobs have {wanted}; name a sweep that has one"
        )
    return str(folder.run_dir(found[0]))


def _agrees(folder: SweepFolder, job: Job, swept: Sequence[str], mine: Mapping[str, Any]) -> bool:
    """Whether a job is finished, and has the values of `mine` for all keys, or groups, that its sweep sweeps over."""
    if not (folder.run_dir(job.name) / SUMMARY).exists():
        return False
    theirs = flatten(from_yaml(folder.run_dir(job.name) / CONFIG).model_dump())
    names = [name for name in {**theirs, **mine} if under(name, tuple(swept))]
    return all(theirs.get(name) == mine.get(name) for name in names)
