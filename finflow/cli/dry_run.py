"""`sweep.dry_run=true`: what a sweep would cost, and nothing is run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finflow.artifacts.runs import command_for, override, typable
from finflow.config.compose import compose_stage, parse
from finflow.errors import ParentError
from finflow.schema import Config
from finflow.sweeps.cost import crossfit_of, told, work
from finflow.sweeps.folder import Pin
from finflow.sweeps.plan import Job, Plan


def is_dry_run(stage: str, plan: Plan, overrides: Sequence[str]) -> bool:
    """Whether `sweep.dry_run=true` was typed."""
    typed = [text for text in overrides if text.startswith("sweep.")]
    return bool(typed) and parse(compose_stage(stage, [*plan.jobs[0].overrides, *typed])).sweep.dry_run


def tell_cost(stage: str, plan: Plan, configs: Sequence[Config], names: Sequence[str]) -> None:
    """Say what the jobs that are left would take, and whether the weights that they would start from are missing."""
    wanted = [config for config in configs if config.init.weights is not None]
    pins, missing = dict[str, Pin](), ""
    if stage == "finetune" and wanted and names:
        if not Path(wanted[0].output_root).exists() and {config.init.weights for config in wanted} == {"latest"}:
            missing = f"init.weights=latest: nothing is published; run: {command_for('pretrain', wanted[0])}"
        else:
            from finflow.stages.pin_parents import pin

            try:
                pins = pin(stage, plan)
            except ParentError as error:
                missing = str(error)
    print(told(weighed(stage, plan, configs, names, pins)) if names else "Nothing to run")
    if missing:
        print(f"warning: the sweep would end at once: {typable(missing)}", file=sys.stderr)


def weighed(
    stage: str, plan: Plan, configs: Sequence[Config], names: Sequence[str], pins: Mapping[str, Pin]
) -> list[tuple[Config, int]]:
    """Jobs that are left, those with equally much to do together: one configuration of each kind, and their number.

    A cross-fitting that several jobs share counts with the first of them.

    configs : of the jobs in `Plan.near`, which show the keys that change how much there is to do.
    pins : of jobs whose weights to start from are known.
    """
    usual = work(configs[0])
    pairs = list(zip(plan.near, configs, strict=True))
    heavy = sorted({key for job, config in pairs if work(config) != usual for key in plan.departing(job)})
    alike = crossfit_of(configs[0])
    fitting = sorted({key for job, config in pairs if crossfit_of(config) != alike for key in plan.departing(job)})
    kinds, made = dict[tuple[bool | str, ...], list[Job]](), set[tuple[str, ...]]()
    for job in plan.jobs:
        fitted = tuple(job.values[key] for key in fitting)
        if job.name in names:
            shared = alike is not None and fitted in made
            own = () if shared else fitted  # the parent of each decides whether it has one of its own
            kinds.setdefault((shared, *(job.values[key] for key in heavy), *own), []).append(job)
        made.add(fitted)

    def config(job: Job, shared: bool) -> Config:
        pinned = pins[job.name].overrides if job.name in pins else {}
        found = parse(compose_stage(stage, [*job.overrides, *(override(k, v) for k, v in pinned.items())]))
        return found.model_copy(update={"confidence": "none"}) if shared else found

    return [(config(jobs[0], bool(shared)), len(jobs)) for (shared, *_), jobs in kinds.items()]
