"""The page of the documentation with every setting, written from the table behind the configuration.

``python -m mltoolkit.rllib.algorithms._config_docs docs/rllib-configuration.md`` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from mltoolkit.rllib.algorithms._config_groups import GROUPS
from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._settings import Refused, Setting
from mltoolkit.rllib.algorithms.ppo.ppo_config import PPO_SETTINGS, PPOConfig
from mltoolkit.rllib.algorithms.ppo.presets import PRESETS

__all__ = ["configuration_page"]

_INTRODUCTION = """\
# Reinforcement learning: every setting

An algorithm is built from a configuration: methods that chain, attributes, or a dict. All three know each setting by
its name of today and by its older names.

```python
from mltoolkit.rllib.algorithms.ppo import PPOConfig

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
    .training(lr=[[0, 1e-3], [200_000, 1e-4]], minibatch_size=250)
    .debugging(seed=1)
)
assert config.minibatch_size == config["sgd_minibatch_size"] == 250

older = PPOConfig.from_dict({"env": "CartPole-v1", "num_workers": 2, "model": {"fcnet_hiddens": [40, 20]}})
assert older.num_env_runners == 2
```

Methods, keys and keywords that do not exist are errors that name the nearest one. Values are checked when the algorithm
is built (or by `config.validate()`), all of them at once; until then they may also be search spaces of
[Tune](tune.md), such as `tune.grid_search([...])`.

Where a setting takes a *schedule*, `[[0, value], [timestep, value], ...]` gives its course over the timesteps sampled:
linear between the points, constant after the last.
"""

_NETWORK = """\
`training(model={...})` and `rl_module(model_config={...})` take these; the latter goes first, and also takes a
`DefaultModelConfig`. `config.model_config` is what results.
"""

_PRESETS = """\
## Presets

`PPOConfig.preset(name)` is a configuration with settings that learn a well-known environment fast. There are presets for
{names}.
"""

_REFUSED = """\
## Settings of RLlib's that have no meaning here

These are accepted with the values shown, which ask for what happens anyway; other values are an error that says what
to use instead.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _settings_table(settings: Iterable[Setting], model_defaults: dict[str, object] | None = None) -> list[str]:
    rows = ["| Setting | Default | Allowed | Meaning |", "| --- | --- | --- | --- |"]
    for setting in settings:
        default = (model_defaults or {}).get(setting.key, setting.default)
        others = [name for name in setting.names if name != setting.name and not name.startswith("_")]
        meaning = setting.meaning + (f" *Also: {', '.join(f'`{name}`' for name in others)}.*" if others else "")
        rows.append(_row([f"`{setting.name}`", f"`{default!r}`", setting.allowed.description, meaning]))
    return rows


def _refused_table(refused: Iterable[Refused]) -> list[str]:
    rows = ["| Setting | Accepted | Instead |", "| --- | --- | --- |"]
    for entry in refused:
        accepted = "anything" if entry.harmless is None else ", ".join(f"`{value!r}`" for value in entry.harmless)
        names = ", ".join(f"`{name}`" for name in entry.names)
        rows.append(_row([names, accepted, entry.instead]))
    return rows


def configuration_page() -> str:
    """The page, as Markdown.

    Examples
    --------
    >>> "| `num_env_runners` | `2` | a whole number >= 0 |" in configuration_page()
    True
    """
    lines = [_INTRODUCTION]
    for method in GROUPS:
        settings = [setting for setting in PPO_SETTINGS.settings if setting.group == method]
        if settings:
            summary = (getattr(PPOConfig, method).__doc__ or "").partition("\n")[0]
            lines += [f"## `{method}`", "", summary, "", *_settings_table(settings), ""]
    lines += [
        "## The network: `model` and `model_config`",
        "",
        _NETWORK,
        *_settings_table(MODEL_SETTINGS.settings, dict(PPOConfig._model_defaults)),
        "",
        _PRESETS.format(names=", ".join(f"`{name}`" for name in PRESETS)),
        _REFUSED,
    ]
    for title, refused in (("", PPO_SETTINGS.refused), ("In `model`:", MODEL_SETTINGS.refused)):
        lines += [*([title, ""] if title else []), *_refused_table(refused), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(configuration_page())
