# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent probe: what somebody outside hears."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from ipaddress import IPv4Network
from typing import Final

from homeward.agentd.cli.outcome import FAILED, OK, CommandFailed
from homeward.agentd.metrics import SOURCE_PREFIX
from homeward.agentd.outside_probe import NOBODY, Heard, Probed, probe
from homeward.model.errors import AdapterError
from homeward.model.reply_codes import sentence_for

_UNREACHABLE: Final = 3
_WORDS: Final = {
    0: "the network cannot be reached",
    1: "the host cannot be reached",
    2: "the packet arrived, and the host does not know the protocol: nothing stops it on the way",
    3: "the packet arrived, and nobody listens there: nothing stops it on the way",
    9: "a firewall refuses it",
    10: "a firewall refuses it",
    13: "a firewall refuses it",
}
_NOTHING_PROVED: Final = (0, 1)


def probe_from_outside(options: argparse.Namespace) -> int:
    """The exit status: 0 only where nothing came back."""
    try:
        probed = probe(options.address, home_address=options.home_address or NOBODY, seconds=options.seconds)
    except AdapterError as error:
        raise CommandFailed(f"{error}. That proves nothing: nothing was sent") from error
    if not probed.sent:
        raise CommandFailed(f"nothing could be sent to {options.address}, and that proves nothing")
    status = FAILED if probed.heard else OK
    if options.json:
        shown = {"format": 1, "address": str(options.address), "silent": not probed.heard, **asdict(probed)}
        print(json.dumps(shown, indent=1))
        return status
    tunnelled = f" and {probed.tunnel_packets} IP-in-IP packet(s)" if probed.tunnel_packets else ""
    print(f"{options.address}: {probed.sent} request(s){tunnelled} sent from {probed.source}")
    for each in probed.heard:
        print(f"  {_line(each)}")
    print("\n".join(_conclusion(probed, str(options.address))))
    return status


def _line(heard: Heard) -> str:
    if heard.what == "icmp":
        words = _WORDS.get(heard.code or 0, "") if heard.kind == _UNREACHABLE else ""
        return f"ICMP {heard.kind}/{heard.code} from {heard.sender} to {heard.about}{f': {words}' if words else ''}"
    if heard.code is None:
        return f"an answer from {heard.sender} to {heard.about} that is no Registration Reply"
    trust = ", which says that this network is INSIDE" if heard.vouches else ""
    return f"a Registration Reply from {heard.sender}, code {heard.code}{trust}: {sentence_for(heard.code)}"


def _conclusion(probed: Probed, address: str) -> list[str]:
    prefix = IPv4Network((probed.source, SOURCE_PREFIX), strict=False)
    if not probed.heard:
        return [
            "Silence. From here, now, nobody without a key gets anything out of it, neither an answer nor a refusal.",
            "That does not prove that the agent runs, nor that other networks outside are stopped as well.",
            "Whether a firewall stopped the packets or the agent ignored them shows on the agent: if there",
            f"`homeward-agent status` counts violations from {prefix}, or from a translator's, they got through.",
        ]
    replied = any(each.what == "reply" for each in probed.heard)
    if replied:
        return [f"SOMETHING ANSWERS. Outside, it must not: have the firewall drop UDP 434 to {address}."]
    if all(each.code in _NOTHING_PROVED for each in probed.heard):
        return [
            "It cannot be reached from here at all. No answer got out, but no packet may have come near it either."
        ]
    wish = f"have the firewall drop, not refuse, UDP 434 and protocols 4, 47 and 55 to {address}"
    return [f"Not silent. No agent answered, but {wish}."]
