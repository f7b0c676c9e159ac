"""Is the Hugging Face hub within reach? Asked once and briefly: its own client retries for half a minute."""

from posbench.data.source import OFFLINE
from posbench.errors import DataError

SECONDS = 4


def need_hub(what: str, instead: str = OFFLINE) -> None:
    """Raises, within seconds, where what is asked for cannot be downloaded."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            return
        except Exception:  # requests or httpx, by the version: any failure means the same here
            why = f"{constants.ENDPOINT} cannot be reached"
    raise DataError(f"{what} has to be downloaded, but {why}: connect, or choose {instead}")
