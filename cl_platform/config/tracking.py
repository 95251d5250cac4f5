"""Who watches a run: settings of ``clp run``, ``clp.run`` and sweeps that decide no bit of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cl_platform.config.run_config import Plugin, listed
from cl_platform.config.signatures import check_section, faults_of
from cl_platform.errors import ConfigError

Sinks = Annotated[list[Plugin], BeforeValidator(listed)]


def _by_mode(value: Any) -> Any:
    """`offline` is short for `{mode: offline}`; so it is where a dotted key was set beside it."""
    if isinstance(value, str | bool | None):  # off is false in YAML
        return {"mode": value or "off"}
    if isinstance(value, Mapping) and "name" in value:
        return {"mode": value["name"], **{k: v for k, v in value.items() if k != "name"}}
    return value


class Wandb(BaseModel):
    """Tracking on Weights & Biases.

    Args:
        mode: ``online`` sends a run while it goes on, ``offline`` keeps it for ``wandb sync``.
        log_model: which states become artifacts.
        log_code: whether the code of strategy, model and stream becomes one.
        log_every: steps that each point of the loss is the mean of.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Literal["off", "offline", "online"] = "off"
    log_model: Literal["none", "last", "all"] = "none"
    log_code: bool = False
    log_every: int = Field(default=10, ge=1)


OnWandb = Annotated[Wandb, BeforeValidator(_by_mode)]


class Tracking(BaseModel):
    """W&B, and the sinks that are plugins: names, or names with parameters."""

    model_config = ConfigDict(extra="forbid")

    wandb: OnWandb = Field(default_factory=Wandb)
    sinks: Sinks = Field(default_factory=list)


def parse_tracking(
    data: Mapping[str, Any], mode: str | None = None, sinks: Sequence[Any] = ()
) -> Tracking:
    """Return the tracking that a mapping with the keys `wandb` and `sinks` asks for.

    Args:
        mode: of W&B, in place of the mapping's.
        sinks: besides those of the mapping.

    Raises:
        ConfigError: with one line per fault.
    """
    try:
        tracking = Tracking.model_validate(data)
        more_sinks = Tracking.model_validate({"sinks": list(sinks)}).sinks
        if mode is not None:
            tracking.wandb = Wandb.model_validate({**dict(tracking.wandb), "mode": mode})
    except ValidationError as error:
        raise ConfigError("\n".join(faults_of(error, Tracking))) from None
    tracking.sinks += more_sinks
    faults: list[str] = []
    for i, section in enumerate(tracking.sinks):
        tracking.sinks[i], more = check_section("sink", section, f"sinks.{i}")
        faults += more
    if faults:
        raise ConfigError("\n".join(faults))
    return tracking
