"""Pictures from public addresses of the web, and from no others."""

from __future__ import annotations

import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from string import punctuation
from urllib import request
from urllib.parse import quote

from captioner.errors import ImageError, one_line

MAX_BYTES = 50_000_000
_SECONDS = 60.0  # for a picture
_PAUSE = 10.0  # without a byte
_NAT64 = IPv6Network("64:ff9b::/96")


def fetch(address: str) -> bytes:
    """The content at an http or https address. Raises ImageError, naming the address.

    It connects to public addresses only, at each redirection too, so that no document can make it ask a service of
    this machine or of the local network. Proxies are not used: what a proxy connects to cannot be checked.
    """
    opener = request.OpenerDirector()
    for handler in (_Http, _Https, request.HTTPRedirectHandler, request.HTTPErrorProcessor, request.UnknownHandler):
        opener.add_handler(handler())
    opener.add_handler(request.HTTPDefaultErrorHandler())
    asked = request.Request(quote(address, safe=punctuation), headers={"User-Agent": "captioner"})
    name, content, until = one_line(address), bytearray(), time.monotonic() + _SECONDS
    try:
        with opener.open(asked, timeout=_PAUSE) as response:
            while block := response.read1(1 << 16):
                content += block
                if len(content) > MAX_BYTES:
                    raise ImageError(f"{name}: is larger than {MAX_BYTES // 1_000_000} MB")
                if time.monotonic() > until:
                    raise ImageError(f"{name}: takes longer than {_SECONDS:.0f} s")
    except (OSError, HTTPException, ValueError) as error:  # ValueError: no address
        raise ImageError(f"{name}: cannot be fetched ({one_line(getattr(error, 'reason', error))})") from error
    return bytes(content)


def _connected(host: str, port: int, timeout: float | None) -> socket.socket:
    """A connection to a host, none of whose addresses may be private. Raises OSError."""
    places = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(map(_is_public, places)):
        raise PermissionError(f"{host} is not a public address")
    problem: OSError = OSError(f"{host} has no address")
    for place in places:  # a machine may have no way to those of IPv6, for example
        try:
            # To the very address that was checked: a second look-up of the name might give another.
            return socket.create_connection((place, port), timeout)
        except OSError as error:
            problem = error
    raise problem


def _is_public(address: str) -> bool:
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.sixtofour or ip in _NAT64:  # an address of the older kind inside: a gateway connects to that one
            return _is_public(str(ip.sixtofour or IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local or ip.is_reserved:
            return False
    return ip.is_global and not ip.is_multicast


class _Connection(HTTPConnection):
    def connect(self) -> None:
        self.sock = _connected(self.host, self.port, self.timeout)


class _SafeConnection(HTTPSConnection):
    def connect(self) -> None:
        plain = _connected(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _Http(request.HTTPHandler):
    def http_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(request.HTTPSHandler):
    def https_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(_SafeConnection, req)
