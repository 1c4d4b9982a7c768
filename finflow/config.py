"""Typed configuration: schemas without defaults, and the only reader of Hydra and OmegaConf.

Values live in `conf/`, once. `parse` turns a composed config into frozen objects and refuses, in one line that
names the key, the value and the choices, whatever the schema does not know. Nothing after it sees OmegaConf.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from finflow.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
STAGES = ("pretrain", "finetune", "evaluate", "collect", "decide")


class Schema(BaseModel):
    """Base of every section: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _calendar_day(value: str) -> str:
    try:
        written = date.fromisoformat(value).isoformat()
    except ValueError:
        written = ""
    if written != value:
        raise ValueError("not a calendar day; write it as YYYY-MM-DD")
    return value


def _number_as_text(value: Any) -> Any:
    """`fold=2008` arrives as a number; where text is asked for, it is the text that was typed."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Discount = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, BeforeValidator(_number_as_text), Field(min_length=1)]
Day = Annotated[str, AfterValidator(_calendar_day)]
Schedule = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
"""Value at the start and at the end of training; linear between them."""


class Budget(Schema):
    """How much work a run does; `experiment=demo` shrinks these."""

    collect_episodes: Count
    epochs: Count
    updates_per_epoch: Count | None
    episodes: Count
    frozen_episodes: Annotated[int, Field(ge=0)]
    critic_updates: Annotated[int, Field(ge=0)]
    refit_updates: Annotated[int, Field(ge=0)]


class Reward(Schema):
    """Weights of the reward's terms; the lambdas multiply raw fractions a day (see `envs/reward.py`)."""

    lambda_cvar: NonNegative
    lambda_turn: NonNegative
    lambda_dd: NonNegative


class MarketRegime(Schema):
    """One market regime: its label and the values that the training guide gives it."""

    name: Literal["all", "stable", "normal", "volatile", "crisis"]
    alpha_init: Positive
    cql_alpha: NonNegative
    lambda_cvar: NonNegative
    lambda_turn: NonNegative


class Limits(Schema):
    """Rules of a desk, applied by the ledger; `null` switches a rule off."""

    max_weight: Annotated[float, Field(gt=0, le=1)] | None
    min_cash: Annotated[float, Field(ge=0, lt=1)]
    no_trade_band: NonNegative
    max_turnover: Positive | None


class Synthetic(Schema):
    """A regime-switching market with a planted signal of information coefficient `ic` (0: none)."""

    days: Annotated[int, Field(ge=1300)]
    assets: Annotated[int, Field(ge=2)]
    ic: Annotated[float, Field(ge=0, lt=1)]
    persistence: Annotated[float, Field(ge=0, lt=1)]
    seed: int


class Env(Schema):
    """Where prices come from, and how a portfolio of them is accounted for."""

    source: Literal["sp500", "csv", "synthetic"]
    path: Text | None
    start: Day | None
    delist_return: Annotated[float, Field(ge=-1)]
    min_history: Annotated[int, Field(ge=22)]
    stale_run: Annotated[int, Field(ge=2)]
    split_jump: Annotated[float, Field(gt=0)]
    cost_bps: NonNegative
    slippage_bps: NonNegative
    cash_yield: float | Text
    benchmark: Text
    rebalance: Literal["daily", "weekly", "monthly"]
    episode_days: Annotated[int, Field(ge=21)]
    parallel: Count
    limits: Limits
    synthetic: Synthetic | None

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        """Keys that belong to one source are asked for there and refused elsewhere."""
        if self.source == "csv" and self.path is None:
            raise ConfigError("env.path: env=csv needs the file of prices; write env.path=prices.csv")
        if self.source != "csv" and self.path is not None:
            raise ConfigError(f"env.path={self.path}: env={self.source} does not read it; add env=csv or leave it out")
        if (self.source == "synthetic") != (self.synthetic is not None):
            raise ConfigError("env.synthetic: belongs to env=synthetic alone; choose that env or leave its keys out")
        return self

    @property
    def cost_rate(self) -> float:
        """Cost of a traded unit of notional, as a fraction."""
        return (self.cost_bps + self.slippage_bps) / 1e4


class Network(Schema):
    """Shape of the networks; shared by both phases, since phase 2 loads what phase 1 learnt."""

    embed_dim: Count
    hidden_dim: Count
    n_quantiles: Annotated[int, Field(ge=2)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    state_noise: NonNegative


class IQL(Schema):
    """Implicit Q-learning (Kostrikov et al. 2021); `beta` is what the training guide calls temperature."""

    name: Literal["iql"]
    lr: Positive
    actor_lr: Positive
    critic_lr: Positive
    grad_clip: Positive
    batch_size: Count
    gamma: Discount
    tau: Annotated[float, Field(gt=0, le=1)]
    expectile: Discount
    beta: NonNegative
    weight_cap: Positive
    normalise_advantage: bool
    relabel_fraction: Fraction
    network: Network


class CQL(Schema):
    """Conservative Q-learning (Kumar et al. 2020) in phase 2."""

    alpha: NonNegative
    n_actions: Count
    batch_fraction: Annotated[float, Field(gt=0, le=1)]
    anneal: Schedule
    calibrate: bool


class Entropy(Schema):
    """Entropy target, written as the standard deviation of a logit that has just that entropy."""

    sigma: Schedule


class Gate(Schema):
    """Gate over the experts, and what keeps it from collapsing onto one."""

    temperature: Schedule
    balance: Schedule
    expert_dropout: Annotated[float, Field(ge=0, lt=1)]
    lr_ratio: Positive


class BCell(Schema):
    """B-Cell: five experts under a gate, distributional SAC with CQL."""

    name: Literal["bcell"]
    lr: Positive
    actor_lr: Positive
    critic_lr: Positive
    grad_clip: Positive
    batch_size: Count
    gamma: Discount
    tau: Annotated[float, Field(gt=0, le=1)]
    alpha_init: Positive
    expectile: Discount
    risk_weight: Fraction
    risk_level: Annotated[float, Field(gt=0, le=1)]
    relabel_fraction: Fraction
    offline_fraction: Schedule
    memory_capacity: Count
    anchor: Schedule
    entropy: Entropy
    gate: Gate
    cql: CQL
    network: Network


class Hardware(Schema):
    """Where tensors live and how many threads work on them."""

    device: Literal["auto", "cpu"]
    threads: Annotated[int, Field(ge=1, le=1024)]


class Tracking(Schema):
    """Sinks beside `metrics.jsonl`, which is always written."""

    tensorboard: bool


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch)."""

    weights: Text | None


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    bootstrap_fraction: Fraction


class Evaluation(Schema):
    """Validation during training, and the verdict's bootstrap."""

    every_epochs: Count
    every_episodes: Count
    objective: Literal["sharpe", "active_ir"]
    bootstrap_samples: Annotated[int, Field(ge=100)]
    block_days: Count


class Config(Schema):
    """Root of every stage's configuration."""

    stage: Literal["pretrain", "finetune", "evaluate", "collect", "decide"]
    name: Annotated[str, BeforeValidator(_number_as_text), Field(pattern=r"^\w[\w.+-]*$", max_length=80)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    fold: Text
    output_root: Text
    run: Text | Annotated[list[Text], Field(min_length=1)]
    episodes: Count
    out: Text
    budget: Budget
    reward: Reward
    init: Init
    offline: Offline
    evaluation: Evaluation
    market_regime: MarketRegime
    env: Env
    hardware: Hardware
    tracking: Tracking
    algo: Annotated[IQL | BCell, Field(discriminator="name")]


ALGORITHMS: Mapping[str, tuple[str, ...]] = {"pretrain": ("iql",), "finetune": ("bcell",)}
"""Algorithms of each training stage; the first is the default."""

_SHARED = ("stage", "name", "output_root", "seed")
_TRAINING = (*_SHARED, "fold", "env", "hardware", "offline")
READS: Mapping[str, tuple[str, ...]] = {
    "pretrain": (
        *_TRAINING, "tracking", "algo", "market_regime", "reward", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch", "evaluation.every_epochs",
    ),
    "finetune": (
        *_TRAINING, "tracking", "algo", "market_regime", "reward", "init", "budget.collect_episodes",
        "budget.epochs", "budget.updates_per_epoch",  # of the parent that is looked for
        "budget.episodes", "budget.frozen_episodes", "budget.critic_updates", "budget.refit_updates",
        "evaluation.every_episodes", "evaluation.objective",
    ),
    "collect": (*_SHARED, "fold", "env", "hardware", "episodes", "out",
                "offline.bootstrap_fraction", "budget.collect_episodes"),
    "evaluate": (*_SHARED, "run", "hardware", "evaluation.bootstrap_samples", "evaluation.block_days"),
    "decide": (*_SHARED, "run", "hardware"),
}  # fmt: skip
"""What each stage reads: a key typed on the command line outside these is refused (presets are exempt)."""

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra.verbose")
"""Hydra's own keys that FinFlow leaves to its users; the rest would move outputs or hide errors."""


def load(stage: str, overrides: Sequence[str] = ()) -> Config:
    """Compose and parse the configuration of `stage`, as its entry point would.

    Raises
    ------
    ConfigError
        Naming the key, its value and the choices.
    """
    return parse(compose_stage(stage, overrides))


def compose_stage(stage: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """Compose `conf/` for one stage, `with_hydra` with Hydra's own node; its errors become one line."""
    if stage not in STAGES:
        raise ConfigError(f"stage={stage}: no such stage; choose one of {', '.join(STAGES)}")
    refuse_unread(stage, overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return compose(stage, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_compose_message(stage, str(error), overrides)) from error


def parse(cfg: DictConfig) -> Config:
    """Turn a composed config into frozen objects.

    Raises
    ------
    ConfigError
        One line for the first unknown key, missing key, wrong type or value out of range.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_resolve_message(error)) from error
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    stage, algo = str(plain.get("stage")), plain.get("algo")
    name = str(algo.get("name") if isinstance(algo, dict) else algo)
    known = [a for choices in ALGORITHMS.values() for a in choices]
    if name not in known:
        raise ConfigError(f"algo.name={name}: no such algorithm; choose one of {', '.join(known)}")
    if stage in ALGORITHMS and name not in ALGORITHMS[stage]:
        raise ConfigError(f"algo={name}: not an algorithm of {stage}; choose one of {', '.join(ALGORITHMS[stage])}")
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_validation_message(stage, error)) from error


def to_yaml(config: Config) -> str:
    """YAML of a parsed config, as written to a run folder; read back by `from_yaml`."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


def from_yaml(path: Path) -> Config:
    """Read a run folder's `config.yaml`.

    Raises
    ------
    ConfigError
        If the file is missing or is not a FinFlow configuration.
    """
    try:
        cfg = OmegaConf.load(path)
    except (OSError, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({_one_line(error)}); name a run folder of FinFlow") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path}: not a FinFlow configuration; name a run folder of FinFlow")
    return parse(cfg)


def digest(value: Any) -> str:
    """Short stable hash of plain data or of a parsed config section."""
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def run_folder(output_root: str, stage: str, name: str, seed: int) -> str:
    """`outputs/<stage>/<name>/<stamp>-s<seed>`, the folder of one run."""
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")[:-3]
    return str(Path(output_root) / stage / name / f"{stamp}-s{seed}")


OmegaConf.register_new_resolver("finflow_run", run_folder, replace=True, use_cache=True)


def check_day(key: str, value: str) -> date:
    """Parse a YYYY-MM-DD value of `key`.

    Raises
    ------
    ConfigError
        If it is no calendar day.
    """
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{key}={value!r}: not a calendar day; write it as YYYY-MM-DD") from None


def parse_override(text: str) -> Override:
    """Read one `key=value` of a command line in Hydra's grammar.

    Raises
    ------
    ConfigError
        If it is not in that grammar.
    """
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        advice = "write key=value, and quote a value with spaces, brackets, commas or '=' as 'key=\"value\"'"
        raise ConfigError(f"{text}: cannot be read; {advice}") from error
    if not override.key_or_group:
        raise ConfigError(f"{text}: has no key; write key=value")
    return override


def group_choices(stage: str) -> dict[str, tuple[str, ...]]:
    """Config groups that `stage` reads, and the options of each."""
    folders = sorted(p for p in CONF_DIR.iterdir() if p.is_dir() and p.name != "shared")
    found = {
        folder.name: tuple(sorted(p.stem for p in folder.glob("*.yaml")))
        for folder in folders
        if folder.name == "experiment" or _covers(READS[stage], folder.name)
    }
    return {**found, **({"algo": ALGORITHMS[stage]} if "algo" in found else {})}


def refuse_unread(stage: str, overrides: Sequence[str]) -> None:
    """Refuse a typed key that `stage` does not know or would ignore: an option that does nothing misleads.

    Raises
    ------
    ConfigError
        Naming the key and its choices, or the stages that read it.
    """
    for text in overrides:
        override = parse_override(text)
        key = override.key_or_group
        if override.is_delete():
            raise ConfigError(f"{text}: nothing can be taken out of the configuration; give it another value")
        if override.is_sweep_override():
            raise ConfigError(f"{text}: several values; add -m to run them all, or write a list as {key}=[a,b]")
        if key.split(".")[0].split("/")[0] == "hydra":
            if not any(key == k or key.startswith(k + ".") for k in HYDRA_KEYS):
                raise ConfigError(f"{text}: not a Hydra key of FinFlow; choose one of {', '.join(HYDRA_KEYS)}")
            continue
        _refuse_shape(stage, text, override)
        if key == "experiment" or _covers(READS[stage], key):
            continue
        readers = [s for s, reads in READS.items() if _covers(reads, key)]
        raise ConfigError(f"{text}: {stage} does not read {key} (read by {', '.join(readers)}); leave it out")


def _refuse_shape(stage: str, text: str, override: Override) -> None:
    """Refuse an unknown key, an unknown option of a group, and a value where a section belongs."""
    key, value = override.key_or_group, override.value()
    choices = group_choices(stage).get(key)
    if choices is not None:
        known = [path.stem for path in CONF_DIR.glob(f"{key}/*.yaml")]
        if override.is_add() or override.package is not None:
            raise ConfigError(f"{text}: write {key}=OPTION; choose one of {', '.join(choices)}")
        if value not in known:
            raise ConfigError(f"{text}: no such option; choose one of {', '.join(choices)}")
        if value not in choices:
            raise ConfigError(f"{text}: not an algorithm of {stage}; choose one of {', '.join(choices)}")
        return
    path = key.split(".")
    if key != "experiment" and not any(path[-1] in cls.model_fields for cls in _schemas_at(path[:-1])):
        raise ConfigError(f"{text}: unknown key; known here: {', '.join(_known_keys(stage, key))}")
    if key == "stage":
        raise ConfigError(f"{text}: each stage has an entry point of its own; run experiments/{value}.py")
    if _schemas_at(path) and value is not None and not isinstance(value, dict) and not (CONF_DIR / key).is_dir():
        inside = ", ".join(f"{key}.{k}" for k in _known_keys(stage, f"{key}."))
        raise ConfigError(f"{text}: a section, not a value; set one of {inside}")


def _covers(prefixes: Sequence[str], key: str) -> bool:
    return any(key == p or key.startswith(p + ".") or p.startswith(key + ".") for p in prefixes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())


def _resolve_message(error: OmegaConfBaseException) -> str:
    """An interpolation or a `???` that cannot be resolved, with the key it stands at."""
    key = str(getattr(error, "full_key", None) or "")
    return f"{key}: {_one_line(error)}" if key else _one_line(error)


def _compose_message(stage: str, text: str, overrides: Sequence[str]) -> str:
    """What Hydra says in several lines about a configuration that does not compose, as one."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else "configuration cannot be composed"
    if first.startswith("In '") and len(lines) > 1:
        first = lines[1]
    if "Could not override '" in first:
        key = first.split("'")[1]
        wrong = next((o for o in overrides if o.lstrip("+").startswith(key)), key)
        if key.startswith("env.synthetic."):
            return f"{wrong}: belongs to env=synthetic alone; add env=synthetic or leave it out"
        if key.startswith("hydra."):
            return f"{wrong}: no such key of Hydra with the chosen options; leave it out"
        return f"{wrong}: no such key with the chosen options; known here: {', '.join(_known_keys(stage, key))}"
    if "Available options in '" in text:
        group, rest = text.split("Available options in '")[1].split("'", 1)
        wrong = next((o for o in overrides if o.startswith(f"{group}=")), group)
        options = rest.split("Config search path")[0].strip(":").split()
        return f"{wrong}: no such option; choose one of {', '.join(options)}"
    return first


def _schemas_at(path: Sequence[str], stage: str | None = None) -> list[type[Schema]]:
    """Schemas found by walking `path` from the root: several where it meets a union, unless `stage` decides."""
    found: list[type[Schema]] = [Config]
    for depth, part in enumerate(path):
        found = [t for cls in found if part in cls.model_fields for t in _schemas_in(cls.model_fields[part].annotation)]
        if depth == 0 and part == "algo" and stage is not None and stage in ALGORITHMS:
            names = ALGORITHMS[stage]
            found = [cls for cls in found if get_args(cls.model_fields["name"].annotation)[0] in names]
    return found


def _schemas_in(hint: Any) -> list[type[Schema]]:
    if isinstance(hint, type) and issubclass(hint, Schema):
        return [hint]
    if get_origin(hint) in (Annotated, Union, UnionType):
        return [t for arg in get_args(hint) for t in _schemas_in(arg)]
    return []


def _known_keys(stage: str, key: str) -> list[str]:
    """Keys beside `key` that `stage` reads, from the deepest part of its path that exists."""
    path = key.split(".")[:-1]
    while path and not _schemas_at(path, stage):
        path = path[:-1]
    names = {name for cls in _schemas_at(path, stage) for name in cls.model_fields}
    return sorted(n for n in names if n != "stage" and _covers(READS[stage], ".".join([*path, n])))


def _validation_message(stage: str, error: ValidationError) -> str:
    """First problem of a validation, as one line that names key, value and choices."""
    problem = error.errors(include_url=False)[0]
    members = {"iql", "bcell", *(t.__name__ for t in (int, float, str))}
    where = [str(p) for p in problem["loc"]]
    path = [p for i, p in enumerate(where) if not (p in members or "[" in p) or i == 0]
    key = ".".join(path)
    kind, value, context = problem["type"], _shown(problem["input"]), problem.get("ctx", {})
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}={value}: unknown key; known here: {', '.join(_known_keys(stage, key))}"
    if kind in ("missing", "missing_argument"):
        return f"{key}: missing; it has no default, set it in conf/ or on the command line"
    if kind == "literal_error":
        choices = str(context.get("expected")).replace(" or ", ", ").replace("'", "")
        return f"{key}={value}: no such choice; choose one of {choices}"
    if kind == "string_pattern_mismatch":
        return f"{key}={value}: should be a name of letters, digits and . _ + - alone"
    if problem["input"] == "" and kind in ("too_short", "string_too_short"):
        return f"{key}={value}: should not be empty"
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ").replace(" after validation", "")
    return f"{key}={value}: {reason[0].lower()}{reason[1:]}"


def _shown(value: Any) -> str:
    """A value as a user types it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    text = (value or "''") if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
