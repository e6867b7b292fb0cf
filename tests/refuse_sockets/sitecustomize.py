"""On PYTHONPATH this refuses every connection but those of this machine to itself.

The tests import it too (conftest.py), so that neither they nor what they start can leave.
"""

import ipaddress
import socket


def _require_here(family, address):
    """Raise unless an address is on this machine."""
    if family in (socket.AF_INET, socket.AF_INET6):
        try:
            allowed = ipaddress.ip_address(address[0]).is_loopback
        except ValueError:
            allowed = address[0] in ("", "localhost")
        if not allowed:
            raise ConnectionRefusedError(f"the test refuses a connection to {address[0]}")


def _guarded(real, place):
    """Return a method of sockets that looks at the address before it is used."""

    def method(self, *arguments):
        if arguments[place:] and arguments[place] is not None:
            _require_here(self.family, arguments[place])
        return real(self, *arguments)

    return method


def _named(real):
    """Return a function that looks up no name but those of this machine."""

    def look_up(host, *arguments, **options):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (None, "", "localhost", socket.gethostname()):
            try:
                ipaddress.ip_address(name)
            except ValueError:
                raise socket.gaierror(f"the test refuses to look up {name}") from None
        return real(host, *arguments, **options)

    return look_up


if not hasattr(socket.socket.connect, "__wrapped__"):  # once, also where it is imported twice
    for _name, _place in (("connect", 0), ("connect_ex", 0), ("sendto", -1), ("sendmsg", 3)):
        _real = getattr(socket.socket, _name)
        _method = _guarded(_real, _place)
        _method.__wrapped__ = _real
        setattr(socket.socket, _name, _method)
    for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, _name, _named(getattr(socket, _name)))
