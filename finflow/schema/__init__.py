"""The types of the configuration: sections without defaults, since each value stands once, in `conf/`."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from finflow.errors import ConfigError
from finflow.plugins import Kind, added, unknown
from finflow.schema import fields, sections
from finflow.schema.fields import Added, Count, Day, NotWith, OnlyWith, Positive, ReadBy, Role, Schema, Text

Stage = Literal[
    "pretrain", "finetune", "collect", "evaluate", "judge", "look", "decide", "explain", "export", "sweep", "dashboard"
]
STAGES: tuple[str, ...] = get_args(Stage)
OnlineSelection = Literal["eg", "ons", "anticor", "pamr", "cwmr", "olmar", "rmr"]

_TRAINING = ReadBy("pretrain", "finetune")
_EVERY_STAGE = ReadBy(*STAGES)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _resume(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is not True and not (isinstance(value, str) and value):
        raise ValueError("should be true, a run folder, a checkpoint, or null")
    return value


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Annotated[Stage, Role.METHOD, _EVERY_STAGE]
    """Set by the entry point."""
    plugins: Annotated[
        list[Text],
        BeforeValidator(_as_list),
        Role.STUDY,
        ReadBy("pretrain", "finetune", "collect", "look", "judge"),
        Added(),
    ]
    """Modules, or installed plugins, that add algorithms, networks, features, sources or trackers."""
    name: Annotated[
        str,
        BeforeValidator(fields.number_as_text),
        Field(pattern=r"^\w[\w.+-]*$", max_length=80),
        Role.NAME,
        ReadBy("pretrain", "finetune", "collect", "judge"),
    ]
    """Name of the run, a part of its folder's."""
    seed: Annotated[int, Field(ge=0, lt=2**63), Role.DATA, ReadBy("pretrain", "finetune", "collect", "judge")]
    """Every random draw follows from it."""
    fold: Annotated[Text, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "judge")]
    """Which test window; auto is the last there is, and the embedded prices know 2000, 2008, 2013 and 2018."""
    output_root: Annotated[Text, Role.OUTPUT, _EVERY_STAGE]
    """Folder that everything is written under."""
    run: Annotated[Text | Annotated[list[Text], Field(min_length=1)], Role.REQUEST, ReadBy(*sections.FOLLOWING)]
    """Run to judge: latest, a run folder, several as [DIR,DIR], or a sweep's folder for all of its jobs."""
    audit: Annotated[bool, Role.REQUEST, ReadBy("evaluate")]
    """Look for leaks in data, features and fold; the test window stays shut."""
    sectors: Annotated[Text | None, Role.REQUEST, ReadBy("evaluate"), NotWith("audit")]
    """A CSV `ticker,sector`; the report then attributes the active return to sectors. null: no such table."""
    baselines: Annotated[list[OnlineSelection], Role.REQUEST, ReadBy("evaluate", "judge"), NotWith("audit"), Added()]
    """Algorithms of online portfolio selection beside the baselines, say [olmar,anticor]; needs the extra `olps`."""
    weights: Annotated[Text | None, Role.REQUEST, ReadBy("judge")]
    """A CSV `date,ticker,...` of a strategy's weights, decided at the close of the date; see docs/judge.md."""
    returns: Annotated[Text | None, Role.REQUEST, ReadBy("judge")]
    """A CSV `date,return` of a strategy's returns, taken as given."""
    holdings: Annotated[Text | None, Role.REQUEST, ReadBy("decide")]
    """A CSV `ticker,shares` or `ticker,weight` of what is held, with a row CASH; null: `capital` in cash."""
    capital: Annotated[Positive | None, Role.REQUEST, ReadBy("decide")]
    """Money that weights are turned into shares with; without `holdings` it is cash that is invested."""
    min_trade: Annotated[float, Field(ge=0, lt=1), Role.REQUEST, ReadBy("decide")]
    """Smallest trade that is ordered, a fraction of net asset value."""
    lot: Annotated[Positive, Role.REQUEST, ReadBy("decide"), OnlyWith("capital", "holdings")]
    """Shares that are traded together; 1: whole shares."""
    date: Annotated[
        Day | Annotated[list[Day], Field(min_length=2, max_length=2)] | None, Role.REQUEST, ReadBy("explain")
    ]
    """A day, or [first,last]; null: the test window."""
    top: Annotated[Count | None, Role.REQUEST, ReadBy("explain")]
    """As many of the largest trades; null: every day of `date`, or the largest trade."""
    ticker: Annotated[Text | None, Role.REQUEST, ReadBy("explain")]
    """A name whose holding is explained: why its weight is what it is; without `date` or `top` at the newest close."""
    episodes: Annotated[Count, Role.REQUEST, ReadBy("collect")]
    """Episodes that are collected."""
    out: Annotated[Text, Role.REQUEST, ReadBy("collect", "export")]
    """File to write: collected data, or the policy as ONNX."""
    dir: Annotated[Text, Role.COMMAND, ReadBy("sweep")]
    """Sweep to read: latest, or its folder."""
    confidence: Annotated[Literal["none", "validation", "crossfit"], Role.METHOD, _TRAINING]
    """Evidence that decides how much of a policy's tilt is deployed; none: all of it."""
    budget: Annotated[sections.Budget, Role.STUDY, _TRAINING]
    reward: Annotated[sections.Reward, Role.METHOD, _TRAINING]
    init: Annotated[sections.Init, Role.INIT, _TRAINING]
    offline: Annotated[sections.Offline, Role.STUDY, _TRAINING]
    checkpoint: Annotated[sections.Checkpoint, Role.SAVING, _TRAINING]
    resume: Annotated[Literal[True] | str | None, BeforeValidator(_resume), Role.COMMAND, _TRAINING]
    """Go on with an interrupted run: true for the newest of the same settings, a run folder, or one checkpoint."""
    evaluation: Annotated[sections.Evaluation, Role.METHOD, _TRAINING, NotWith("audit")]
    sweep: Annotated[sections.Sweep, Role.COMMAND, _TRAINING]
    market_regime: Annotated[sections.MarketRegime, Role.METHOD, _TRAINING]
    env: Annotated[sections.Env, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "judge")]
    hardware: Annotated[sections.Hardware, Role.HOST, _TRAINING]
    tracking: Annotated[sections.Tracking, Role.TRACKING, ReadBy("pretrain", "finetune", "dashboard")]
    monitor: Annotated[sections.MonitorConfig, Role.METHOD, _TRAINING]
    algo: Annotated[sections.AnyAlgorithm, Role.METHOD, _TRAINING]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        """What a plugin adds is known where `plugins` names it: a run's configuration carries all it needs."""
        named: tuple[tuple[str, list[str], tuple[str, ...], Kind], ...] = (
            ("algo.name", [self.algo.name], _OWN_ALGORITHMS, "algorithms"),
            ("algo.network.kind", [self.algo.network.kind], ("portfolio", "mlp"), "networks"),
            ("env.source", [self.env.source], sections.OWN_SOURCES, "sources"),
            ("env.features", self.env.features, (), "features"),
            ("tracking.sinks", self.tracking.sinks, (), "trackers"),
        )
        for key, names, own, kind in named:
            theirs = added(kind, self.plugins)
            for name in names:
                if name not in own and name not in theirs:
                    raise ConfigError(unknown(key, name, [*own, *theirs]))
            if both := theirs.keys() & {*own}:
                raise ConfigError(f"plugins: {min(both)} of {kind} is FinFlow's own; give it another name")
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        """A memory smaller than a batch would never be learnt from; one of few days would cut its episodes' links.

        A target that is cut off whole is none.
        """
        if isinstance(self.algo, sections.ValueGradients) and self.algo.horizon > self.env.episode_days:
            raise ConfigError(
                f"algo.horizon={self.algo.horizon}: longer than an episode; at most env.episode_days="
                f"{self.env.episode_days}"
            )
        if isinstance(self.algo, sections.OnlineAlgorithm):
            least = max(self.algo.batch_size, 2 * self.env.num_envs)
            if self.algo.buffer_size < least:
                raise ConfigError(
                    f"algo.buffer_size={self.algo.buffer_size}: should be at least {least}"
                    " (algo.batch_size, and twice env.num_envs)"
                )
            dropped, atoms = self.algo.top_quantiles_dropped, self.algo.network.n_quantiles
            if dropped is not None and dropped >= atoms:
                raise ConfigError(
                    f"algo.top_quantiles_dropped={dropped}: should be below algo.network.n_quantiles={atoms}"
                )
        return self


_PHASES: Mapping[str, tuple[type[Schema], ...]] = {
    "pretrain": (sections.OfflineCritic, sections.DirectConfig),
    "finetune": (sections.OnlineAlgorithm,),
}
"""What the settings of a stage's algorithms derive from."""


def _named(*phase: type[Schema]) -> tuple[str, ...]:
    """Names of the algorithms whose settings derive from `phase`, in the order of the union."""
    members = (cls for cls in get_args(get_args(sections.Algorithm)[0]) if issubclass(cls, phase))
    return tuple(name for cls in members for name in get_args(cls.model_fields["name"].annotation))


ALGORITHMS: Mapping[str, tuple[str, ...]] = {stage: _named(*phase) for stage, phase in _PHASES.items()}
"""FinFlow's algorithms of each training stage; the first is the default."""
_OWN_ALGORITHMS = tuple(name for names in ALGORITHMS.values() for name in names)


def algorithms_of(stage: str) -> tuple[str, ...]:
    """Algorithms of a training stage, those of loaded plugins too; a ConfigError where one's settings are not."""
    theirs: dict[str, type[Schema]] = {name: cls for name, (cls, _) in added("algorithms").items()}
    for name, cls in theirs.items():
        if not issubclass(cls, tuple(base for phase in _PHASES.values() for base in phase)):
            bases = ", ".join(base.__name__ for phase in _PHASES.values() for base in phase)
            raise ConfigError(f"plugins: {name}: derive the class of its settings from one of {bases}")
    return (*ALGORITHMS[stage], *(name for name, cls in theirs.items() if issubclass(cls, _PHASES[stage])))


MARKS: fields.Marks = fields.marks_of(Config)
"""What each key and section is to a run, and who reads it."""

READS: Mapping[str, tuple[str, ...]] = {
    stage: fields.keys_where(MARKS, lambda mark, stage=stage: stage in mark.read_by) for stage in STAGES
}
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""

IDLE: Mapping[str, tuple[str, ...]] = {
    switch: fields.keys_where(MARKS, lambda mark, switch=switch: mark.not_with == switch)
    for switch in {mark.not_with for mark in MARKS.values() if mark.not_with is not None}
}
"""A switch -> what its stage reads only where it is off: typed beside it, these keys are refused."""

RENAMED: Mapping[str, str] = {
    ".".join([*key.split(".")[:-1], mark.was]): key for key, mark in MARKS.items() if mark.was is not None
}
"""A key's name in the version before -> its name."""

ADDED: Mapping[str, tuple[str, ...]] = {key: mark.added for key, mark in MARKS.items() if mark.added is not None}
"""A key that the version before did not know -> the value that its runs had in effect."""

GROWS: Mapping[str, str] = {mark.grows: key for key, mark in MARKS.items() if mark.grows is not None}
"""A training stage -> what a resumed run of it may be given more of."""


def part_of(values: Mapping[str, Any], roles: Collection[Role], section: str = "") -> dict[str, Any]:
    """Those of the nested `values` of a configuration, or of its `section`, that have one of `roles`, nested too."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{section}.{name}" if section else name
        if isinstance(value, dict):
            found |= {name: inside} if (inside := part_of(value, roles, key)) else {}
        elif role_of(key) in roles:
            found[name] = value
    return found


def role_of(key: str) -> Role | None:
    """Role of a key or section; None where there is no such key."""
    mark = MARKS.get(key)
    if mark is None:
        theirs = (_marks(cls) for cls, _ in added("algorithms").values())
        mark = next((marks[key] for marks in theirs if key in marks), None)
    return None if mark is None else mark.role


@cache
def _marks(algorithm: type[Schema]) -> fields.Marks:
    """Marks of the settings of a plugin's algorithm."""
    return fields.marks_of(algorithm, "algo.", MARKS["algo"])
