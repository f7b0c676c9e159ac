"""Recognition of errors of devices: out of memory, and those after which a process cannot use its GPU."""

import torch

# Parts of the messages of libraries that raise a plain RuntimeError, such as torch, Triton and Inductor.
MESSAGES = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# The start of the message of an error after which a process cannot use its GPU any more.
CUDA_ERROR = "CUDA error"


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that a device or the host has run out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def is_end_of_device(error: BaseException) -> bool:
    """Returns whether an error, such as an assertion on the device, ends the use of the GPU by this process."""
    return isinstance(error, RuntimeError) and CUDA_ERROR in str(error) and not is_out_of_memory(error)
