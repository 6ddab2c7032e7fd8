"""Run a search as its chief: give the trials of a stock Keras Tuner oracle to workers, and record their results.

A worker in this process calls the chief directly; other workers call it through `service`. Each change is on disk
before the call that made it returns, so a search that is killed continues from the last answer.

A running trial is lent to its worker. Each call of the worker renews the lease. When the lease runs out, the trial goes
to the next worker that asks, and later reports of the first worker are refused.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Mapping

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.errors import SearchFailed
from fmnist.files import write_json
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import oracles, parameters, reports, space, stock, tables
from fmnist.search.project import Project
from fmnist.search.pruning import MedianRule
from fmnist.search.record import Record
from fmnist.text import wrap

logger = logging.getLogger(__name__)

ENDS = (TrialStatus.COMPLETED, TrialStatus.INVALID, TrialStatus.FAILED)
"""The statuses with which a worker may end a trial."""

_PUBLISH_SECONDS, _PUBLISH_SHARE = 1.0, 0.01  # least time between two writes, and greatest share of time
_HANG = 1.0  # seconds of a write that count as nobody's silence


class NotYours(Exception):
    """The trial is not (or no longer) this worker's, so its report is refused and changes nothing."""


class _Lease:
    """The time for which a trial stays with a silent worker."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        self.deadline = time.monotonic() + self.seconds


class Chief:
    """One search over one run folder. Its methods may be called from any thread."""

    def __init__(self, run: RunDir, recipe: Recipe, seed: int, grace: float = 0.0) -> None:
        """Begin the search, or continue the one in `run`.

        Args:
            grace: seconds for which a running trial stays reserved at least for the worker that had it, which may
                still live; 0 if it cannot.

        Raises:
            BadInput: the recipe has no search, or its search space holds a value that the configuration refuses.
        """
        self._run = run
        self._project = Project(run.search)
        self._oracle, kept, whole = oracles.load(self._project, recipe, seed)
        self._epochs = recipe.require_search().epochs
        self._workers = {trial_id: record.worker for trial_id, record in kept.items()}
        lent = oracles.lend_again(self._oracle, self._workers, grace > 0)
        self._leases = {worker: _Lease(max(grace, kept[trial_id].lease or 0.0)) for worker, trial_id in lent.items()}
        # Those that had a trial before, and may be gone.
        self._unheard = set(self._leases)
        self._lapse = min((lease.deadline for lease in self._leases.values()), default=math.inf)  # none is earlier
        self._pruning = None
        if recipe.require_search().prune == "median":
            self._pruning = MedianRule(self._oracle.objective.name, self._oracle.objective.direction == "max")
            for trial in self._oracle.trials.values():
                self._pruning.add(trial)
        self._rows: dict[str, tables.Row] = {}
        self._changed_rows = dict(self._oracle.trials)
        ended = (trial for trial in self._oracle.trials.values() if trial.status in stock.ENDED)
        self._unpublished = {one.trial_id: one for one in ended if not self._project.is_published(one.trial_id)}
        self._publish_next = -math.inf
        self._changed = threading.Condition()
        self._awake = math.inf  # when `wait_finished` is to look again, if it waits
        self._stopped = run.used_up.exists()
        # How many trials had ended when the oracle had nothing to do, and its answer.
        self._idle: tuple[int, Trial] | None = None
        if self._oracle.trials:
            if whole:
                # Who is at work, the journal knows of an earlier chief.
                for trial in self._oracle.trials.values():
                    if trial.status == TrialStatus.RUNNING:
                        self._keep(trial)
            else:
                self._project.replace(self._record(trial, reports=True) for trial in self._oracle.trials.values())
            self._save()

    def create_trial(self, worker_id: str, wait: float = 0.0, lease: float = math.inf) -> Trial:
        """Return a trial for `worker_id`: the one that it already has, one to be taken up again, or a new one.

        Its status is RUNNING, IDLE (no trial now: ask again) or STOPPED (no trial will come). With every oracle, the
        values of a running trial include the epochs to train, by Hyperband's names `tuner/epochs` and
        `tuner/initial_epoch`. `tuner/attempt` is the number of failed runs of the trial, and of the trials that it was
        promoted from.

        Args:
            wait: seconds to wait for a trial before the answer is IDLE.
            lease: seconds of silence after which the worker loses the trial.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            while (trial := self._ask(worker_id)).status == TrialStatus.IDLE:
                if time.monotonic() >= deadline:
                    return _copy(trial)
                self._changed.wait(max(0.0, min(deadline, self._lapse) - time.monotonic()))
            if trial.status == TrialStatus.RUNNING:
                is_new = worker_id not in self._leases or worker_id in self._unheard
                self._unheard.discard(worker_id)
                self._leases[worker_id] = _Lease(lease)
                self._lapse = min(self._lapse, self._leases[worker_id].deadline)
                if is_new:
                    self._workers[trial.trial_id] = worker_id
                    # The stock oracle gives each trial a copy of the space, which takes most of a trial's memory.
                    values = trial.hyperparameters.values
                    trial.hyperparameters = stock.assign(self._oracle.hyperparameters, values)
                    self._keep(trial)
                self._save()
            answer = _copy(trial)
            answer.hyperparameters.values = {
                "tuner/epochs": self._epochs,
                "tuner/initial_epoch": 0,
                "tuner/attempt": oracles.failures(self._oracle, trial),
                **answer.hyperparameters.values,
            }
            return answer

    def update_trial(self, worker_id: str, trial_id: str, metrics: Mapping[str, float], step: int) -> Trial:
        """Record the metrics of epoch `step`, counted from 0.

        A trial that was taken up again reports some epochs twice. The same figures change nothing (the first report has
        the true seconds); other figures replace the reports of this epoch and of later ones.

        Returns:
            A copy of the trial. Its status is STOPPED if it is not worth further epochs: the worker then ends it.

        Raises:
            NotYours: the trial is not this worker's.
            ValueError: the objective is not among the metrics.
        """
        with self._changed:
            trial = self._held(worker_id, trial_id)
            stock.check_objective(self._oracle, metrics)
            if not reports.repeats(trial, metrics, step):
                reports.forget(trial, step)
                reports.record(trial, metrics, step, self._oracle.objective)
                self._project.report(trial_id, step, metrics)
                self._changed_rows[trial_id] = trial
            self._save()
            answer = _copy(trial)
            # A trial that was taken up again is not judged by what it reached before, while it reports that once more.
            is_last = trial.metrics.get_history(self._oracle.objective.name)[-1].step == step
            if self._pruning and is_last and self._pruning.prunes(trial):
                answer.status = TrialStatus.STOPPED
            return answer

    def end_trial(self, worker_id: str, trial_id: str, status: str, message: str | None = None) -> None:
        """End a trial as COMPLETED, INVALID (failed, but tried again if the recipe says so) or FAILED, with the reason.

        A repeated call changes nothing; a worker repeats it if the first answer was lost.

        Raises:
            NotYours: the trial is not this worker's.
            ValueError: `status` is not one of these.
        """
        if status not in ENDS:
            raise ValueError(f"a trial cannot end as {status}")
        with self._changed:
            trial = self._oracle.trials.get(trial_id)
            if trial is None or trial.status == TrialStatus.RUNNING or self._workers.get(trial_id) != worker_id:
                trial = self._held(worker_id, trial_id)
                trial.status, trial.message = status, message
                if status == TrialStatus.COMPLETED and (reason := _unusable(trial, self._oracle.objective.name)):
                    trial.status, trial.message = TrialStatus.INVALID, reason
                with stock.calling(self._oracle) as oracle:
                    oracle.end_trial(trial)
                if trial.status == TrialStatus.INVALID:
                    # The trial starts afresh; the reports of this run must not count for the next one.
                    trial.metrics = stock.MetricsTracker()
                elif self._pruning:
                    self._pruning.add(trial)
                del self._leases[worker_id]
                self._keep(trial)
                self._log_end(trial, worker_id)
            self._save()
            self._remove_checkpoints(trial)
            self._changed.notify_all()

    def renew(self, worker_id: str, trial_id: str) -> None:
        """Renew the lease of a worker that has nothing to report yet.

        Raises:
            NotYours: the trial is not this worker's.
        """
        with self._changed:
            self._held(worker_id, trial_id)

    def holder(self, trial_id: str) -> str | None:
        """Return the worker that has a running trial; None if nobody has it."""
        with self._changed:
            return next((w for w, trial in self._oracle.ongoing_trials.items() if trial.trial_id == trial_id), None)

    def get_trial(self, trial_id: str) -> Trial:
        """Return a copy of a trial.

        Raises:
            KeyError: there is no such trial.
        """
        with self._changed:
            return _copy(self._oracle.trials[trial_id])

    def space(self) -> keras_tuner.HyperParameters:
        """Return a copy of the search space."""
        with self._changed:
            return self._oracle.hyperparameters.copy()

    @property
    def running(self) -> int:
        """The number of trials that workers have."""
        with self._changed:
            return len(self._oracle.ongoing_trials)

    @property
    def finished(self) -> bool:
        """Whether every trial of the search has ended, and no other one will begin."""
        with self._changed:
            full = len(self._oracle.trials) >= self._oracle.max_trials
            return (full or self._stopped) and len(self._oracle.end_order) == len(self._oracle.trials)

    def wait_finished(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end of the search; return whether the search has ended."""
        with self._changed:
            self._awake = time.monotonic() + seconds
            over = self._changed.wait_for(lambda: self.finished, seconds)
            # Nobody else asks if all workers are gone.
            self._release_lapsed()
            self._awake = math.inf
            self._save()
            return over

    def close(self) -> None:
        """Write what others read as it is now: the search is interrupted. What cannot be written is in the journal."""
        with self._changed:
            self._publish_next = -math.inf
            try:
                self._save()
            except OSError as error:
                logger.warning("the tables are not of now: %s", error)

    def rows(self) -> list[tables.Row]:
        """Return the rows of the table of trials, as in trials.csv."""
        with self._changed:
            self._update_rows()
            return list(self._rows.values())

    def best(self) -> tables.Best:
        """Return the best trial so far, as in best.json.

        Raises:
            SearchFailed: no trial has succeeded.
        """
        with self._changed:
            best = tables.best(self._oracle)
            if best is None:
                count = len(self._oracle.end_order)
                reason = self._oracle.trials[self._oracle.end_order[-1]].message if count else "none was run"
                raise SearchFailed(f"all {count} trials of the search failed; the last one: {reason}")
            return best

    def _ask(self, worker_id: str) -> Trial:
        self._release_lapsed()
        ended = len(self._oracle.end_order)
        has_one = stock.waiting(self._oracle) or worker_id in self._oracle.ongoing_trials
        if self._idle and ended == self._idle[0] and not has_one:
            # To look through a space that is used up takes long, and many may ask.
            return self._idle[1]
        with stock.calling(self._oracle) as oracle:
            trial = oracle.create_trial(worker_id)
        if trial.status == TrialStatus.STOPPED:
            if len(self._oracle.end_order) < len(self._oracle.trials):
                # Another worker's trial may still have to be taken up again.
                trial.status = TrialStatus.IDLE
            else:
                if (tried := len(self._oracle.trials)) < self._oracle.max_trials:
                    write_json(self._run.used_up, {"trials": tried})
                self._stopped = True
                self._save()
                self._changed.notify_all()
        if trial.status == TrialStatus.IDLE:
            self._idle = ended, trial
        return trial

    def _held(self, worker_id: str, trial_id: str) -> Trial:
        """Return the trial, and renew its lease; raise NotYours if the worker does not hold the trial."""
        self._release_lapsed()
        trial = self._oracle.ongoing_trials.get(worker_id)
        if trial is None or trial.trial_id != trial_id:
            raise NotYours(f"trial {trial_id} is not with {worker_id}")
        self._leases[worker_id].renew()
        if worker_id in self._unheard:
            self._unheard.discard(worker_id)
            self._keep(trial)
        return trial

    def _release_lapsed(self) -> None:
        """Take back the trials of the workers that have been silent for too long."""
        # This process may have been frozen, as with its machine: `wait_finished` would have come back by then.
        self._excuse(time.monotonic() - self._awake)
        if time.monotonic() <= self._lapse:
            return
        for worker_id, lease in list(self._leases.items()):
            if time.monotonic() > lease.deadline:
                del self._leases[worker_id]
                self._unheard.discard(worker_id)
                trial = self._oracle.ongoing_trials.pop(worker_id)
                stock.waiting(self._oracle).append(trial.trial_id)
                del self._workers[trial.trial_id]
                logger.warning("%s is silent: trial %s goes to the next worker", worker_id, trial.trial_id)
                self._changed.notify_all()
                self._keep(trial)
        self._lapse = min((lease.deadline for lease in self._leases.values()), default=math.inf)
        self._save()

    def _log_end(self, trial: Trial, worker_id: str) -> None:
        score = f"{self._oracle.objective.name} {trial.score:.4f}" if trial.score is not None else ""
        result = ", ".join(filter(None, [score, trial.message]))
        ended, of = len(self._oracle.end_order), self._oracle.max_trials
        logger.info(
            "%s\n%s",
            wrap(f"trial {trial.trial_id} {trial.status} on {worker_id}: {result} ({ended} of {of})"),
            wrap(parameters.sentence(space.values(trial.hyperparameters)), "  "),
        )
        if self.finished and (longest := self._longest()) < self._epochs:
            logger.warning(
                "no trial was trained for more than %d of %d epochs; the search wants more trials, or fewer workers",
                longest,
                self._epochs,
            )

    def _longest(self) -> int:
        """Return the epochs of the longest trial that was completed, or of any where none was."""
        trials = [one for one in self._oracle.trials.values() if one.status == TrialStatus.COMPLETED]
        return max(
            (one.hyperparameters.values.get("tuner/epochs", self._epochs) for one in trials), default=self._epochs
        )

    def _remove_checkpoints(self, trial: Trial) -> None:
        """Remove those that no trial can go on from any more, of a trial that has ended and of its parent."""
        if trial.status not in stock.ENDED:
            return
        values = trial.hyperparameters.values
        may_be_promoted = trial.status == TrialStatus.COMPLETED and values.get("tuner/epochs", math.inf) < self._epochs
        for useless in (values.get("tuner/trial_id"), None if may_be_promoted else trial.trial_id):
            if ended := self._oracle.trials.get(useless):
                for attempt in range(oracles.failures(self._oracle, ended) + 1):
                    with contextlib.suppress(OSError):
                        self._run.trial_checkpoint(ended.trial_id, attempt).unlink()

    def _keep(self, trial: Trial) -> None:
        """Note a change of a trial, which `_save` writes."""
        self._project.keep(self._record(trial))
        self._changed_rows[trial.trial_id] = trial
        if trial.status in stock.ENDED:
            self._unpublished[trial.trial_id] = trial

    def _record(self, trial: Trial, *, reports: bool = False) -> Record:
        worker = self._workers.get(trial.trial_id, "")
        lease = self._leases[worker].seconds if self._has(worker, trial) else None
        if lease == math.inf:
            # Of a worker in this process: it is gone with it.
            lease = None
        return oracles.record(self._oracle, trial, worker, self._is_at_work(trial), lease, reports=reports)

    def _save(self) -> None:
        """Write what has changed; what cannot be written now is written by the next call."""
        begin = time.monotonic()
        try:
            self._project.flush()
            self._publish()
        finally:
            self._excuse(time.monotonic() - begin)

    def _excuse(self, seconds: float) -> None:
        """Lengthen the leases by the time for which no worker was heard, if that was long: a disk may hang."""
        if seconds > _HANG:
            for lease in self._leases.values():
                lease.deadline += seconds
            self._lapse += seconds
            self._awake += seconds

    def _publish(self) -> None:
        """Write what others read: the stock files and the tables.

        It is written at the end; before, at most once a second, and less often if it is long.
        """
        begin = time.monotonic()
        if (self._changed_rows or self._unpublished) and (self.finished or begin > self._publish_next):
            for trial_id in list(self._unpublished):
                self._project.publish_trial(self._unpublished[trial_id], self._workers.get(trial_id, ""))
                del self._unpublished[trial_id]
            self._project.publish_oracle(self._oracle.get_state())
            self._update_rows()
            tables.write(self._run, self._oracle, self._rows.values())
            self._changed_rows.clear()
            end = time.monotonic()
            self._publish_next = end + max(_PUBLISH_SECONDS, (end - begin) / _PUBLISH_SHARE)

    def _update_rows(self) -> None:
        for trial_id, trial in self._changed_rows.items():
            # A trial that waits for the next worker is nobody's.
            is_told = trial.status != TrialStatus.RUNNING or self._is_at_work(trial)
            worker = self._workers.get(trial_id, "") if is_told else ""
            self._rows[trial_id] = tables.row(trial, self._oracle.objective.name, worker)

    def _is_at_work(self, trial: Trial) -> bool:
        """Tell whether a worker has the trial, which this chief has heard of."""
        worker = self._workers.get(trial.trial_id, "")
        return self._has(worker, trial) and worker not in self._unheard

    def _has(self, worker: str, trial: Trial) -> bool:
        held = self._oracle.ongoing_trials.get(worker)
        return held is not None and held.trial_id == trial.trial_id


def _unusable(trial: Trial, objective: str) -> str | None:
    """Return the reason why the trial has no usable score; None if it has one."""
    if not trial.metrics.exists(objective) or not trial.metrics.get_history(objective):
        return f"it reported no {objective}"
    value = trial.metrics.get_best_value(objective)
    return None if math.isfinite(value) else f"{objective} is {value}"


def _copy(trial: Trial) -> Trial:
    """Return a copy of the trial for callers, with its values, but without the space, which is the same for all."""
    values = keras_tuner.HyperParameters()
    values.values = dict(trial.hyperparameters.values)
    copied = Trial(values, trial.trial_id, trial.status, trial.message)
    copied.score, copied.best_step = trial.score, trial.best_step
    copied.metrics = stock.MetricsTracker.from_config(trial.metrics.get_config())
    return copied
