# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent that denies whatever it is asked, and signs that: `python -m homeward.lab.denying_agent CODE`.

It reads the genuine agent's configuration, and answers on its address, for the one node that is in it.
"""

import socket
import sys
from pathlib import Path

from homeward.agentd.settings import load
from homeward.model.errors import WireError
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.wire import registration as codec

_CONFIGURATION = Path("/etc/homeward/agent.toml")


def main() -> None:
    """Deny until killed."""
    policy = load(_CONFIGURATION).policy
    (node,) = policy.nodes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind((str(policy.address), 434))
        print("ready", flush=True)
        while True:
            octets, sender = port.recvfrom(2048)
            try:
                request = codec.decode(octets).message
            except WireError:
                continue
            if not isinstance(request, RegistrationRequest):
                continue
            reply = RegistrationReply(
                int(sys.argv[1]),
                0,
                home_address=request.home_address,
                home_agent=policy.address,
                identification=request.identification,
            )
            port.sendto(codec.encode_reply(reply, node.association), sender)


if __name__ == "__main__":
    main()
