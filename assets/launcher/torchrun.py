"""Several processes train one run: torchrun under Dagster Pipes, with every checkpoint reported as it is published."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from typing import IO

import dagster as dg

from mech_pipeline.errors import MechError
from mech_pipeline.parent import end_with_parent
from mech_pipeline.pipeline.training.publisher import OnCheckpoint, Saved
from mech_pipeline.progress import Emit, Progressed
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

_POLL_SECONDS = 0.3
_LAST_WORDS = 2000


@dataclass
class _Attempt:
    """What one start of torchrun came to."""

    saved: int = 0
    problem: MechError | None = None
    code: int = 0
    last_words: str = ""


def train_in_processes(
    context: dg.AssetExecutionContext,
    store: Store,
    spec: RunSpec,
    on_checkpoint: OnCheckpoint,
    emit: Emit,
) -> int:
    """Trains what is missing of a run in `training.processes` processes; returns the number of checkpoints written.

    If a process is killed, training goes on from the last checkpoint, as long as each start gets further.

    Raises:
        MechError: training failed, or a process died before anything was published; what was published is kept.
    """
    saved = 0
    while True:
        attempt = _start(context, store, spec, on_checkpoint, emit)
        saved += attempt.saved
        if attempt.problem is not None:
            raise attempt.problem
        if attempt.code == 0:
            return saved
        context.log.error(attempt.last_words)
        if not attempt.saved:
            raise MechError(
                f"training {spec.run} in {spec.training.processes} processes ended with code {attempt.code}, before "
                "any checkpoint was published",
                "the run's log has the last words of torchrun; when mended, run it again: what is published is kept",
            )
        emit(f"train {spec.run}: a process died (code {attempt.code}); continuing from the last checkpoint")


def _start(
    context: dg.AssetExecutionContext,
    store: Store,
    spec: RunSpec,
    on_checkpoint: OnCheckpoint,
    emit: Emit,
) -> _Attempt:
    attempt = _Attempt()
    with (
        dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        ) as session,
        tempfile.TemporaryFile() as output,
    ):
        process = _torchrun(context, session, store, spec, output)
        seen = 0
        try:
            while True:
                ended = process.poll() is not None
                time.sleep(_POLL_SECONDS)  # after the look, so that what was written before the end has been read
                messages = list(session.get_custom_messages())
                for message in messages[seen:]:
                    if "saved" in message:
                        on_checkpoint(Saved(**message["saved"]))
                        attempt.saved += 1
                    elif "line" in message:
                        emit(message["line"])
                    elif "progress" in message:
                        emit(Progressed(**message["progress"]))
                    else:
                        attempt.problem = MechError(message["problem"], message["next_step"])
                if ended and len(messages) == seen:
                    break
                seen = len(messages)
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends its ranks
                process.wait()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _LAST_WORDS))
        attempt.code, attempt.last_words = process.returncode, output.read().decode(errors="replace")
    return attempt


def _torchrun(
    context: dg.AssetExecutionContext, session: dg.PipesSession, store: Store, spec: RunSpec, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(spec.training.processes)]
    command += ["-m", "mech_pipeline.train", spec.run, "--store", store.root, "--home", str(spec.home)]
    environment = {
        **os.environ,
        **session.get_bootstrap_env_vars(),
        "MECH_DAGSTER_RUN": context.run.run_id,
        "OMP_NUM_THREADS": str(spec.training.threads),
    }
    # A worker that is killed leaves no trainers behind: torchrun ends its ranks when it is asked to end.
    asked_to_end = partial(end_with_parent, signal.SIGTERM)
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, preexec_fn=asked_to_end)
