# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong now, each with what the user can do about it."""

from dataclasses import replace

from homeward.model.health import HealthItem, Severity
from homeward.model.vpn import EngineLost, VpnEstablished, VpnReport, VpnState

VPN_TROUBLES = (
    "gateway-unreachable",
    "gateway-unknown",
    "gateway-refused",
    "authentication-failed",
    "vpn-lost",
)

ADVICE = {
    "reply-rejected": "Somebody on this network, or a home agent with another key, sent it. Nothing was trusted."
    " If this happens in the office, ask your administrator whether the MN-HA key was changed.",
    "no-trusted-networks": "The home agent can be reached from here but does not vouch for this network."
    " Traffic stays in the VPN. Tell your administrator: the firewall or the agent's trusted list is wrong.",
    "home-agent-refused": "Ask your administrator; the sentence above is the home agent's reason.",
    "home-agent-silent": "The VPN is up but the home agent does not answer through it. Tries go on by themselves."
    " Ask your administrator whether the home agent runs and lists the VPN's addresses as trusted.",
    "clock-differs": "Nothing to do: the home agent's clock is followed. Check the date if it happens often.",
    "no-address": "If this lasts, the network's DHCP server does not answer, or names no router: leave the network and"
    " join it again, or ask whoever runs it.",
    "gateway-unreachable": "Check that this network reaches the Internet (a sign-in page?). Tries go on by themselves.",
    "gateway-unknown": "The gateway's name was not found. Check the name in the profile, or this network's DNS.",
    "gateway-refused": "The gateway refused the proposals or the configuration. Ask your administrator.",
    "authentication-failed": "The gateway did not accept the pre-shared key, or is not the right gateway."
    " Check the key in the keyring and the identities in the profile, then press Reconnect.",
    "engine-missing": "Start the IKE service (strongSwan's charon): systemctl start homeward-ike, or install the"
    " packages strongswan-charon and libcharon-extra-plugins.",
    "vpn-lost": "Nothing to do: the VPN is being rebuilt.",
    "mobike-missing": "The gateway does not speak MOBIKE, so each move needs a new VPN. Ask your administrator.",
    "plan-failed": "The network could not be set up as it should; traffic is held. See the journal of homewardd.",
    "foreign-agent-refused": "Nothing to do: your own care-of address is used instead.",
    "agent-not-vouched-for": "Your own care-of address is used instead. Tell your administrator: the home agent's"
    " list of trusted networks lacks the foreign agent's address, or somebody stands between.",
    "agent-left": "Nothing to do: your own care-of address is used, and the agent is tried again in a minute.",
    "agent-rejected": "Somebody on this network pretends to be a mobility agent. It was not believed.",
    "tunnel-silent": "Nothing to do. If it happens often, have the administrator shorten the keepalive interval.",
    "binding-revoked": "The home agent's administrator ended the registration. It is asked for again.",
    "home-not-announced": "The home link was not told that this machine is there. Leave it and join it again.",
    "registration-not-sent": "The request could not be sent as it must be; without that nothing is trusted.",
    "fence-restored": "Find out which program changes the firewall: it must leave the tables named homeward alone.",
    "device-restored": "Find out which program deletes network devices: it must leave homeward0 alone.",
}


class Health:
    """Health items by code; raising one again keeps its beginning."""

    def __init__(self) -> None:
        self._items: dict[str, HealthItem] = {}

    @property
    def items(self) -> tuple[HealthItem, ...]:
        """All items, alarms first, then by age."""
        order = list(Severity)
        return tuple(sorted(self._items.values(), key=lambda item: (-order.index(item.severity), item.since)))

    def note(
        self,
        code: str,
        text: str,
        at: float,
        *,
        severity: Severity = Severity.WARNING,
        advice: str = "",
    ) -> None:
        """Something is wrong, or still wrong; `advice` where there is a better one than the code's own."""
        known = self._items.get(code)
        advice = advice or ADVICE.get(code, "See the journal of homewardd.")
        item = HealthItem(code, severity, text, advice, at)
        self._items[code] = item if known is None else replace(item, since=known.since)

    def no_address(self, links: tuple[str, ...], at: float) -> None:
        """These links have a network that lends us no address; none of them if `links` is empty."""
        if links:
            text = f"There is a network on {' and '.join(links)}, but it has given us no address yet"
            self.note("no-address", text, at, severity=Severity.INFO)
        else:
            self.mended("no-address")

    def mended(self, *codes: str) -> None:
        """These are right again."""
        for code in codes:
            self._items.pop(code, None)

    def vpn_reported(self, report: VpnReport, state: VpnState, at: float) -> None:
        """What a report about the VPN, which led to this state, says of its health."""
        if isinstance(report, VpnEstablished):
            self.mended(*VPN_TROUBLES)
            if report.mobike:
                self.mended("mobike-missing")
            else:
                self.note("mobike-missing", "The VPN gateway did not agree to MOBIKE", at)
        if isinstance(report, EngineLost):
            self.note("engine-missing", f"The IKE service is not there: {report.cause}", at)
        elif state is not VpnState.NO_ENGINE:
            self.mended("engine-missing")
