# SPDX-License-Identifier: GPL-2.0-or-later
"""Wi-Fi between namespaces: the kernel's simulated radios, in a network without access point (IBSS)."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from pyroute2.iwutil import IW

from tests.world.namespaces import Namespace, entered

_RADIOS_ARE_IN = "/proc/1/ns/net"
_AD_HOC = 1  # NL80211_IFTYPE_ADHOC
_CHANNEL_1 = 2412
_NARROW = 0  # NL80211_CHAN_WIDTH_20_NOHT
_CELL = "02:00:00:77:00:01"  # named, so that nobody has to look for the others


def give_radios(*receivers: tuple[Namespace, str]) -> None:
    """Each of them has a Wi-Fi link of that name, up, and hears the others."""
    # pyroute2 waits in a loop of its own, which it cannot in a thread where a test does.
    with ThreadPoolExecutor(1) as aside:
        aside.submit(_give, receivers).result()


def _give(receivers: tuple[tuple[Namespace, str], ...]) -> None:
    with entered(_RADIOS_ARE_IN), IW() as radios:
        found = sorted(
            (each.get_attr("NL80211_ATTR_WIPHY"), each.get_attr("NL80211_ATTR_IFNAME"))
            for each in radios.get_interfaces_dump()
        )
        assert len(found) >= len(receivers), "the kernel has no more radios"
        for (radio, _), (host, _) in zip(found, receivers, strict=False):
            there = os.open(host.path, os.O_RDONLY | os.O_CLOEXEC)
            radios.set_wiphy_netns_by_fd(radio, there)
            os.close(there)
    for (_, old), (host, name) in zip(found, receivers, strict=False):
        with host:
            with IW() as radios:
                radios.set_interface_type(socket.if_nametoindex(old), _AD_HOC)
            host.batch(f"link set {old} name {name}", f"link set {name} up")
            with IW() as radios:
                radios.join_ibss(
                    socket.if_nametoindex(name),
                    "office",
                    _CHANNEL_1,
                    bssid=_CELL,
                    channel_fixed=True,
                    width=_NARROW,
                )
