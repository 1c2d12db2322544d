"""Settings of what learns, of where it runs, and of what it reports to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mltoolkit.rllib.algorithms._constraints import (
    Allowed,
    function,
    kind_of_class,
    mapping,
    number,
    one_of,
    optional,
    resources,
    schedule,
    switch,
    whole_number,
)
from mltoolkit.rllib.algorithms._settings import Setting

__all__ = ["CALLBACK_EVENTS", "TRAINING"]

#: Events and what the functions for them are called after.
CALLBACK_EVENTS = {
    "on_algorithm_init": "the algorithm has been built",
    "on_train_result": "each training iteration",
    "on_evaluate_start": "an evaluation is about to begin",
    "on_evaluate_end": "an evaluation",
    "on_env_runners_recreated": "runners have been replaced",
    "on_checkpoint_loaded": "a checkpoint has been restored",
    "on_environment_created": "a runner has made its environments",
    "on_episode_created": "an episode has been made, before it is reset",
    "on_episode_start": "an episode has been reset",
    "on_episode_step": "each step of an episode",
    "on_episode_end": "an episode has ended",
    "on_sample_end": "each sample of a runner",
}


def _model_fault(value: Any) -> str | None:
    is_dataclass = hasattr(type(value), "__dataclass_fields__")
    return None if isinstance(value, Mapping) or is_dataclass else ""


def _one_or_list(description: str, accepts: Any) -> Allowed:
    def fault(value: Any) -> str | None:
        items = value if isinstance(value, (list, tuple)) else [value]
        return None if all(accepts(each) for each in items) else ""

    return optional(Allowed(description, fault))


LEARNING = (
    Setting("gamma", "training", 0.99, number(0, 1), "The discount per environment step."),
    Setting(
        "lr",
        "training",
        0.001,
        schedule(0),
        "The learning rate, or its course over the timesteps sampled: [[0, value], [timestep, value], ...], linear "
        "between the points and constant after the last.",
    ),
    Setting(
        "lr_schedule",
        "training",
        None,
        optional(schedule(0)),
        "RLlib's older way to give `lr` a course; it goes before a number in `lr`.",
    ),
    Setting(
        "grad_clip",
        "training",
        None,
        optional(number(above=0)),
        "The bound on gradients, in the sense of `grad_clip_by`. None: no bound.",
    ),
    Setting(
        "grad_clip_by",
        "training",
        "global_norm",
        one_of("global_norm", "norm", "value"),
        "'global_norm': the norm over all parameters; 'norm': that of each parameter tensor; 'value': each component.",
    ),
    Setting(
        "train_batch_size",
        "training",
        32,
        optional(whole_number(1)),
        "Environment steps that each training iteration samples and learns from, over all learners.",
    ),
    Setting(
        "train_batch_size_per_learner",
        "training",
        None,
        optional(whole_number(1)),
        "The same per learner; goes before `train_batch_size`. None: `train_batch_size` divided by the learners.",
        attribute="_train_batch_size_per_learner",
    ),
    Setting(
        "num_epochs",
        "training",
        1,
        whole_number(1),
        "How often each iteration goes over its train batch.",
        old_names=("num_sgd_iter",),
    ),
    Setting(
        "minibatch_size",
        "training",
        None,
        optional(whole_number(1)),
        "Steps in each minibatch, per learner. None: the whole train batch.",
        old_names=("sgd_minibatch_size",),
    ),
    Setting(
        "shuffle_batch_per_epoch",
        "training",
        False,
        switch(),
        "Shuffle the train batch anew in each epoch.",
        old_names=("shuffle_sequences",),
    ),
    Setting(
        "model",
        "training",
        {},
        mapping(),
        "Settings of the default network, see below. Given again, they are merged with what was there.",
    ),
    Setting(
        "optimizer",
        "training",
        None,
        optional(function("a torch.optim class or a function of the parameters and `lr`")),
        "None: Adam, as one operation over all parameters. Otherwise called as `optimizer(parameters, lr=...)`.",
        class_of="torch.optim.optimizer:Optimizer",
    ),
    Setting(
        "adam_epsilon",
        "training",
        1e-8,
        number(above=0),
        "The constant in the denominator of Adam's step.",
    ),
)

LEARNERS = (
    Setting(
        "num_learners",
        "learners",
        0,
        whole_number(0),
        "Processes that learn, each from its share of the train batch. 0: the algorithm's own process learns.",
        old_names=("num_learner_workers",),
    ),
    Setting(
        "num_cpus_per_learner",
        "learners",
        "auto",
        one_of("auto") | number(0),
        "CPUs that each learner process reserves. 'auto': 1, or 0 where it reserves a GPU.",
        old_names=("num_cpus_per_learner_worker",),
    ),
    Setting(
        "num_gpus_per_learner",
        "learners",
        0,
        number(0),
        "GPUs that each learner reserves; it then learns on one.",
        old_names=("num_gpus_per_learner_worker",),
    ),
    Setting(
        "custom_resources_per_learner",
        "learners",
        {},
        resources(),
        "Custom resources that each learner process reserves.",
    ),
    Setting(
        "local_gpu_idx",
        "learners",
        0,
        whole_number(0),
        "Which GPU the algorithm's own process learns on, where it has any.",
    ),
    Setting(
        "learner_class",
        "learners",
        None,
        optional(kind_of_class("a subclass of Learner")),
        "The class of the learners. None: the algorithm's own.",
        attribute="_learner_class",
        class_of="mltoolkit.rllib.core.learner.learner:Learner",
    ),
    Setting(
        "learner_connector",
        "learners",
        None,
        optional(function("a function that returns a connector or a list of them")),
        "A function of the observation and action space that returns what train batches go through before they are "
        "learned from.",
        attribute="_learner_connector",
    ),
    Setting(
        "add_default_connectors_to_learner_pipeline",
        "learners",
        True,
        switch(),
        "Add the estimation of advantages after one's own connectors.",
    ),
    Setting(
        "learner_config_dict",
        "learners",
        {},
        mapping(),
        "What a custom learner or loss wants to know; read as `self.config.learner_config_dict`.",
    ),
)

RL_MODULE = (
    Setting(
        "model_config",
        "rl_module",
        {},
        optional(Allowed("a dict or a DefaultModelConfig", _model_fault)),
        "Settings of the network, see below; go before those in `model`. Custom modules take any keys.",
        attribute="_model_config",
        old_names=("model_config_dict",),
    ),
    Setting(
        "rl_module_spec",
        "rl_module",
        None,
        optional(
            Allowed(
                "an RLModuleSpec or a subclass of RLModule",
                lambda value: None if hasattr(value, "module_class") or isinstance(value, type) else "",
            )
        ),
        "An `RLModuleSpec` with the class of a custom module, or the class. None: the algorithm's default module.",
        attribute="_rl_module_spec",
        class_of="mltoolkit.rllib.core.rl_module.rl_module:RLModule",
    ),
)

RESOURCES = (
    Setting(
        "num_gpus",
        "resources",
        0,
        number(0),
        "GPUs that the algorithm's own process reserves; it then learns on one.",
    ),
    Setting(
        "num_cpus_for_main_process",
        "resources",
        1,
        number(0),
        "CPUs that the algorithm's own process reserves in a trial of Tune.",
        old_names=("num_cpus_for_driver", "num_cpus_for_local_worker"),
    ),
    Setting(
        "custom_resources_for_main_process",
        "resources",
        {},
        resources(),
        "Custom resources that the algorithm's own process reserves in a trial of Tune.",
    ),
    Setting(
        "placement_strategy",
        "resources",
        "PACK",
        one_of("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"),
        "How the runners of a trial of Tune are placed on nodes.",
    ),
)

FRAMEWORK = (
    Setting(
        "framework",
        "framework",
        "torch",
        one_of("torch"),
        "Networks are torch's. 'tf' and 'tf2' are accepted with a warning that torch is used.",
        attribute="framework_str",
        key="framework",
    ),
    Setting(
        "torch_skip_nan_gradients",
        "framework",
        False,
        switch(),
        "Leave out minibatches whose gradients are not finite, with a warning. False: they are an error.",
    ),
)

DEBUGGING = (
    Setting(
        "log_level",
        "debugging",
        "WARN",
        one_of("DEBUG", "INFO", "WARN", "WARNING", "ERROR"),
        "The level of the logger `mltoolkit.rllib`, in runners too.",
    ),
    Setting(
        "log_sys_usage",
        "debugging",
        True,
        switch(),
        "Report the use of CPU and memory under `perf` in the results.",
    ),
    Setting(
        "seed",
        "debugging",
        None,
        optional(whole_number(0)),
        "Fixes environments, sampling, initialisation and minibatches: the same seed and number of runners give the "
        "same results. None: different each time.",
    ),
)

CALLBACKS = (
    Setting(
        "callbacks_class",
        "callbacks",
        None,
        _one_or_list(
            "a subclass of RLlibCallback or a list of them",
            lambda each: isinstance(each, type) or callable(each),
        ),
        "Classes whose methods are called on the events below.",
        key="callbacks",
        class_of="mltoolkit.rllib.callbacks.callbacks:RLlibCallback",
    ),
    *(
        Setting(
            event,
            "callbacks",
            None,
            _one_or_list("a function or a list of them", callable),
            f"Called {'when' if event == 'on_evaluate_start' else 'after'} {when}.",
            attribute=f"callbacks_{event}",
        )
        for event, when in CALLBACK_EVENTS.items()
    ),
)

CHECKPOINTING = (
    Setting(
        "export_native_model_files",
        "checkpointing",
        False,
        switch(),
        "Write the policy into each checkpoint as a file that torch loads without mltoolkit, too.",
    ),
)

EXPERIMENTAL = (
    Setting(
        "_validate_config",
        "experimental",
        True,
        switch(),
        "Check values before the algorithm is built.",
    ),
)

TRAINING = (
    *LEARNING,
    *LEARNERS,
    *RL_MODULE,
    *RESOURCES,
    *FRAMEWORK,
    *DEBUGGING,
    *CALLBACKS,
    *CHECKPOINTING,
    *EXPERIMENTAL,
)
