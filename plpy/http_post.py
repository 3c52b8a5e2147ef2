"""Send one POST and read the answer by a deadline, whatever the other side does; the server's standard library only."""

# A blocking call in a backend hears no cancel and no statement_timeout. So nothing here blocks: every wait is a short
# poll, with a tick between two polls in which the backend may notice that it is to stop. A name is looked up in a
# thread, since the resolver knows no deadline.

import errno
import http.client
import io
import math
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

_SLICE = 0.1
_LOOK_UP_AGAIN = 60.0
# Reading the machine's list of authorities takes 25 ms of computing, which no request should wait for.
_TRUST_AGAIN = 600.0
# An answered connection is kept for the next request, idle for less than most servers and routers allow.
_IDLE_SECONDS = 15.0
_HEADERS = ("retry-after", "content-type")


class ExchangeError(OSError):
    """No answer that could be read: (reason, whether the other side may have seen the request)."""


class _Line:
    """A non-blocking socket under a deadline."""

    def __init__(self, deadline: float, tick: Callable[[], object]) -> None:
        self.deadline = deadline
        self.tick = tick
        self.sock: Any = None

    def wait(self, events: int, until: "float | None" = None) -> None:
        """Wait until the socket is ready; TimeoutError at the deadline."""
        poller = select.poll()
        poller.register(self.sock, events)
        end = self.deadline if until is None else min(until, self.deadline)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if poller.poll(math.ceil(min(left, _SLICE) * 1000)):
                return
            self.tick()

    def retried(self, what: Callable[..., int], *arguments: object) -> int:
        """Do one operation of the socket, waiting for it as often as it asks for that."""
        while True:
            if time.monotonic() > self.deadline:
                raise TimeoutError
            try:
                return what(*arguments)
            except OSError as error:
                # TLS may have to write before it can read, and the other way round. The ssl module is not loaded here.
                name = type(error).__name__
                if name == "SSLWantReadError" or (isinstance(error, BlockingIOError) and what.__name__ != "send"):
                    self.wait(select.POLLIN)
                elif name == "SSLWantWriteError" or isinstance(error, BlockingIOError):
                    self.wait(select.POLLOUT)
                else:
                    raise

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that http.client reads from."""
        return io.BufferedReader(_Reader(self), 65536)


class _Reader(io.RawIOBase):
    """What is received, as a raw file."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Receive into the buffer."""
        return self._line.retried(self._line.sock.recv_into, buffer)


class _Kept:
    """A connection between two requests; closed when nothing keeps it any more."""

    def __init__(self, sock: Any, opened: float) -> None:
        self.sock = sock
        self.opened = opened
        self.idle_since = time.monotonic()

    def __del__(self) -> None:
        if self.sock is not None:
            self.sock.close()


def _look_up(host: str, port: int, line: _Line, known: dict[Any, Any]) -> list[Any]:
    """Return the addresses of a host; `known` keeps them for a minute, and the look-ups that are still under way."""
    addresses: list[Any]
    addresses, at, thread, found = known.get((host, port), ([], 0.0, None, None))
    if addresses and time.monotonic() - at < _LOOK_UP_AGAIN:
        return addresses
    if thread is None:
        found = []

        def work() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            # A name that is none is a UnicodeError.
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=work, daemon=True)
        # A signal must reach the backend's own thread, so the new one takes none; it inherits the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        except RuntimeError:
            raise ExchangeError("no thread to resolve the host's name in", False) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        known[(host, port)] = ([], 0.0, thread, found)
    while thread.is_alive():
        left = line.deadline - time.monotonic()
        if left <= 0:
            raise ExchangeError("the host's name was not resolved in time", False)
        thread.join(min(left, _SLICE))
        line.tick()
    if not found or isinstance(found[0], Exception):
        known.pop((host, port), None)
        raise ExchangeError("the host's name is not known", False)
    addresses = found[0]
    known[(host, port)] = (addresses, time.monotonic(), None, None)
    return addresses


def _connect(host: str, port: int, line: _Line, known: dict[Any, Any]) -> None:
    """Connect to the first address that answers; each has its share of the time."""
    addresses = _look_up(host, port, line, known)
    reason = "no address"
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        now = time.monotonic()
        until = now + (line.deadline - now) / (len(addresses) - place)
        sock = socket.socket(family, kind, protocol)
        line.sock = sock
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            error = sock.connect_ex(address)
            # Where it fails at once (no route), a look at the socket would find no error, and it ready to write.
            if error in (errno.EINPROGRESS, errno.EINTR):
                line.wait(select.POLLOUT, until)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return
            reason = "connection refused" if error == errno.ECONNREFUSED else "the host cannot be reached"
        except TimeoutError:
            reason = "no connection in time"
        except OSError:
            reason = "the host cannot be reached"
        except BaseException:
            sock.close()
            raise
        sock.close()
    # The next attempt looks the name up again.
    known.pop((host, port), None)
    raise ExchangeError(reason, False)


def _encrypt(host: str, line: _Line, authorities: "str | None", known: dict[Any, Any]) -> None:
    """Put TLS on the connection, certificate and name verified; `known` keeps for a while whom to trust."""
    import ssl

    trust = ("trust", authorities)
    context, read_at = known.get(trust, (None, 0.0))
    try:
        if context is None or time.monotonic() - read_at > _TRUST_AGAIN:
            context = ssl.create_default_context(cadata=authorities)
            known[trust] = (context, time.monotonic())
        line.sock = context.wrap_socket(line.sock, server_hostname=host, do_handshake_on_connect=False)

        def handshake() -> int:
            line.sock.do_handshake()
            return 0

        line.retried(handshake)
    except ssl.SSLCertVerificationError as error:
        # The authority may be added to the machine's list the next moment.
        known.pop(trust, None)
        raise ExchangeError("certificate not accepted: " + str(error.verify_message), False) from None
    except TimeoutError:
        raise ExchangeError("no TLS connection in time", False) from None
    except (OSError, ValueError):
        raise ExchangeError("no TLS connection", False) from None


def _send(line: _Line, data: bytes) -> None:
    """Send everything, or stop where the other side stops listening: it may have answered all the same."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[line.retried(line.sock.send, rest) :]
    except TimeoutError:
        raise
    except OSError:
        return


def _open(line: _Line, known: dict[Any, Any], host: str, port: int, secure: bool, authorities: "str | None") -> float:
    """Connect, with TLS where it is asked for; return when (monotonic)."""
    _connect(host, port, line, known)
    if secure:
        _encrypt(host, line, authorities, known)
    return time.monotonic()


def _take_up(line: _Line, known: dict[Any, Any], place: Any) -> "float | None":
    """Go on with the connection that was kept, if it still stands; return since when it is open."""
    kept: _Kept | None = known.pop(place, None)
    if kept is None:
        return None
    poller = select.poll()
    poller.register(kept.sock, select.POLLIN)
    now = time.monotonic()
    # What can be read though nothing was asked is its end. And names are looked up again, and trust renewed.
    if now - kept.idle_since > _IDLE_SECONDS or now - kept.opened > _LOOK_UP_AGAIN or poller.poll(0):
        return None
    line.sock, kept.sock = kept.sock, None
    return kept.opened


def _asked_for(line: _Line, request: bytes) -> http.client.HTTPResponse:
    """Send a request; return the answer as far as its headers."""
    _send(line, request)
    if hasattr(socket, "TCP_QUICKACK"):
        # A service that sends its answer in two parts waits 40 ms for the first to be acknowledged, if it is not asked.
        line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    answer = http.client.HTTPResponse(cast(Any, line), method="POST")
    answer.begin()
    return answer


def post(
    url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int, tick: Callable[[], object],
    known: dict[Any, Any], authorities: "str | None" = None,
) -> tuple[int, dict[str, Any], bytes]:  # fmt: skip
    """Return status, the headers that matter and the body, of at most `limit` bytes; redirects are not followed."""
    # `known` is what the session keeps: addresses, whom to trust, and the connection where the other side keeps it too.
    line = _Line(time.monotonic() + timeout, tick)
    sent = False
    try:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        shown = "[" + host + "]" if ":" in host else host
        lines = [
            "POST " + (parts.path or "/") + ("?" + parts.query if parts.query else "") + " HTTP/1.1",
            "Host: " + (shown if parts.port is None else shown + ":" + str(port)),
            "Content-Length: " + str(len(body)),
        ]
        lines += [name + ": " + value for name, value in headers.items()]
        request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        place = (host, port, secure, authorities)
        opened = _take_up(line, known, place)
        sent = opened is not None
        if opened is not None:
            try:
                answer = _asked_for(line, request)
            except TimeoutError:
                raise
            except OSError:
                # It was ended at the moment it was taken up.
                line.sock.close()
                opened, sent = None, False
        if opened is None:
            opened = _open(line, known, *place)
            sent = True
            answer = _asked_for(line, request)
        pieces, size = [], 0
        while True:
            piece = answer.read(65536)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ExchangeError("the answer is larger than " + str(limit) + " bytes", True)
        if answer.length:
            raise ExchangeError("the answer ended early", True)
        if not answer.will_close:
            known[place] = _Kept(line.sock, opened)
            line.sock = None
        return answer.status, {name: answer.headers.get(name) for name in _HEADERS}, b"".join(pieces)
    except ExchangeError:
        raise
    except TimeoutError:
        raise ExchangeError("no answer in time", sent) from None
    except (http.client.HTTPException, OSError, ValueError):
        raise ExchangeError("the connection was lost, or the answer is not HTTP", sent) from None
    finally:
        if line.sock is not None:
            line.sock.close()
