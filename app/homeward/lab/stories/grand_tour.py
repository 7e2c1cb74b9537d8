# SPDX-License-Identifier: GPL-2.0-or-later
"""The grand tour: out of the office, through two foreign networks, and back, on one address."""

from typing import Final

from homeward.lab.story import Scene, Story
from homeward.model.access import AccessMode

GRAND_TOUR: Final = Story(
    name="grand-tour",
    about=(
        "A laptop moves from its office to two foreign networks and back. Each move is a hard one: the cable is "
        "out of the one network before it is in the other, and the addresses of the one are gone. All the way the "
        "laptop keeps its home address, and with it one TCP connection up and one down, which are compared octet "
        "by octet at the end, and a datagram every 5 ms each way, which shows for how long nothing got through."
    ),
    scenes=(
        Scene(
            "trust1",
            AccessMode.C,
            "At the desk. The home agent answers the probe that leaves in clear, and says, signed, that this "
            "network is trusted. Data goes to it in a plain tunnel; the VPN gateway sees none of it.",
        ),
        Scene(
            "trust2",
            AccessMode.C,
            "To the meeting room: another subnet, another address, the same proof anew. Trust of the network before "
            "is worth nothing here until the home agent has answered again.",
        ),
        Scene(
            "ext1",
            AccessMode.MC,
            "Out of the door, into a café. The probe runs against the firewall and stays without answer; the VPN "
            "gateway proves itself. No data leaves but inside ESP, and in it IP-in-IP to the home agent.",
        ),
        Scene(
            "ext2",
            AccessMode.MC,
            "On to a network behind NAT. MOBIKE moves the VPN to the new address; its inner address stays, so the "
            "home agent need not hear of it, and does not.",
            vpn_moves=True,
        ),
        Scene(
            "trust1",
            AccessMode.C,
            "Back at the desk. The home agent answers in clear again, and the data leaves the VPN by itself.",
        ),
    ),
)
