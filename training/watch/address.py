"""Address and usual port of the page: loopback, for people on this machine or through ssh."""

from __future__ import annotations

ADDRESS, PORT = "127.0.0.1", 8421
