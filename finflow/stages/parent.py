"""The pretrained weights that a fine-tuning of a configuration starts from."""

import contextlib
from dataclasses import replace

from finflow.allocators.priors import EXPERTS
from finflow.artifacts.provenance import Parent, find_parent, parent_facts
from finflow.artifacts.runs import command_for
from finflow.data.market import Market, fold_dates, make_fold
from finflow.errors import ParentError
from finflow.nn.networks import ObservationSpec
from finflow.schema import Config


def find_weights(config: Config, market: Market, weights: str) -> Parent:
    """Find weights with the experts of phase 1, which a single expert is merged from, or with a single one too.

    Parameters
    ----------
    weights : `latest`, or the path of a run folder or `.safetensors` file.

    Raises
    ------
    ParentError, StorageError
        See `find_parent`.
    """
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
