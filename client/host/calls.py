"""How programs of this project call a host: where, as whom, and how a refusal reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from clmm_core.errors import ClmmError, ConfigError

TIMEOUT_S = 30.0
"""Of a call that does a thing and answers."""
CONNECT_S = 10.0


class HostCallError(ClmmError):
    """The host refused, or was not there; the message says why and what to do."""


def credentials_of(authority: Path | None) -> grpc.ChannelCredentials | None:
    """Return TLS credentials that trust an authority; None for none.

    Raises:
        ConfigError: its certificate cannot be read.
    """
    if authority is None:
        return None
    try:
        return grpc.ssl_channel_credentials(authority.read_bytes())
    except OSError as error:
        raise ConfigError(f"--authority {authority}: expected a certificate (PEM), cannot read it: {error}") from error


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of whoever has a token."""
    return (("authorization", f"Bearer {token}"),)


@contextmanager
def calling(target: str, authority: Path | None) -> Iterator[grpc.Channel]:
    """Give a channel to a host.

    Raises:
        HostCallError: a call in the block failed; says what the host said.
        ConfigError: the authority's certificate cannot be read.
    """
    credentials = credentials_of(authority)
    channel: Any = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    try:
        with channel:
            yield channel
    except grpc.RpcError as error:
        raise HostCallError(f"host at {target}: {error.code().name}: {error.details()}") from error
