"""What answers at the SuperLink's address, as a host sees it: with TLS, of this federation, for this name, by a clock that agrees.

Whether the host's key is registered cannot be asked without being a SuperNode: its log says so, and the SuperLink's.
"""

import email.utils
import http.client
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from deploy.certificates import certificate_fingerprint, is_signed_by, names_in, read_certificate
from deploy.federation_record import split_address
from deploy.finding import SET_CLOCK, Finding, date_findings

AHEAD_S, BEHIND_S = 5, 305
"""How far a host's clock may differ from the SuperLink's, or its signatures are refused.

Source: flwr 1.41 and 1.42, `superlink/routers/fleet/node_auth.py`.
"""
TIMEOUT_S = 10.0
RENEW = "`clmm provision renew`, and start the SuperLink again"


def check_connection(address: str, authority_path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[Finding]:
    """Return what keeps a host that trusts the authority in `authority_path` from joining at `address`.

    Raises:
        DataError: there is no such authority.
    """
    host, port = split_address(address)
    authority = read_certificate(authority_path)
    try:
        # What it shows is looked at before it is trusted, for then it can be said what differs; nothing is sent but GET /health.
        date, shown = _ask(host, port, _trusting_anybody())
    except ssl.SSLError as error:
        return [Finding(f"{address}: expected TLS, found something else ({error.reason}): start the SuperLink with `clmm superlink`")]
    except (OSError, http.client.HTTPException) as error:
        question = "is the SuperLink started, the port open, the address right? A SuperNode keeps trying"
        return [Finding(f"{address}: nothing answers ({error}): {question}", is_fatal=False)]
    found = _clock_findings(address, date, clock())
    certificate = x509.load_der_x509_certificate(shown)
    found += _certificate_findings(address, certificate, authority, authority_path)
    found += date_findings(f"the certificate at {address}", certificate, clock(), RENEW)
    return found if any(each.is_fatal for each in found) else found + _verified(address, authority_path)


def _certificate_findings(address: str, shown: x509.Certificate, authority: x509.Certificate, authority_path: Path) -> list[Finding]:
    host, _ = split_address(address)
    if not is_signed_by(shown, authority):
        return [
            Finding(
                f"{address}: expected a certificate signed by the authority in {authority_path} ({certificate_fingerprint(authority)}), "
                f"found one of '{shown.issuer.rfc4514_string()}': another SuperLink answers, or this folder is of another federation. "
                "Do not go on before you know which"
            )
        ]
    if host not in names_in(shown):
        names = ", ".join(names_in(shown))
        return [Finding(f"{address}: expected a certificate for {host}, found one for {names}: `clmm provision renew --also {host}`")]
    return []


def _clock_findings(address: str, date: str | None, now: datetime) -> list[Finding]:
    try:
        theirs = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return [Finding(f"{address}: expected the time in its answer, found {date!r}: the clocks were not compared", is_fatal=False)]
    ahead_s = (now - theirs).total_seconds()
    if -BEHIND_S < ahead_s < AHEAD_S + 1:  # the answer's time is in whole seconds, and was a moment on its way
        return []
    return [
        Finding(
            f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the SuperLink's at {address} (here "
            f"{now:%Y-%m-%d %H:%M:%S} UTC, there {theirs:%Y-%m-%d %H:%M:%S} UTC), which refuses a host that is more than {AHEAD_S} s ahead "
            f"or {BEHIND_S} s behind: on the machine that is wrong, {SET_CLOCK}"
        )
    ]


def _verified(address: str, authority_path: Path) -> list[Finding]:
    """Do what a SuperNode will do: connect, trusting this authority alone."""
    host, port = split_address(address)
    try:
        _ask(host, port, ssl.create_default_context(cafile=str(authority_path)))
    except ssl.SSLError as error:
        return [Finding(f"{address}: its certificate is refused: {error}: {RENEW}")]
    except (OSError, http.client.HTTPException) as error:
        return [Finding(f"{address}: no longer answers ({error})", is_fatal=False)]
    return []


def _ask(host: str, port: int, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    """Return the time that a server says, and its certificate (DER)."""
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        certificate = connection.sock.getpeercert(binary_form=True)
        assert certificate is not None, "a TLS server has one"
        connection.request("GET", "/health")
        return connection.getresponse().getheader("Date"), certificate
    finally:
        connection.close()


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
