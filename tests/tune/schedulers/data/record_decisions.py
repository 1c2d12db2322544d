"""Record what Ray's own schedulers decide on synthetic learning curves. Needs Ray; the tests only need the recording.

``python record_decisions.py`` writes ``decisions.json`` beside this file: for each case the options of the scheduler
and one letter for each result that it was shown (C, P or S), "r" with the index of each trial that it stopped or woke
through the controller. :func:`curves` and :func:`sequence` are imported by the tests, so that both see the same.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

RECORDING = Path(__file__).with_name("decisions.json")


def curve(seed: int, index: int, length: int) -> list[float]:
    """A noisy learning curve; some values are exactly equal among trials, so that ties are decided too."""
    rng = random.Random(f"{seed}/{index}")
    end, rate, noise = rng.random(), rng.uniform(0.02, 0.5), rng.choice([0.0, 0.01, 0.1])
    values = [end * (1 - (1 - rate) ** (t + 1)) + rng.gauss(0, noise) for t in range(length)]
    return [round(value, 2) for value in values] if index % 3 == 0 else values


def assignment(seed: int, num_trials: int, brackets: int) -> list[int]:
    """The bracket of each trial."""
    rng = random.Random(f"{seed}/brackets")
    return [rng.randrange(brackets) for _ in range(num_trials)]


CASES = [
    *(
        {
            "scheduler": "asha",
            "seed": 100 * i + 10 * brackets + stop,
            "trials": trials,
            "length": length,
            "step": step,
            "options": {
                "max_t": max_t,
                "grace_period": grace,
                "reduction_factor": factor,
                "brackets": brackets,
                "mode": mode,
                "stop_last_trials": bool(stop),
            },
        }
        for i, (trials, length, step, max_t, grace, factor, mode) in enumerate(
            [
                (60, 100, 1, 100, 1, 4, "max"),
                (60, 27, 1, 27, 1, 3, "min"),
                (40, 70, 1, 64, 2, 2, "max"),
                (40, 30, 1, 30, 1, 2.5, "min"),
                (40, 60, 3, 50, 4, 2, "max"),
                (30, 40, 7, 40, 1, 3, "min"),
            ]
        )
        for brackets in (1, 3)
        for stop in (0, 1)
    ),
    *(
        {
            "scheduler": "hyperband",
            "seed": 7000 + 10 * i + stop,
            "trials": trials,
            "length": max_t + 10,
            "step": 1,
            "options": {"max_t": max_t, "reduction_factor": eta, "mode": mode, "stop_last_trials": bool(stop)},
        }
        for i, (trials, max_t, eta, mode) in enumerate(
            [
                (143, 81, 3, "max"),
                (40, 16, 4, "min"),
                (60, 16, 2, "max"),
                (22, 9, 3, "min"),
                (30, 50, 3, "max"),
                (3, 27, 3, "min"),
            ]
        )
        for stop in (0, 1)
    ),
    *(
        {
            "scheduler": "median",
            "seed": 9000 + i,
            "trials": trials,
            "length": length,
            "step": step,
            "options": {
                "time_attr": "training_iteration",
                "grace_period": grace,
                "min_samples_required": samples,
                "mode": mode,
                "hard_stop": hard,
                "min_time_slice": time_slice,
            },
        }
        for i, (trials, length, step, grace, samples, mode, hard, time_slice) in enumerate(
            [
                (40, 30, 1, 5, 3, "max", True, 0),
                (40, 30, 1, 1, 1, "min", True, 0),
                (30, 40, 2, 8, 5, "max", False, 4),
                (30, 40, 3, 0, 3, "min", True, 6),
            ]
        )
    ),
]


class Sequence:
    """Shows a scheduler the results of trials in a seeded order and notes what it decides.

    Parameters
    ----------
    case : dict
        One of ``CASES``.
    scheduler : TrialScheduler
        Ray's or ours.
    make_trial : callable
        Gives a trial object for an index, with ``status`` and ``trial_id``.
    """

    def __init__(self, case, scheduler, make_trial):
        self.case = case
        self.scheduler = scheduler
        self.trials = [make_trial(index) for index in range(case["trials"])]
        self.by_id = {trial.trial_id: trial for trial in self.trials}
        self.indices = {trial.trial_id: index for index, trial in enumerate(self.trials)}
        self.out = []
        self.search_alg = None

    def run(self) -> str:
        case = self.case
        rng = random.Random(f"{case['seed']}/order")
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)
        curves = [curve(case["seed"], index, case["length"] + 1) for index in range(case["trials"])]
        steps = dict.fromkeys(range(case["trials"]), 0)
        slots = 8
        waiting = list(steps)
        running: list[int] = []
        self.woken: list[int] = []
        while True:
            while (waiting or self.woken) and len(running) < slots:
                index = self.woken.pop(0) if self.woken else waiting.pop(0)
                self.trials[index].status = "RUNNING"
                running.append(index)
            if not running:
                return "".join(self.out)
            index = running[rng.randrange(len(running))]
            trial = self.trials[index]
            steps[index] += case["step"]
            time = steps[index]
            result = {"training_iteration": time, "score": curves[index][min(time, case["length"])], "done": False}
            if time >= case["length"]:
                running.remove(index)
                trial.status = "TERMINATED"
                self.scheduler.on_trial_complete(self, trial, result)
                self.out.append("-")
                self.wake()
                continue
            self.current = index
            decision = self.scheduler.on_trial_result(self, trial, result)
            self.out.append(decision[0])
            if decision != "CONTINUE":
                running.remove(index)
                trial.status = "PAUSED" if decision == "PAUSE" else "TERMINATED"
                if decision == "PAUSE" and case["scheduler"] == "median":
                    waiting.append(index)
            self.wake()

    def wake(self) -> None:
        """Start the trials again that Ray's HyperBand marks instead of telling the controller."""
        for bracket in (
            {id(b): b for b, _ in getattr(self.scheduler, "_trial_info", {}).values()}.values()
            if (hasattr(self.scheduler, "_hyperbands"))
            else ()
        ):
            for trial in sorted(bracket.trials_to_unpause, key=lambda trial: self.indices[trial.trial_id]):
                if trial.status == "PAUSED":
                    self.resume_trial(trial)

    # The controller.

    def get_trials(self):
        return self.trials

    def get_live_trials(self):
        return [trial for trial in self.trials if trial.status != "TERMINATED"]

    def get_trial(self, trial_id):
        return self.by_id[trial_id]

    def stop_trial(self, trial) -> None:
        self.out.append(f"s{self.indices[trial.trial_id]}.")
        trial.status = "TERMINATED"
        self.scheduler.on_trial_remove(self, trial)

    def resume_trial(self, trial) -> None:
        trial.status = "PENDING"
        self.woken.append(self.indices[trial.trial_id])
        self.woken.sort()


def main() -> None:
    import numpy as np
    from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandScheduler, MedianStoppingRule

    class RayTrial:
        is_saving = False

        def __init__(self, index):
            self.trial_id = f"t{index:05d}"
            self.status = "PENDING"

        def __hash__(self):
            return hash(self.trial_id)

        def is_finished(self):
            return self.status == "TERMINATED"

    classes = {"asha": AsyncHyperBandScheduler, "hyperband": HyperBandScheduler, "median": MedianStoppingRule}
    recorded = []
    for case in CASES:
        brackets = iter(assignment(case["seed"], case["trials"], case["options"].get("brackets", 1)))
        np.random.choice = lambda *args, brackets=brackets, **kwargs: next(brackets)  # Ray draws brackets with it
        scheduler = classes[case["scheduler"]](metric="score", **case["options"])
        recorded.append(Sequence(case, scheduler, RayTrial).run())
    RECORDING.write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
