"""Weights & Biases; the only module that imports wandb, which it does only if there is something to write.

A model has one run, whose id is that of the model. Its training and each of its evaluations write to this run.
"""

from __future__ import annotations

import netrc
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from posbench.errors import unknown
from posbench.files import Lock
from posbench.tracking.run import RunInfo, warn

if TYPE_CHECKING:
    import pandas as pd
    import wandb

MODES = ("auto", "online", "offline", "disabled")
CONNECT_TIMEOUT = 15.0  # seconds to wait for the server at the start of a run
UPLOAD_TIMEOUT = 120.0  # seconds to wait for uploads at the end of a run; what is left stays in the folder
START_TIMEOUT = (
    120.0  # seconds to wait for W&B's process on this machine, which starts slowly if the CPU is busy
)
# Seconds to wait for other processes that write to the same run. Several workers can evaluate one model, and each holds
# the run for up to UPLOAD_TIMEOUT at its end.
LOCK_TIMEOUT = 8 * UPLOAD_TIMEOUT
# The old and the new host of the server; a key for one is valid for both.
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
# Variables that describe the server and the user. All others describe a run, which may be the one that started this
# process: with its WANDB_RUN_ID, every model would be written to that run.
KEPT_VARIABLES = re.compile(
    r"WANDB_(MODE|DISABLED|API_KEY|BASE_URL|ENTITY|PROJECT|SILENT|USERNAME|USER_EMAIL|IDENTITY_TOKEN_FILE|CREDENTIALS_FILE|(DATA|CACHE|CONFIG|ARTIFACT)_DIR|"
    r"INSECURE_.*|HTTPS?_.*|.*PROXY|CA_.*)"
)

_unreachable: set[str] = set()


@dataclass(frozen=True)
class WandbSettings:
    """Mode and project of W&B runs.

    Attributes:
        mode: online, offline, disabled, or auto: WANDB_MODE if it is set, else online with an API key (WANDB_API_KEY or
            netrc) and offline without. `wandb sync` uploads offline runs.
        project: W&B project; empty is WANDB_PROJECT or, without one, posbench.
        entity: user or team, by default that of the key.
    """

    mode: str = "auto"
    project: str = ""
    entity: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("wandb mode", self.mode, MODES)

    def resolved(self) -> str:
        """Returns online, offline or disabled."""
        if self.mode != "auto":
            return self.mode
        mode = os.environ.get("WANDB_MODE", "")
        if mode in ("online", "offline", "disabled", "dryrun"):
            return "offline" if mode == "dryrun" else mode  # its name in older versions of W&B
        return "online" if find_key() else "offline"


class WandbRun:
    """A W&B run. Its methods raise the errors of wandb."""

    def __init__(self, run: wandb.Run, lock: Lock) -> None:
        self._run, self._lock, self._opened = run, lock, time.monotonic()

    def log_metrics(self, axis: str, at: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics against an axis, train/step or eval/length, which W&B shows as the x axis of their charts."""
        self._run.log({axis: at, **metrics})

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table."""
        import wandb

        self._run.log({f"tables/{name}": wandb.Table(dataframe=frame.reset_index(drop=True))})

    def log_figures(self, paths: Iterable[Path]) -> None:
        """Logs PNG files as images of their names."""
        import wandb

        self._run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in paths})

    def log_checkpoint(self, folder: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """Logs a folder as an artifact of type `model`, of which this run is the producer."""
        import wandb

        artifact = wandb.Artifact(artifact_name(name), type="model", metadata=dict(metadata))
        # Checkpoints are never modified, so W&B does not have to keep a copy in the user's home.
        artifact.add_dir(str(folder), policy="immutable")
        self._run.log_artifact(artifact)

    def use_checkpoint(self, name: str) -> None:
        """Records that this run reads the artifact of another; W&B has no such record of offline runs.

        An artifact that is not on the server, such as that of a model that was trained offline, is one warning.
        """
        if self._run.offline:
            return
        try:
            self._run.use_artifact(f"{artifact_name(name)}:latest")
        except Exception as error:
            warn("leaves out which models a run reads", error)

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Sets values of the summary of the run."""
        self._run.summary.update(dict(numbers))

    def alert(self, title: str, text: str) -> None:
        """Sends an alert to the user."""
        self._run.alert(title, text, level="ERROR")

    def finish(self, succeeded: bool) -> None:
        """Ends the run; online, waits up to UPLOAD_TIMEOUT for uploads."""
        try:
            self._run.finish(exit_code=0 if succeeded else 1)
            # The folder of a run is named by its second: another of this id in the same one would overwrite it.
            time.sleep(max(0.0, self._opened + 1.0 - time.monotonic()))
        finally:
            self._lock.release()


def artifact_name(name: str) -> str:
    """Returns a name with the characters that W&B allows."""
    return re.sub(r"[^\w.-]", "-", name)


def open_wandb_run(settings: WandbSettings, info: RunInfo) -> WandbRun | None:
    """Starts or resumes a run; ends the previous run of the process. Returns None if W&B is disabled."""
    mode = settings.resolved()
    if mode == "disabled":
        return None
    key = find_key() if mode == "online" else None
    if mode == "online" and (key is None or _server() in _unreachable):
        if key is None:
            warn("is written offline", "mode online, but neither WANDB_API_KEY nor netrc has a key")
        mode = "offline"
    folder = info.results_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / f"{info.id}.lock")
    lock.acquire(timeout=LOCK_TIMEOUT)
    try:
        if mode == "online":
            try:
                return WandbRun(_init("online", folder, key, settings, info), lock)
            except Exception as error:
                import wandb
                from wandb.errors import CommError

                if isinstance(error, CommError | OSError):
                    warn("is written offline from here on", error)
                    _unreachable.add(_server())
                else:
                    warn("writes a run offline", error)
                wandb.teardown()  # its service keeps the id of the run that it could not start
        return WandbRun(_init("offline", folder, None, settings, info), lock)
    except Exception:
        lock.release()
        raise


def find_key() -> str | None:
    """Returns the API key from WANDB_API_KEY or netrc.

    It is passed to wandb explicitly, because wandb prompts for a key on a terminal if it finds none.
    """
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    candidates = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    hosts = [urlsplit(_server()).netloc] if os.environ.get("WANDB_BASE_URL") else HOSTS
    for path in candidates:
        try:
            entries = netrc.netrc(Path(path).expanduser()).hosts
        except (OSError, RuntimeError, netrc.NetrcParseError):
            continue
        for host in hosts:
            if host in entries and entries[host][2]:
                return entries[host][2]
    return None


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL", "")


def _init(mode: str, folder: Path, key: str | None, settings: WandbSettings, info: RunInfo) -> wandb.Run:
    os.environ["WANDB_SILENT"] = "true"  # for output before the settings of the run apply
    for kind in ("DATA", "CACHE"):  # by default in the user's home, which may be small or read-only
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder.resolve() / kind.lower()))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        if not KEPT_VARIABLES.fullmatch(name):
            del os.environ[name]
    import wandb

    run = wandb.init(
        project=settings.project or os.environ.get("WANDB_PROJECT") or "posbench",
        entity=settings.entity,
        id=info.id,
        # An offline run cannot ask the server; `wandb sync` joins the runs of one id.
        resume="allow" if mode == "online" else None,
        job_type=info.job_type,
        name=info.name,
        group=info.group,
        config=dict(info.config),
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        reinit="finish_previous",
        settings=wandb.Settings(
            api_key=key,
            silent=True,
            console="off",  # does not capture the output of posbench
            disable_git=True,  # warns if results are outside a repository
            symlink=False,  # parallel processes would race for "latest-run"
            x_disable_stats=True,
            init_timeout=CONNECT_TIMEOUT if mode == "online" else START_TIMEOUT,
            x_service_wait=START_TIMEOUT,
            finish_timeout=UPLOAD_TIMEOUT,
        ),
    )
    run.define_metric("train/*", step_metric="train/step")
    run.define_metric("eval/*", step_metric="eval/length")
    return run
