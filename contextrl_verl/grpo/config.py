"""The engine's config class, and the one place where a job is checked before Ray starts.

verl builds the actor's config in the driver, before ``ray.init``, from its ``_target_`` keys. So the check hangs here
and works for every job that uses the shipped yaml, however it was launched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl.workers.config import FSDPEngineConfig

from contextrl_verl.errors import ConfigError, JobRefused
from contextrl_verl.settings import Settings, parse_settings


@dataclass
class ContextRLFSDPEngineConfig(FSDPEngineConfig):
    """verl's FSDP engine config plus the ``contextrl`` block, as a mapping; ``settings`` is its checked form."""

    _mutable_fields = FSDPEngineConfig._mutable_fields | {"contextrl"}
    contextrl: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            settings = self.settings
            if _before_ray(settings):
                from contextrl_verl.grpo.preflight import check_job

                check_job(settings)
        except (ConfigError, ValueError) as error:
            raise JobRefused(error) from None

    @property
    def settings(self) -> Settings | None:
        return parse_settings(self.contextrl) if self.contextrl else None


def _before_ray(settings: Settings | None) -> bool:
    import ray

    # Without run.train_files this is an engine built by itself, as the tests do, and no job.
    return settings is not None and settings.run.train_files is not None and not ray.is_initialized()
