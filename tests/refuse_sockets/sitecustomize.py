"""On PYTHONPATH this refuses every connection but those of this machine to itself."""

import ipaddress
import socket

_connect = socket.socket.connect


def _connect_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        try:
            allowed = ipaddress.ip_address(address[0]).is_loopback
        except ValueError:
            allowed = address[0] == "localhost"
        if not allowed:
            raise ConnectionRefusedError(f"the test refuses a connection to {address[0]}")
    return _connect(self, address)


def _no_names(host, *arguments, **options):
    raise socket.gaierror(f"the test refuses to look up {host}")


_getaddrinfo = socket.getaddrinfo
socket.socket.connect = _connect_here
socket.getaddrinfo = lambda host, *arguments, **options: (
    _getaddrinfo(host, *arguments, **options)
    if host in (None, "", "localhost", "127.0.0.1", "::1")
    else _no_names(host)
)
