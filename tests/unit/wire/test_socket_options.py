# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's structures, octet by octet, and read back from a real socket."""

import socket
import struct

import pytest

from homeward.wire.socket_options import (
    ANCILLARY_OCTETS,
    IP_PKTINFO,
    LEVEL_IP,
    PolicyDirection,
    allow_without_ipsec,
    ingress_link,
    time_to_live,
)


@pytest.mark.parametrize(("direction", "number"), [(PolicyDirection.IN, 0), (PolicyDirection.OUT, 1)])
def test_a_socket_policy_allows_everything_without_a_template(
    direction: PolicyDirection, number: int
) -> None:
    policy = allow_without_ipsec(direction)
    assert len(policy) == 168  # sizeof(struct xfrm_userpolicy_info)
    assert policy[:40] == bytes(40)  # addresses and ports: any
    assert struct.unpack_from("=H", policy, 40) == (socket.AF_INET,)
    assert policy[42:56] == bytes(14)
    assert policy[56:88] == b"\xff" * 32  # no limit in octets or packets
    assert policy[88:152] == bytes(64)
    assert policy[152:160] == bytes(8)  # priority and index: the kernel's choice
    assert policy[160] == number
    assert policy[161:] == bytes(7)  # action allow, no flags


def test_the_ingress_link_is_read_from_a_real_datagram() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(LEVEL_IP, IP_PKTINFO, 1)
        receiver.bind(("127.0.0.1", 0))
        sender.sendmsg([b"x"], time_to_live(7), 0, receiver.getsockname())
        _, ancillary, _, _ = receiver.recvmsg(10, ANCILLARY_OCTETS)
    assert ingress_link(ancillary) == socket.if_nametoindex("lo")


def test_without_ancillary_data_the_link_is_unknown() -> None:
    assert ingress_link([]) == 0
    assert ingress_link([(LEVEL_IP, IP_PKTINFO, b"short")]) == 0
    assert ingress_link([(1, IP_PKTINFO, bytes(12))]) == 0
