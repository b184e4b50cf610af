"""PyTorch's exporters say much of their own insides: deprecations between their parts, packages they could use. Not for our users."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

CHATTY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.utils._pytree", "torchao", "executorch")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep warnings, and what these loggers say below an error, from being shown."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
