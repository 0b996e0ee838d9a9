# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of HTTP endpoints: status, body, latency and the days that the certificate is still good for."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import time
import typing as t
from urllib.parse import urljoin, urlsplit

from ..quantities import human_bytes, human_seconds, parse_duration
from ..result import Part, limit_status
from .certificates import expiry_of
from .redaction import redact
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "address": {"type": "str", "default": ""},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "body": {"type": "str", "default": ""},
    "body_pattern": {"type": "str", "default": ""},
    "warn_seconds": {"type": "float", "default": 1.0},
    "fail_seconds": {"type": "float", "default": 5.0},
    "warn_certificate_days": {"type": "float", "default": 30.0},
    "fail_certificate_days": {"type": "float", "default": 7.0},
    "validate_certs": {"type": "bool", "default": True},
    "ca_file": {"type": "path", "default": ""},
    "follow_redirects": {"type": "bool", "default": False},
    "headers": {"type": "dict", "default": {}},
    "login_user": {"type": "str", "default": ""},
    "login_password": {"type": "str", "default": "", "no_log": True},
    "bearer_token": {"type": "str", "default": "", "no_log": True},
    "timeout": {"type": "str", "default": "10s"},
}

MAX_BODY = 1 << 20
MAX_REDIRECTS = 5
DAY = 86400
REDIRECTS = (301, 302, 303, 307, 308)
# What OpenSSL's verification codes mean to the one who has to act.
_CERTIFICATE_ADVICE = {
    9: "The host's or the server's clock is wrong, or the certificate was installed before its time.",
    10: "Renew the certificate and reload the server that presents it.",
    18: "Install a certificate of a known authority, or name its file in ca_file.",
    19: "Let the server send its intermediate certificates, or name the authority's file in ca_file.",
    20: "Let the server send its intermediate certificates, or name the authority's file in ca_file.",
    62: "Issue the certificate for this name, or correct the url.",
    64: "Issue the certificate for this address, or use the host's name in the url.",
}


class Answer(t.NamedTuple):
    """What an endpoint answered."""

    url: str
    status: int
    location: str
    body: str
    cut: bool
    expires: float | None


class NoAnswerError(Exception):
    """There was no whole answer; the words say why. ``certificate`` holds the verification error, if it was that."""

    def __init__(self, words: str, advice: str, certificate: ssl.SSLCertVerificationError | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.advice = advice
        self.certificate = certificate


def probes(endpoints: t.Sequence[dict[str, t.Any]]) -> list[Probe]:
    return [Probe(f"HTTP endpoint {endpoint['name']}", functools.partial(probe, endpoint)) for endpoint in endpoints]


def probe(endpoint: dict[str, t.Any], part: Part) -> None:
    """Ask *endpoint* and judge status, body, latency and certificate, each as a check of its own."""
    context = tls_context(endpoint["validate_certs"], endpoint["ca_file"]) if uses_tls(endpoint) else None
    began = time.monotonic()
    try:
        answer = measure(endpoint, context, began + parse_duration(endpoint["timeout"]))
    except NoAnswerError as trouble:
        decide_trouble(endpoint, trouble, part)
        return
    seconds = time.monotonic() - began
    decide_status(endpoint, answer, part)
    decide_body(endpoint, answer, part)
    decide_latency(endpoint, seconds, part)
    if answer.expires is not None:
        decide_certificate(endpoint, answer.expires - time.time(), part)


def uses_tls(endpoint: dict[str, t.Any]) -> bool:
    return bool(endpoint["follow_redirects"]) or endpoint["url"].lower().startswith("https:")


@functools.lru_cache(maxsize=None)
def tls_context(validate: bool, ca_file: str) -> ssl.SSLContext:
    """The TLS settings; kept, because reading all authorities of the system takes longer than many an answer."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if not validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def measure(endpoint: dict[str, t.Any], context: ssl.SSLContext | None, deadline: float) -> Answer:
    """The answer of *endpoint*, after the redirects if they are to be followed; raises NoAnswerError."""
    url = endpoint["url"]
    headers = request_headers(endpoint)
    address = endpoint["address"]
    for _redirect in range(MAX_REDIRECTS + 1):
        answer = ask(url, address, headers, context, deadline)
        if not endpoint["follow_redirects"] or answer.status not in REDIRECTS or not answer.location:
            return answer
        target = urljoin(url, answer.location)
        before, after = urlsplit(url), urlsplit(target)
        if before.scheme == "https" and after.scheme != "https":
            raise NoAnswerError(f"a redirect from https to {redact(target)}", "Let the server redirect to https only.")
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            # What was meant for one server is not for another to know, except http's own https twin.
            address = address if before.hostname == after.hostname else ""
            headers = headers if before.hostname == after.hostname else plain_headers()
        url = target
    raise NoAnswerError(f"more than {MAX_REDIRECTS} redirects, the last to {redact(url)}", "Correct the redirects.")


def request_headers(endpoint: dict[str, t.Any]) -> dict[str, str]:
    headers = {**plain_headers(), **{str(name): str(value) for name, value in endpoint["headers"].items()}}
    if endpoint["bearer_token"]:
        headers["Authorization"] = f"Bearer {endpoint['bearer_token']}"
    elif endpoint["login_user"]:
        login = f"{endpoint['login_user']}:{endpoint['login_password']}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    return headers


def plain_headers() -> dict[str, str]:
    return {
        "User-Agent": "wellkept-health-check",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def ask(url: str, address: str, headers: dict[str, str], context: ssl.SSLContext | None, deadline: float) -> Answer:
    """One GET of *url*; raises NoAnswerError with the reason in words."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise NoAnswerError(
            f"{redact(url)} is no address to ask",
            "Write it as http://host/path or https://host/path; a login belongs in login_user and login_password.",
        )
    expired = threading.Event()
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((address or host, port), timeout=remaining(deadline)) as plain:
            if parts.scheme == "https" and context is not None:
                plain.settimeout(remaining(deadline))
                with context.wrap_socket(plain, server_hostname=host) as secured:
                    expires = expiry_of(secured.getpeercert(binary_form=True) or b"")
                    return converse(secured, url, headers, deadline, expired)._replace(expires=expires)
            return converse(plain, url, headers, deadline, expired)
    except NoAnswerError:
        raise
    except Exception as error:
        raise explain(socket.timeout() if expired.is_set() else error, address or host) from None


def remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


def converse(
    connected: socket.socket,
    url: str,
    headers: dict[str, str],
    deadline: float,
    expired: threading.Event,
) -> Answer:
    """Send the request over *connected* and read the answer, all of it before *deadline*.

    The socket's own time limit starts again with every byte; so a timer ends the conversation with a server that
    drips.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "")
    connection.auto_open = 0  # never a second connection, which would not be this one
    connection.sock = connected
    watch = threading.Timer(remaining(deadline), end_conversation, (connected, expired))
    watch.daemon = True
    watch.start()
    try:
        connected.settimeout(remaining(deadline))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Host": parts.netloc, **headers})
        response = connection.getresponse()
        body = response.read(MAX_BODY)
        cut = len(body) == MAX_BODY
        if not cut and response.length:
            raise http.client.IncompleteRead(body, response.length)
    finally:
        watch.cancel()
    if expired.is_set():
        raise socket.timeout
    charset = response.headers.get_content_charset() or "utf-8"
    try:
        text = body.decode(charset, errors="replace")
    except LookupError:
        text = body.decode(errors="replace")
    return Answer(url, response.status, response.headers.get("Location", ""), text, cut, None)


def end_conversation(connected: socket.socket, expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError):  # it may have ended by itself
        # Not SSLSocket's own: it would touch what the reading thread is using.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def explain(error: Exception, host: str) -> NoAnswerError:
    """The reason why there was no answer, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(error.verify_code, "Correct the certificate that the server presents.")
        return NoAnswerError(f"a certificate that cannot be trusted: {error.verify_message}", advice, error)
    if isinstance(error, (socket.timeout, TimeoutError)):
        return NoAnswerError("no whole answer within the time limit", "See what the service waits for.")
    if isinstance(error, socket.gaierror):
        return NoAnswerError(f"the name {host} cannot be resolved: {error.strerror}", "Correct the name or the DNS.")
    if isinstance(error, ConnectionRefusedError):
        return NoAnswerError("connection refused", "Start the service, or correct the port.")
    if isinstance(error, ssl.SSLError):
        words = (error.reason or str(error)).replace("_", " ").lower()
        return NoAnswerError(f"no TLS connection: {words}", "See whether this port speaks TLS, and which versions.")
    if isinstance(error, http.client.RemoteDisconnected):
        return NoAnswerError("the server closed the connection without an answer", "See the service's own log.")
    if isinstance(error, http.client.IncompleteRead):
        return NoAnswerError("an answer that broke off", "See the service's own log.")
    if isinstance(error, OSError):
        return NoAnswerError(redact(error.strerror or str(error)), "See the service and the network to it.")
    return NoAnswerError(redact(f"{type(error).__name__}: {error}"), "See whether this port speaks HTTP.")


def decide_trouble(endpoint: dict[str, t.Any], trouble: NoAnswerError, part: Part) -> None:
    """No answer: either the certificate failed, and the application was not asked, or the endpoint itself did."""
    expected = "status " + " or ".join(str(status) for status in endpoint["status"])
    if trouble.certificate is None:
        part.check(
            f"HTTP status of {endpoint['name']}",
            "failed",
            expected=expected,
            observed=trouble.words,
            advice=trouble.advice,
            evidence={"url": redact(endpoint["url"])},
        )
        return
    evidence = {"url": redact(endpoint["url"]), "verify_code": trouble.certificate.verify_code}
    part.check(
        f"certificate of {endpoint['name']}",
        "failed",
        expected="a certificate that can be trusted",
        observed=trouble.words,
        advice=trouble.advice,
        evidence=evidence,
    )
    part.check(
        f"HTTP status of {endpoint['name']}",
        "unknown",
        expected=expected,
        observed="not asked, because the certificate cannot be trusted",
        advice=trouble.advice,
    )


def decide_status(endpoint: dict[str, t.Any], answer: Answer, part: Part) -> None:
    observed = f"status {answer.status}"
    advice = "See the service's own log."
    if answer.status in REDIRECTS and answer.location:
        observed += f", a redirect to {redact(answer.location)}"
        advice = "Probe the address it leads to, or set follow_redirects."
    part.require(
        f"HTTP status of {endpoint['name']}",
        answer.status in endpoint["status"],
        expected="status " + " or ".join(str(status) for status in endpoint["status"]),
        observed=observed,
        advice=advice,
        url=redact(answer.url),
    )


def decide_body(endpoint: dict[str, t.Any], answer: Answer, part: Part) -> None:
    """What the body must hold; what was read in its place is never shown, since it may be anything."""
    wanted = []
    if endpoint["body"]:
        wanted.append((endpoint["body"] in answer.body, f"the text {endpoint['body']!r}"))
    if endpoint["body_pattern"]:
        found = re.search(endpoint["body_pattern"], answer.body, re.MULTILINE) is not None
        wanted.append((found, f"a match of {endpoint['body_pattern']!r}"))
    if not wanted:
        return
    size = f"the first {human_bytes(MAX_BODY)}" if answer.cut else f"{len(answer.body)} characters"
    missing = [words for found, words in wanted if not found]
    part.require(
        f"HTTP body of {endpoint['name']}",
        not missing,
        expected=" and ".join(words for _found, words in wanted),
        observed=f"{' and '.join(missing)} not found in {size}" if missing else f"found in {size}",
        advice="Ask the endpoint by hand and see what it answers now.",
    )


def decide_latency(endpoint: dict[str, t.Any], seconds: float, part: Part) -> None:
    part.metric(f"http_seconds {endpoint['name']}", round(seconds, 4), "seconds")
    part.check(
        f"HTTP latency of {endpoint['name']}",
        limit_status(seconds, endpoint["warn_seconds"], endpoint["fail_seconds"]),
        expected=f"a whole answer within {human_seconds(endpoint['warn_seconds'])}"
        f" (fails beyond {human_seconds(endpoint['fail_seconds'])})",
        observed=human_seconds(seconds),
        advice="See what the service waits for: load, database, locks.",
    )


def decide_certificate(endpoint: dict[str, t.Any], seconds_left: float, part: Part) -> None:
    days = seconds_left / DAY
    part.metric(f"http_certificate_seconds_left {endpoint['name']}", round(seconds_left), "seconds")
    warn, fail = endpoint["warn_certificate_days"], endpoint["fail_certificate_days"]
    # Expired is never good, whatever the limits say (seen here only where certificates are not validated).
    status = limit_status(-days, -warn, -max(fail, 0.0))
    part.check(
        f"certificate of {endpoint['name']}",
        status,
        expected=f"at least {warn:g} more days (fails below {fail:g})",
        observed=f"expired {-days:.1f} days ago" if days < 0 else f"{days:.1f} days left",
        advice="Renew the certificate and reload the server that presents it.",
    )
