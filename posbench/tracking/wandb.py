"""Weights & Biases as a write-only mirror: results are in files, and nothing is read back.

The mirror never prompts, raises or ends a run: at the first error it logs a one-line warning and stops. This is the only
module that imports wandb, and it does so only if there is something to write.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from posbench.config.schema import RuntimeSettings
from posbench.errors import unknown

if TYPE_CHECKING:
    import pandas as pd
    import wandb

MODES = ("auto", "online", "offline", "disabled")
CONNECT_TIMEOUT = 15.0  # seconds to wait for the server at the start of a run
UPLOAD_TIMEOUT = 120.0  # seconds to wait for uploads at the end of a run; what is left stays in the folder
# The old and the new host of the server; a key for one is valid for both.
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
# Variables that describe the server and the user. All others describe a run, which may be the one that started this
# process: with its WANDB_RUN_ID, every model would be written to that run.
KEPT_VARIABLES = re.compile(
    r"WANDB_(MODE|DISABLED|API_KEY|BASE_URL|ENTITY|PROJECT|SILENT|USERNAME|USER_EMAIL|IDENTITY_TOKEN_FILE|CREDENTIALS_FILE|(DATA|CACHE|CONFIG|ARTIFACT)_DIR|"
    r"INSECURE_.*|HTTPS?_.*|.*PROXY|CA_.*)"
)

_log = logging.getLogger(__name__)
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
        if mode in ("online", "offline", "disabled"):
            return mode
        return "online" if find_key() else "offline"


class WandbLogger:
    """A W&B run. All methods do nothing after the first error, or if the mode is disabled."""

    def __init__(self, run: wandb.Run | None = None) -> None:
        self._run = run

    def __enter__(self) -> WandbLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(exit_code=0 if kind is None else 1)

    def log_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs training metrics against train/step."""
        self._write(lambda run: run.log({"train/step": step, **_prefixed("train", metrics)}))

    def log_evaluation(self, length: int, metrics: Mapping[str, float]) -> None:
        """Logs evaluation metrics against eval/length, in tokens."""
        self._write(lambda run: run.log({"eval/length": length, **_prefixed("eval", metrics)}))

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Logs a table."""

        def write(run: wandb.Run) -> None:
            import wandb

            run.log({f"tables/{name}": wandb.Table(dataframe=frame.reset_index(drop=True))})

        self._write(write)

    def log_figures(self, paths: Iterable[Path | str]) -> None:
        """Logs PNG files as images of their names; skips other files, such as their PDF versions."""

        def write(run: wandb.Run) -> None:
            import wandb

            images = {f"figures/{Path(path).stem}": path for path in paths if Path(path).suffix == ".png"}
            if images:
                run.log({name: wandb.Image(str(path)) for name, path in images.items()})

        self._write(write)

    def log_checkpoint(self, path: Path | str, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Logs a file or folder as an artifact of type `model`."""

        def write(run: wandb.Run) -> None:
            import wandb

            artifact = wandb.Artifact(
                re.sub(r"[^\w.-]", "-", name), type="model", metadata=dict(metadata or {})
            )
            # Checkpoints are never modified, so W&B does not have to keep a copy in the user's home.
            if Path(path).is_dir():
                artifact.add_dir(str(path), policy="immutable")
            else:
                artifact.add_file(str(path), policy="immutable")
            run.log_artifact(artifact)

        self._write(write)

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """Sets values of the summary of the run."""
        self._write(lambda run: run.summary.update(dict(numbers)))

    def close(self, exit_code: int = 0) -> None:
        """Ends the run; online, waits up to UPLOAD_TIMEOUT for uploads."""
        self._write(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _write(self, write: Callable[[wandb.Run], object]) -> None:
        if self._run is None:
            return
        try:
            write(self._run)
        except Exception as error:
            _warn("mirrors nothing more of this run", error)
            self._run = None


def open_wandb_logger(
    settings: WandbSettings,
    *,
    job_type: str,
    name: str,
    group: str,
    config: Mapping[str, Any],
    folder: Path | str,
) -> WandbLogger:
    """Starts a run and ends the previous run of the process.

    Args:
        settings: mode, project and entity.
        job_type: train, evaluate or report.
        name: display name of the run, scheme-length-seed.
        group: name of the experiment.
        config: resolved settings.
        folder: folder of the files of wandb.
    """
    mode = settings.resolved()
    if mode == "disabled":
        return WandbLogger()
    key = find_key() if mode == "online" else None
    if mode == "online" and (key is None or _server() in _unreachable):
        if key is None:
            _warn("is written offline", "mode online, but neither WANDB_API_KEY nor netrc has a key")
        mode = "offline"
    arguments = {
        "project": settings.project or os.environ.get("WANDB_PROJECT") or "posbench",
        "entity": settings.entity,
        "job_type": job_type,
        "name": name,
        "group": group,
        "config": dict(config),
    }
    if mode == "online":
        try:
            return WandbLogger(_init("online", Path(folder), key, arguments))
        except Exception as error:
            _warn("is written offline from here on", error)
            _unreachable.add(_server())
    try:
        return WandbLogger(_init("offline", Path(folder), None, arguments))
    except Exception as error:
        _warn("mirrors nothing of this run", error)
        return WandbLogger()


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


def _init(mode: str, folder: Path, key: str | None, arguments: dict[str, Any]) -> wandb.Run:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_SILENT"] = "true"  # for output before the settings of the run apply
    for kind in ("DATA", "CACHE"):  # by default in the user's home, which may be small or read-only
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder.resolve() / kind.lower()))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        if not KEPT_VARIABLES.fullmatch(name):
            del os.environ[name]
    import wandb

    run = wandb.init(
        **arguments,
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
            init_timeout=CONNECT_TIMEOUT,
            finish_timeout=UPLOAD_TIMEOUT,
        ),
    )
    run.define_metric("train/*", step_metric="train/step")
    run.define_metric("eval/*", step_metric="eval/length")
    return run


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _warn(consequence: str, error: object) -> None:
    line = " ".join(str(error).split()) or type(error).__name__
    _log.warning(
        "W&B %s (%s); results are in files as always, wandb_mode=disabled silences this", consequence, line
    )


def log_report(
    folder: Path, paths: Sequence[Path], name: str, config: dict[str, Any], runtime: RuntimeSettings
) -> None:
    """Logs the tables and figures of a report as a W&B run."""
    import pandas as pd

    settings = WandbSettings(runtime.wandb_mode, runtime.wandb_project)
    with open_wandb_logger(
        settings, job_type="report", name=name, group=name, config=config, folder=folder.parent / "wandb"
    ) as run:
        for path in paths:
            if path.suffix == ".csv" and path.parent.name == "tables":
                run.log_table(path.stem, pd.read_csv(path))
        run.log_figures(paths)
