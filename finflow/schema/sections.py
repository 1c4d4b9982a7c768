"""Sections of the configuration: algorithms and their network, market and its rules, budgets, reward, monitor, sinks.

An algorithm has one schema; what those of a phase share stands in its base.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from finflow.errors import ConfigError
from finflow.plugins import added
from finflow.schema.fields import (
    Added,
    Count,
    Day,
    Discount,
    Fraction,
    Grows,
    NonNegative,
    OnlyWith,
    Positive,
    ReadBy,
    Role,
    Schedule,
    Schema,
    Text,
    WandbName,
    Was,
)


class Network(Schema):
    """Shape of the networks; shared by both phases, since phase 2 loads what phase 1 learnt."""

    kind: Literal["portfolio", "mlp"] | Text
    """One network shared by all assets, plain layers on the flat state of one universe, or one of a plugin."""
    actors: Count
    """Policies trained side by side, whose decisions are averaged; `algo.actors` sets it."""
    embed_dim: Count
    """Width of an asset's embedding, where `kind` is portfolio."""
    hidden_dim: Count
    """Width of the hidden layers."""
    n_quantiles: Annotated[int, Field(ge=2)]
    """Atoms of the critic's distribution."""
    layer_norm: bool
    """Normalise the first hidden layer (Ba et al. 2016); false is the plain network of most papers and libraries."""
    dropout: Annotated[float, Field(ge=0, lt=1), Role.STUDY]
    """Of the policy's hidden units, in training."""
    state_noise: Annotated[NonNegative, Role.STUDY]
    """Standard deviation of noise on the scaled features, in training."""


_KNOWN_PATHS = OnlyWith("extraction=value_gradient")
_NOT_AWR = OnlyWith("extraction=value_gradient", "extraction=q_gradient")
"""Of iql; an algorithm without `extraction` reads such a key always."""


class ValueGradients(Schema):
    """How far exact gradients go back along known paths, and how many of them."""

    horizon: Annotated[int, Field(ge=0), _KNOWN_PATHS]
    """Days along which the policy's gradient is exact; 0: the critic's gradient alone."""
    walkers: Annotated[Count, OnlyWith("horizon")]
    """Paths of each actor in an update."""


class OfflineAlgorithm(Schema):
    """What every algorithm of phase 1 has."""

    lr: Positive
    """Learning rate, which others of this section take over."""
    actor_lr: Positive
    """Learning rate of the policy."""
    grad_clip: Positive
    """Norm that gradients are clipped to."""
    gamma: Discount
    """Discount a day."""
    actors: Annotated[Count, Role.PRETRAINED]
    """Policies trained side by side in one pass, whose decisions are averaged."""
    network: Annotated[Network, Role.PRETRAINED]


class DirectConfig(OfflineAlgorithm, ValueGradients):
    """Direct reinforcement (Moody & Saffell 2001): value gradients alone, no critic; the ablation of both phases."""

    name: Literal["direct"]
    """The algorithm."""
    gamma: Discount
    """Discount a day that phase 2 is handed; the policy's own gradient averages rewards without one."""
    horizon: Annotated[Count, _KNOWN_PATHS]
    """Days along which the policy's gradient is exact."""
    prior_kl_coef: Annotated[NonNegative, Was("anchor"), _NOT_AWR]
    """Weight of the divergence from the benchmark's portfolio."""


class OfflineCritic(OfflineAlgorithm):
    """What the algorithms of phase 1 share that fit a critic."""

    critic_lr: Positive
    """Learning rate of critic and value."""
    batch_size: Count
    """Transitions of one update."""
    tau: Annotated[float, Field(gt=0, le=1)]
    """Share of the way that target networks go whenever they follow."""
    relabel_fraction: Fraction
    """Share of a batch whose action is replaced by another portfolio and booked anew by the ledger."""


class IQLConfig(OfflineCritic, ValueGradients):
    """Implicit Q-learning (Kostrikov et al. 2021); `beta` is what the training guide calls temperature."""

    name: Literal["iql"]
    """The algorithm."""
    extraction: Literal["value_gradient", "q_gradient", "awr"]
    """How the policy is extracted: along known paths with V at their end, up Q's gradient, or as in the paper."""
    horizon: Annotated[Count, _KNOWN_PATHS]
    """Days along which the policy's gradient is exact, with `value_gradient`."""
    prior_kl_coef: Annotated[NonNegative, Was("anchor"), _NOT_AWR]
    """Weight of the divergence from the benchmark's portfolio, with `value_gradient` and `q_gradient`."""
    expectile: Discount
    """Of the value regression: .5 is the mean, towards 1 the best action in the data."""
    beta: Annotated[NonNegative, OnlyWith("extraction=awr")]
    """With `awr`, how sharply the policy prefers better actions; it multiplies the advantage, as in the paper."""
    max_weight: Annotated[Positive, Was("weight_cap"), OnlyWith("extraction=awr")]
    """With `awr`, the largest weight of a transition in the policy's loss."""
    normalise_advantage: Annotated[bool, OnlyWith("extraction=awr")]
    """With `awr`, divide advantages by three of their standard deviations before `beta`; false is the paper's form."""


class TD3BCConfig(OfflineCritic):
    """TD3+BC (Fujimoto & Gu 2021): the policy climbs the critic and is held to the data by cloning."""

    name: Literal["td3bc"]
    """The algorithm."""
    expectile: Discount
    """Of the value regression, which phase 2 is handed: .5 is the mean, towards 1 the best action in the data."""
    alpha: NonNegative
    """Weight of the critic against cloning, over the batch's mean absolute value; 0 is cloning alone."""
    policy_delay: Count
    """Updates of the critic for one of policy and targets."""
    policy_noise: NonNegative
    """Standard deviation of the noise on the target's portfolio, in logits."""
    noise_clip: NonNegative
    """Bound of that noise."""


class CQL(Schema):
    """Conservative Q-learning (Kumar et al. 2020) in phase 2."""

    alpha: NonNegative
    """Strength: 10 holds an unsupported action one standard deviation of advantage down; 0 is none."""
    n_actions: Count
    """Sampled portfolios of each kind a state."""
    batch_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of a batch that the penalty is computed on."""
    anneal: Schedule
    """Factor on the strength, at the start and at the end of training."""
    calibrate: bool
    """Bound the policy's own samples below by the value of phase 1 (Cal-QL)."""


class Entropy(Schema):
    """Entropy target, written as the standard deviation of a logit that has just that entropy."""

    target_sigma: Annotated[Schedule, Was("sigma")]
    """At the start and at the end of training; phase 2 starts at the parent's own where that is less."""


class Gate(Schema):
    """Gate over the experts, and what keeps it from collapsing onto one."""

    temperature: Schedule
    """At the start and at the end of training; above 1 the gate that learns is softer than the one that acts."""
    load_balance_coef: Annotated[Schedule, Was("balance")]
    """Weight of the loss that spreads the gate over experts, at the start and at the end of training."""
    expert_dropout: Annotated[float, Field(ge=0, lt=1)]
    """Probability that an expert is left out of an update."""
    lr_ratio: Positive
    """The gate's learning rate over the policy's."""


class OnlineAlgorithm(ValueGradients):
    """What every algorithm of phase 2 has: the loop reads its schedules."""

    lr: Positive
    """Learning rate, which the two below take over."""
    actor_lr: Positive
    """Learning rate of the policy."""
    critic_lr: Positive
    """Learning rate of the critic."""
    grad_clip: Positive
    """Norm that gradients are clipped to."""
    batch_size: Count
    """Transitions of one update."""
    update_interval: Count
    """Steps of the parallel episodes from one update to the next."""
    actors: Annotated[Count, Role.PRETRAINED]
    """Policies trained side by side in one pass, whose decisions are averaged."""
    gamma: Discount
    """Discount a day."""
    tau: Annotated[float, Field(gt=0, le=1)]
    """Share of the way that target networks go at each update."""
    alpha_init: Positive
    """Entropy coefficient at the start; it is learnt from there."""
    alpha_lr: Positive
    """Learning rate of the entropy coefficient."""
    expectile: Discount
    """Of the value regression, where critic and value are refitted to another reward."""
    top_quantiles_dropped: Annotated[int, Field(ge=0)] | None
    """Atoms a critic cut off the top of the target (TQC); null: the target of the lower of both critics, whole."""
    risk_weight: Fraction
    """How much of the critic's mean the policy gives up for its lower tail; 0 is risk-neutral."""
    risk_level: Annotated[float, Field(gt=0, le=1), OnlyWith("risk_weight")]
    """Fraction of atoms that make up that tail, where `risk_weight` is above 0."""
    relabel_fraction: Fraction
    """Share of a batch whose action is replaced by another portfolio and booked anew by the ledger."""
    bootstrap_fraction: Fraction
    """Share of episodes that live through resampled history."""
    mixing_ratio: Annotated[list[Fraction], Field(min_length=2, max_length=2), Was("offline_fraction")]
    """Share of a batch from offline data, at the start and at the end of training."""
    buffer_size: Annotated[Count, Was("memory_capacity")]
    """Transitions that the memory of what was lived through holds."""
    prior_kl_coef: Annotated[Schedule, Was("anchor"), _NOT_AWR]
    """Weight of the divergence from the benchmark's portfolio, at the start and at the end of training."""
    entropy: Entropy
    gate: Gate | None
    cql: CQL | None
    network: Annotated[Network, Role.PRETRAINED]


class BCellConfig(OnlineAlgorithm):
    """B-Cell: five experts under a gate, distributional SAC with CQL. Without a gate there is one expert.

    `sac` is the ablation of it: `gate` and `cql` are null.
    """

    name: Literal["bcell", "sac"]
    """The algorithm."""


def _by_name(value: Any, own: ValidatorFunctionWrapHandler) -> Any:
    """A plugin's algorithm has settings of its own class."""
    found = added("algorithms").get(str(value.get("name"))) if isinstance(value, dict) else None
    return own(value) if found is None else found[0].model_validate(value)


Algorithm = Annotated[IQLConfig | TD3BCConfig | DirectConfig | BCellConfig, Field(discriminator="name")]
"""Settings of FinFlow's algorithms; the name decides which."""
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], WrapValidator(_by_name)]
"""Settings of an algorithm, those of plugins too."""


OWN_SOURCES = ("sp500", "yahoo", "csv", "synthetic")
_WITHOUT_FILES = tuple(source for source in OWN_SOURCES if source != "csv")
"""Sources that read no `env.path`; those of plugins may."""

LEAST_HISTORY = 22
"""Trading days: a month's returns."""


def _benchmark(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("should be equal_weight or the path of a CSV with a level per date")
    return value


def _each_once(tickers: list[str]) -> list[str]:
    folded = [ticker.casefold() for ticker in tickers]
    twice = next((ticker for i, ticker in enumerate(tickers) if folded[i] in folded[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice} stands twice; keep one")
    return tickers


class Limits(Schema):
    """Rules of a desk, applied by the ledger; `null` switches a rule off."""

    max_weight: Annotated[float, Field(gt=0, le=1)] | None
    """Cap of a single name; what is above goes to cash."""
    min_cash: Annotated[float, Field(ge=0, lt=1)]
    """Least cash after a decision."""
    no_trade_band: NonNegative
    """A decision whose two-way turnover is below it is not executed."""
    max_turnover: Positive | None
    """Most two-way turnover of one decision; beyond it the way to the target is cut short."""


class Regimes(Schema):
    """Thresholds of the labels that days get (see `data/features.py`): volatility of 1/N over 21 days beside
    its own past, and the loss of 1/N since its peak.
    """

    stable: Discount
    """Quantile of past volatility up to which a day is stable."""
    enter_volatile: Discount
    """Quantile of past volatility at which volatile begins."""
    leave_volatile: Positive
    """Multiple of the median of past volatility below which volatile ends."""
    enter_crisis: Discount
    """Loss beyond which crisis begins."""
    leave_crisis: Discount
    """Loss below which crisis ends."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for low, high in (("stable", "enter_volatile"), ("leave_crisis", "enter_crisis")):
            below, above = getattr(self, low), getattr(self, high)
            if below > above:
                key = f"env.regimes.{low}"
                raise ConfigError(f"{key}={below:g}: above env.regimes.{high}={above:g}; set one of them otherwise")
        return self


class Synthetic(Schema):
    """A regime-switching market with a planted signal of information coefficient `ic` (0: none)."""

    signal: Literal["linear", "nonlinear", "regime"]
    """How the next day's own return depends on the signal s: linear, as s; nonlinear, as s^2, of which no linear
    regression finds anything; regime, as s on days labelled volatile or crisis and as -s on others."""

    days: Annotated[int, Field(ge=1300)]
    """Business days."""
    assets: Annotated[int, Field(ge=2)]
    """Names."""
    ic: Annotated[float, Field(ge=0, lt=1)]
    """Correlation of what the signal says, as `signal` has it, with the next day's own return; 0: no signal."""
    persistence: Annotated[float, Field(ge=0, lt=1)]
    """Autocorrelation of the signal from day to day."""
    seed: int
    """Which market is drawn; apart from the run's own seed."""


class Format(Schema):
    """How a file of prices or volumes is written, of env=csv: said, never guessed."""

    separator: Literal["comma", "semicolon", "tab", "pipe"]
    """What stands between two cells."""
    decimal: Literal["point", "comma"]
    """What stands before the decimals."""
    thousands: Literal["none", "comma", "point", "space", "apostrophe"]
    """What stands between thousands."""
    date: Literal["YYYY-MM-DD", "DD/MM/YYYY", "MM/DD/YYYY", "DD.MM.YYYY", "DD-MM-YYYY", "YYYY/MM/DD", "YYYYMMDD"]
    """How a date is written."""

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if self.decimal == self.thousands:
            raise ConfigError(f"env.format.thousands={self.thousands}: the decimal mark too; set one of them otherwise")
        if self.separator == "comma" and self.decimal == "comma":
            raise ConfigError("env.format.decimal=comma: separates the cells too; add env.format.separator=semicolon")
        return self


PLAIN = Format(separator="comma", decimal="point", thousands="none", date="YYYY-MM-DD")
"""What is read unasked."""


class Env(Schema):
    """Where prices come from, and how a portfolio of them is accounted for."""

    source: Annotated[Literal["sp500", "yahoo", "csv", "synthetic"] | Text, Role.DATA]
    """Where prices come from, set by the option of `env`; or a source of a plugin."""
    path: Annotated[Text | None, Role.FILE]
    """File or folder of prices, of env=csv: see docs/data.md for what is read; or what a plugin's source reads."""
    volume: Annotated[Text | None, Role.FILE]
    """File of volumes laid out as the prices are, of env=csv, where the prices come without."""
    format: Annotated[Format, Role.FILE]
    calendar: Annotated[Literal["all", "common"], Role.FILE]
    """Days that are used: all, each of which needs every live name's price, or those that have it."""
    lost_rows: Annotated[Fraction, Role.ENVIRONMENT, OnlyWith("calendar=common")]
    """Share of the rows that env.calendar=common may leave out."""
    tickers: Annotated[Annotated[list[Text], Field(min_length=2), AfterValidator(_each_once)] | None, Role.DATA]
    """Names to use, in that order; null: all of the source's."""
    start: Annotated[Day | None, Role.DATA]
    """First day; of Yahoo the first that is asked for."""
    end: Annotated[Day | None, Role.DATA, ReadBy("pretrain", "finetune", "collect", "look", "decide", "judge")]
    """Last day that is used; null: the last there is, of Yahoo yesterday."""
    signals: Annotated[Text | None, Role.FILE]
    """Your own signals: a CSV laid out as prices are, or a folder of them."""
    features: Annotated[Annotated[list[Text], AfterValidator(_each_once)], Role.MARKET, Added()]
    """Features of plugins, beside FinFlow's own; every expert sees them."""
    signals_lag: Annotated[int, Field(ge=0), Role.DATA, OnlyWith("signals")]
    """Days from the date of one of `signals` to the close that may use it; 0: known before that day's close."""
    snapshot: Annotated[Text | None, Role.FILE]
    """File that freezes the data: made where it is missing, read where it is there."""
    periods_per_year: Annotated[Literal["auto"] | Annotated[int, Field(ge=12, le=366)], Role.FILE]
    """Rows of a year, by which figures are annualised and windows counted; auto: as the dates have it."""
    delist_return: Annotated[float, Field(ge=-1), Role.MARKET]
    """Return of the day after a name's last price."""
    min_history: Annotated[int, Field(ge=LEAST_HISTORY), Role.MARKET]
    """Priced trading days that a name needs before it may be traded (252 a year, on any calendar)."""
    stale_run: Annotated[int, Field(ge=2), Role.MARKET]
    """Equal closes in a row from which a name counts as frozen."""
    split_jump: Annotated[float, Field(gt=0), Role.ENVIRONMENT]
    """Return of one day, as a fraction, that is warned of whatever the name's volatility."""
    cost_bps: Annotated[NonNegative, Role.ENVIRONMENT]
    """Commission, basis points of what is traded."""
    slippage_bps: Annotated[NonNegative, Role.ENVIRONMENT]
    """Slippage, basis points of what is traded."""
    cash_yield: Annotated[float | Annotated[str, Field(min_length=1)], Role.MARKET]  # not `Text`: 0 is a number here
    """What cash earns: a yearly rate, or the path of a CSV with a yearly rate a date."""
    benchmark: Annotated[str, BeforeValidator(_benchmark), Field(min_length=1), Role.MARKET]
    """What the reward is measured against: equal_weight, or the path of a CSV with a level a date."""
    rebalance: Annotated[Literal["daily", "weekly", "monthly"], Role.MARKET]
    """How often the policy decides."""
    episode_days: Annotated[int, Field(ge=21), Role.ENVIRONMENT]
    """Trading days of a training episode (252 a year, on any calendar)."""
    num_envs: Annotated[Count, Role.ENVIRONMENT, Was("parallel")]
    """Episodes that are lived through side by side."""
    limits: Annotated[Limits, Role.ENVIRONMENT]
    regimes: Annotated[Regimes, Role.MARKET]
    synthetic: Annotated[Synthetic | None, Role.DATA]

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        """Keys that belong to one source are asked for there and refused elsewhere."""
        if self.source == "csv" and self.path is None:
            raise ConfigError(f"env.path: env={self.source} needs the file of prices; write env.path=prices.csv")
        if self.source in _WITHOUT_FILES and self.volume is not None:
            raise ConfigError(f"env.volume={self.volume}: env={self.source} has its own; add env=csv or leave it out")
        if self.source in _WITHOUT_FILES and self.path is not None:
            raise ConfigError(f"env.path={self.path}: env={self.source} does not read it; add env=csv or leave it out")
        if self.source in _WITHOUT_FILES and self.format != PLAIN:
            raise ConfigError(f"env.format: env={self.source} reads no file of prices; add env=csv or leave it out")
        if self.source in ("sp500", "synthetic") and self.calendar != "all":
            raise ConfigError(f"env.calendar={self.calendar}: env={self.source} has one calendar; leave it out")
        for key in ("tickers", "start"):
            if self.source == "yahoo" and getattr(self, key) is None:
                raise ConfigError(f"env.{key}=null: Yahoo has to be asked for something; leave it out or give a value")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ConfigError(f"env.start={self.start}: not before env.end={self.end}; set one of them otherwise")
        if (self.source == "synthetic") != (self.synthetic is not None):
            raise ConfigError("env.synthetic: belongs to env=synthetic alone; choose that env or leave its keys out")
        return self

    @property
    def cost_rate(self) -> float:
        """Cost of a traded unit of notional, as a fraction."""
        return (self.cost_bps + self.slippage_bps) / 1e4


Limit = Positive | None
"""Null switches the rule off."""


class Act(Schema):
    """What `mode: act` does: factors on learning rates and CQL, and how often."""

    lr_factor: Annotated[float, Field(gt=0, lt=1)]
    """Each lowering multiplies the learning rates by this."""
    cql_factor: Annotated[float, Field(gt=1), ReadBy("finetune")]
    """Each raising multiplies the weight of CQL by this."""
    cooldown: Annotated[Count, Was("settle")]
    """Updates that a measure is given to take effect."""
    patience: Annotated[int, Field(ge=0)]
    """Gentle measures for one rule before training goes back to the last good state."""
    max_interventions: Annotated[int, Field(ge=0), Was("most")]
    """Measures in one run; the next finding stops it with exit code 5."""


class MonitorConfig(Schema):
    """Thresholds of the rules in `training/monitor.py`, and what a finding leads to."""

    mode: Literal["warn", "act", "off"]
    """What follows a finding; set by the option of `monitor`."""
    every: Count
    """Updates that a look averages over."""
    repeat: Count
    """Updates before the same rule speaks again."""
    q_value: Limit
    """Mean value of a batch's actions, either way."""
    actor_loss: Limit
    """Size of the policy's loss."""
    critic_loss: Limit
    """Quantile loss, an atom and critic."""
    sharpe: Annotated[float | None, ReadBy("finetune")]
    """Sharpe ratio of the latest episodes, clearly below this."""
    validation_sharpe: float | None
    """Sharpe ratio on validation days, below this and below 1/N's."""
    entropy_gap: Limit
    """Nats a name that the entropy is below its target."""
    entropy_fall: Limit
    """Nats a name that the entropy falls within one look, beyond its target's own fall."""
    grad_norm: Limit
    """Gradients before clipping."""
    effective_assets: Limit
    """Fewer effective assets than these."""
    turnover: Limit
    """Notional traded a year on validation days."""
    reward_sigmas: Limit
    """Standard deviations of all rewards so far, of one reward."""
    dip: Annotated[Limit, ReadBy("finetune")]
    """Sharpe ratio on validation days, below what phase 1 handed over."""
    act: Annotated[Act, OnlyWith("mode=act")]


class Wandb(Schema):
    """Where Weights & Biases files a run; `group` null is the sweep that the run is a job of, if any."""

    project: WandbName
    """Project of the run."""
    entity: WandbName | None
    """User or team; null: the account's own."""
    mode: Literal["offline", "online"]
    """offline: into the run's folder; online needs a key."""
    group: Text | None
    """Group of the run; null: the sweep that it is a job of, if any."""
    tags: list[Text]
    """Tags of the run."""


class Tracking(Schema):
    """Which sinks there are, and how many seconds they may take at the end of a run before they are given up."""

    tensorboard: bool
    """Whether TensorBoard files are written."""
    sinks: Annotated[list[Text], Added()]
    """Sinks of plugins, beside these."""
    wandb: Wandb | None
    """Weights & Biases, of tracking=wandb; null: not at all."""
    close_timeout: Annotated[Positive, Was("patience")]
    """Seconds that sinks may take at the end of a run, to write or send what is left."""


FOLLOWING = ("evaluate", "decide", "explain", "export")
"""Stages that load a trained run."""


class Budget(Schema):
    """How much work a run does; `experiment=demo` shrinks these."""

    collect_episodes: Annotated[Count, Role.PRETRAINED, ReadBy("pretrain", "finetune", "collect")]
    """Episodes of offline data that behaviours live through."""
    epochs: Annotated[Count, Role.PRETRAINED, Grows("pretrain")]
    """Passes of phase 1."""
    updates_per_epoch: Annotated[Count | None, Role.PRETRAINED]
    """Updates of one pass; null: as many as go once over the offline data."""
    episodes: Annotated[Count, ReadBy("finetune"), Grows("finetune")]
    """Episodes of phase 2."""
    warmup_episodes: Annotated[int, Field(ge=0), ReadBy("finetune"), Was("frozen_episodes")]
    """Hand-over: episodes that the frozen policy lives through before anything is updated."""
    critic_warmup_updates: Annotated[int, Field(ge=0), ReadBy("finetune"), Was("critic_updates")]
    """Hand-over: updates of the critic alone, before the policy learns."""
    crossfit_updates: Count
    """Updates of the actors that confidence is cross-fitted with."""
    refit_updates: Annotated[int, Field(ge=0), ReadBy("finetune")]
    """Updates of critic and value on offline data, where reward, discount or costs differ from the parent's."""


class Reward(Schema):
    """Weights of the reward's terms; the lambdas multiply raw fractions a day (see `envs/ledger.py`)."""

    lambda_cvar: NonNegative
    """Weight of the loss beyond the value at risk (95 %) that 1/N had on train days."""
    lambda_turn: NonNegative
    """Weight of two-way turnover, on top of what a trade costs."""
    lambda_dd: NonNegative
    """Weight of new drawdown."""
    lambda_risk: NonNegative
    """Aversion to active risk: half of it weighs the square of the scaled active return."""


class MarketRegime(Schema):
    """One market regime: its label and the values that the training guide gives it."""

    name: Literal["all", "stable", "normal", "volatile", "crisis"]
    """Days to fine-tune on, by their label; all: every day."""
    alpha_init: Annotated[Positive, ReadBy("finetune")]
    """Entropy coefficient at the start, which `algo.alpha_init` takes over."""
    cql_alpha: Annotated[NonNegative, ReadBy("finetune")]
    """Strength of CQL, which `algo.cql.alpha` takes over."""
    lambda_cvar: NonNegative
    """Weight of tail loss, which `reward.lambda_cvar` takes over."""
    lambda_turn: NonNegative
    """Weight of turnover, which `reward.lambda_turn` takes over."""


class Hardware(Schema):
    """Where tensors live and how training computes; the stages that judge compute in float32, as written."""

    device: Annotated[Literal["auto", "cpu", "cuda"], ReadBy("pretrain", "finetune", "collect", *FOLLOWING)]
    """Where tensors live; auto: CUDA where there is one."""
    threads: Annotated[int, Field(ge=1, le=1024), ReadBy("pretrain", "finetune", "collect", *FOLLOWING)]
    """Threads of one process; the bits of a result depend on it."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Role.PRECISION]
    """What the networks multiply in: bf16 and fp16 are mixed precision, weights and losses stay fp32."""
    gradient_checkpointing: Annotated[bool, Role.SPEED]
    """Compute what the backward pass needs again instead of keeping it: less memory, more time."""
    compile: Annotated[Literal["default", "reduce-overhead"] | None, Role.SPEED]
    """`torch.compile` of the whole update in this mode, meant for CUDA: on a CPU it hardly pays."""
    distributed: Annotated[bool, Role.PRECISION]
    """Whether torchrun starts several processes, which share out each batch and average gradients."""


class Init(Schema):
    """What fine-tuning starts from: `latest`, a run folder or weights file, or null (from scratch).

    `publish` says whether `latest` may find what phase 1 trains.
    """

    weights: Annotated[Text | None, ReadBy("finetune")]
    """What phase 2 starts from: latest, a run's or (in a sweep) a sweep's folder, a weights file, or null: scratch."""
    publish: Annotated[bool, Role.SAVING, ReadBy("pretrain")]
    """Phase 1: whether `latest` may find these weights."""


class Offline(Schema):
    """Offline data: collected and cached by default, or read from a file made by `collect.py`."""

    dataset: Text | None
    """File made by `collect.py`; null: collected as needed, and cached."""
    bootstrap_fraction: Annotated[Fraction, ReadBy("pretrain", "finetune", "collect")]
    """Share of collected episodes that live through resampled history."""


class Checkpoint(Schema):
    """When a training run is saved, and how many of the newest are kept; `interval` in episodes, in phase 1 epochs."""

    interval: Count
    """Episodes (phase 2) or epochs (phase 1) from one checkpoint to the next."""
    save_best: bool
    """One more whenever validation finds a new best; it is never deleted."""
    save_latest: bool
    """One more at the end of training, so that more episodes can follow."""
    max_checkpoints: Count
    """Newest checkpoints that are kept, beside the best."""


class Evaluation(Schema):
    """Validation during training, and the verdict's bootstrap."""

    every_epochs: Annotated[Count, ReadBy("pretrain")]
    """Epochs of phase 1 from one validation to the next."""
    every_episodes: Annotated[Count, ReadBy("finetune")]
    """Episodes of phase 2 from one validation to the next."""
    objective: Literal["sharpe", "active_ir"]
    """Validation figure that selects phase 2's weights and phase 1's best checkpoint: Sharpe or active IR."""
    bootstrap_samples: Annotated[int, Field(ge=100), ReadBy("evaluate", "judge")]
    """Resamples behind each interval."""
    block_days: Annotated[Count, ReadBy("evaluate", "judge")]
    """Mean length of a block of the stationary bootstrap, days."""


class Sweep(Schema):
    """Several runs from one command line: what they would take, and what their table is sorted by."""

    dry_run: bool
    """Say how many jobs, hours and gigabytes a sweep would take, and run nothing."""
    objective: Annotated[Literal["sharpe", "active_ir"] | None, ReadBy("sweep")]
    """What the table of a sweep is sorted by; null: what its jobs selected by."""
