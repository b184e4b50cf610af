"""Whole runs side by side, so that the devices of all of them train as one stack: what makes a study fast on a GPU.

Each run is the ordinary server in a thread of its own, and one of them goes on at a time: it stops where it asks its host for what is
better done for all, and when every run has stopped, all are answered at once. Nothing depends on which thread is quicker.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays
from clmm_core.training.cohort import train_cohorts
from clmm_core.training.evaluate import evaluate_cohorts
from clmm_core.training.together import forget
from server.hosts import Answer, Enough, Question
from simulation.in_process import InProcessHosts

Questions = Sequence[tuple[Any, Arrays]]
Replies = Sequence[tuple[Any, Arrays]]
Work = Callable[[Questions, torch.device], Replies]

TOGETHER: Mapping[str, Work] = {
    "train.pretrain": train_cohorts,
    "train.finetune": train_cohorts,
    "train.selftrain": train_cohorts,
    "evaluate.subjects": evaluate_cohorts,
}
"""By message, what answers the questions of all runs."""


class LockstepHosts(InProcessHosts):
    """One host in this process that serves every device of one run."""

    def __init__(self, run: "_Run") -> None:
        super().__init__(1)
        self._run = run

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """See `Hosts`; what is better done for all runs waits until all have come to ask."""
        if message_type not in TOGETHER:
            return super().ask(message_type, questions, reply_kind)
        answers = {host: self._run.answered(message_type, question) for host, question in questions.items()}
        return {
            host: replace(answer, arrays=self._outgoing(host, questions[host].task, answer.arrays)) for host, answer in answers.items()
        }, {}


class Lockstep:
    """Does works side by side on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, works: Sequence[Callable[[LockstepHosts], None]]) -> None:
        """Do every work, each with hosts of its own.

        Raises:
            Exception: what a work raised, once the others have ended.
        """
        runs = [_Run(work) for work in works]
        going = runs
        try:
            while going:
                for run in going:
                    run.go_on()
                going = [run for run in going if run.question is not None]
                self._answer(going)
        finally:
            forget()
        for run in runs:
            if run.error is not None:
                raise run.error

    def _answer(self, runs: Sequence["_Run"]) -> None:
        for message_type, work in TOGETHER.items():
            asking = [run for run in runs if run.question is not None and run.question[0] == message_type]
            if not asking:
                continue
            questions = [(run.question[1].task, run.question[1].arrays) for run in asking if run.question is not None]
            try:
                replies = self._replies(work, questions)
            except Exception as error:
                for run in asking:
                    run.answer = self._explained(error)
                continue
            for run, (reply, arrays) in zip(asking, replies, strict=True):
                run.answer = Answer(reply, arrays)

    def _replies(self, work: Work, questions: Questions) -> Replies:
        """Answer all; where the memory is full of what earlier rounds kept, let go of that first."""
        with suppress(torch.OutOfMemoryError):
            return work(questions, self._device)
        forget()
        torch.cuda.empty_cache()
        return work(questions, self._device)

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, torch.OutOfMemoryError):
            return ConfigError(
                f"{self._device} has no memory left for so many runs ({error}): run the same command again with fewer --jobs"
            )
        return error


class _Run:
    """One work in a thread that only goes on while `go_on` waits for it."""

    def __init__(self, work: Callable[[LockstepHosts], None]) -> None:
        self.question: tuple[str, Question] | None = None
        """What it has stopped for; None once it has ended."""
        self.answer: Answer | Exception | None = None
        self.error: Exception | None = None
        self._its_turn, self._our_turn = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let it go on until it asks again or ends."""
        self.question = None
        self._its_turn.release()
        self._our_turn.acquire()

    def answered(self, message_type: str, question: Question) -> Answer:
        """Stop to ask; return the answer. Called by its own thread.

        Raises:
            Exception: what answering raised.
        """
        self.question = (message_type, question)
        self._our_turn.release()
        self._its_turn.acquire()
        answer, self.answer = self.answer, None
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def _do(self, work: Callable[[LockstepHosts], None]) -> None:
        self._its_turn.acquire()
        try:
            work(LockstepHosts(self))
        except Exception as error:
            self.error = error
        finally:
            self._our_turn.release()
