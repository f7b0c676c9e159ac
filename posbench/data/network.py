"""A quick check that the Hugging Face hub is reachable; its own client retries for half a minute."""

from posbench.data.source import OFFLINE
from posbench.errors import DataError

SECONDS = 4  # timeout of the check


def need_hub(what: str, instead: str = OFFLINE) -> None:
    """Raises DataError within seconds if `what` cannot be downloaded; `instead` names alternatives."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            return
        except Exception:  # of requests or httpx, by the version; any failure means the same here
            why = f"{constants.ENDPOINT} cannot be reached"
    raise DataError(f"{what} has to be downloaded, but {why}: connect, or choose {instead}")
