"""One thing that is not as it should be, said so that an operator can act."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from clmm_core.errors import ClmmError

SOON = timedelta(days=30)
"""Before a certificate ends, it is said."""
SET_CLOCK = "set the clock (`timedatectl set-ntp true`)"


@dataclass(frozen=True)
class Finding:
    """What was expected, what was found, and what to do."""

    text: str
    is_fatal: bool = True
    """Whether it keeps a machine from taking part."""


def findings_of(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Do one check; what it cannot read is a finding, so that the checks after it are done too."""
    try:
        return check()
    except ClmmError as error:
        return [Finding(str(error))]


def date_findings(what: object, certificate: x509.Certificate, now: datetime, renew: str) -> list[Finding]:
    """Return whether a certificate counts now, by this machine's clock, which may be what is wrong."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"this machine's clock says {_said(now)}"
    if now < begins:
        return [Finding(f"{what}: counts from {_said(begins)} on, but {clock}: {SET_CLOCK}")]
    if now >= ends:
        return [Finding(f"{what}: ended at {_said(ends)}; {clock}. If that is right: {renew}. If not: {SET_CLOCK}")]
    if now >= ends - SOON:
        return [Finding(f"{what}: ends at {_said(ends)}, in {(ends - now).days} day(s): {renew}", is_fatal=False)]
    return []


def _said(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
