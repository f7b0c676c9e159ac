"""Weights & Biases as a mirror that is only written: results live in files, and no file is made from it.

A mirror never asks, never raises and never ends a run: at the first fault it warns in one line and goes
silent. The only module that imports wandb, and only where there is something to mirror.
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
PATIENCE = 15.0  # seconds to reach the server when a run begins
LAST_UPLOADS = 120.0  # seconds to wait for the server when a run ends; the rest stays in its folder
# The server's new and old names: a key for either is a key for both.
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")

_log = logging.getLogger(__name__)
_unreachable: set[str] = set()


@dataclass(frozen=True)
class WandbSettings:
    """Where runs are mirrored.

    Attributes:
        mode: "auto" is online with a key (WANDB_API_KEY or netrc) and offline without; WANDB_MODE, which
            is W&B's own switch, overrides auto. `wandb sync` uploads what was written offline.
        project: W&B project.
        entity: user or team; the key's own where absent.
    """

    mode: str = "auto"
    project: str = "posbench"
    entity: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("wandb mode", self.mode, MODES)

    def resolved(self) -> str:
        """The mode without "auto"."""
        if self.mode != "auto":
            return self.mode
        wished = os.environ.get("WANDB_MODE", "")
        if wished in ("online", "offline", "disabled"):
            return wished
        return "online" if find_key() else "offline"


class WandbLogger:
    """One run; every method does nothing once something has failed or where the mode is "disabled"."""

    def __init__(self, run: wandb.Run | None = None) -> None:
        self._run = run

    def __enter__(self) -> WandbLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(exit_code=0 if kind is None else 1)

    def log_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Curves against train/step."""
        self._write(lambda run: run.log({"train/step": step, **_under("train", metrics)}))

    def log_evaluation(self, length: int, metrics: Mapping[str, float]) -> None:
        """Curves against eval/length, in tokens."""
        self._write(lambda run: run.log({"eval/length": length, **_under("eval", metrics)}))

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        def write(run: wandb.Run) -> None:
            import wandb

            run.log({f"tables/{name}": wandb.Table(dataframe=frame.reset_index(drop=True))})

        self._write(write)

    def log_figures(self, paths: Iterable[Path | str]) -> None:
        """Images, named after their files; what is no PNG, such as the PDF beside it, is left out."""

        def write(run: wandb.Run) -> None:
            import wandb

            images = {f"figures/{Path(path).stem}": path for path in paths if Path(path).suffix == ".png"}
            if images:
                run.log({name: wandb.Image(str(path)) for name, path in images.items()})

        self._write(write)

    def log_checkpoint(self, path: Path | str, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        """A file or folder as an artifact of type `model`."""

        def write(run: wandb.Run) -> None:
            import wandb

            artifact = wandb.Artifact(
                re.sub(r"[^\w.-]", "-", name), type="model", metadata=dict(metadata or {})
            )
            # A checkpoint never changes once it has its name: no copy of it is kept in the user's home.
            if Path(path).is_dir():
                artifact.add_dir(str(path), policy="immutable")
            else:
                artifact.add_file(str(path), policy="immutable")
            run.log_artifact(artifact)

        self._write(write)

    def log_summary(self, numbers: Mapping[str, Any]) -> None:
        """What a table of runs is sorted by."""
        self._write(lambda run: run.summary.update(dict(numbers)))

    def close(self, exit_code: int = 0) -> None:
        """End the run; online, wait a while for its last uploads."""
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
    """Begin a run, after ending the process's previous one.

    Args:
        settings: mode, project and entity.
        job_type: train, evaluate or report.
        name: scheme-length-seed.
        group: the experiment.
        config: the resolved config.
        folder: where wandb keeps its own files.
    """
    mode = settings.resolved()
    if mode == "disabled":
        return WandbLogger()
    key = find_key() if mode == "online" else None
    if mode == "online" and (key is None or _server() in _unreachable):
        if key is None:
            _warn("is written offline", "mode online, but neither WANDB_API_KEY nor netrc has a key")
        mode = "offline"
    about = {
        "project": settings.project,
        "entity": settings.entity,
        "job_type": job_type,
        "name": name,
        "group": group,
        "config": dict(config),
    }
    if mode == "online":
        try:
            return WandbLogger(_begin("online", Path(folder), key, about))
        except Exception as error:
            _warn("is written offline from here on", error)
            _unreachable.add(_server())
    try:
        return WandbLogger(_begin("offline", Path(folder), None, about))
    except Exception as error:
        _warn("mirrors nothing of this run", error)
        return WandbLogger()


def find_key() -> str | None:
    """The API key from WANDB_API_KEY or netrc.

    Looked up here and handed over, since wandb asks at a terminal where it finds none.
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


def _begin(mode: str, folder: Path, key: str | None, about: dict[str, Any]) -> wandb.Run:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_SILENT"] = "true"  # what is printed before a run has its settings
    for kind in ("DATA", "CACHE"):  # by default in the user's home, which may be small or read-only
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder.resolve() / kind.lower()))
    import wandb

    run = wandb.init(
        **about,
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        reinit="finish_previous",
        settings=wandb.Settings(
            api_key=key,
            silent=True,
            console="off",  # the project's own output stays its own
            disable_git=True,  # it warns wherever results are outside a repository
            symlink=False,  # "latest-run" would be raced for by processes side by side
            x_disable_stats=True,
            init_timeout=PATIENCE,
            finish_timeout=LAST_UPLOADS,
        ),
    )
    run.define_metric("train/*", step_metric="train/step")
    run.define_metric("eval/*", step_metric="eval/length")
    return run


def _under(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _warn(consequence: str, error: object) -> None:
    line = " ".join(str(error).split()) or type(error).__name__
    _log.warning(
        "W&B %s (%s); results are in files as always, wandb_mode=disabled silences this", consequence, line
    )


def log_report(
    folder: Path, drawn: Sequence[Path], name: str, config: dict[str, Any], runtime: RuntimeSettings
) -> None:
    """The tables and figures of a folder on W&B."""
    import pandas as pd

    settings = WandbSettings(runtime.wandb_mode, runtime.wandb_project)
    where = folder.parent / "wandb"
    with open_wandb_logger(
        settings, job_type="report", name=name, group=name, config=config, folder=where
    ) as run:
        for path in drawn:
            if path.suffix == ".csv" and path.parent.name == "tables":
                run.log_table(path.stem, pd.read_csv(path))
        run.log_figures(drawn)
