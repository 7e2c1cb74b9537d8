# SPDX-License-Identifier: GPL-2.0-or-later
"""Which link carries the home address, and when a look at the links means that connectivity has changed."""

from ipaddress import IPv4Address

from homeward.model.access import Attachment, Link


class Attachments:
    """Numbers the stays on links; every change of connectivity is a new stay (R-63, R-64)."""

    def __init__(self, home_address: IPv4Address) -> None:
        self.home_address = home_address
        """Never a care-of address; 0.0.0.0 while none is assigned."""
        self._links: dict[int, Link] = {}
        self._serial = 0
        self.current: Attachment | None = None

    @property
    def access_links(self) -> tuple[str, ...]:
        """Names of all access links, with carrier or not, so that the fence knows them before they wake."""
        return tuple(sorted(link.name for link in self._links.values() if link.access))

    @property
    def links_without_address(self) -> tuple[str, ...]:
        """While there is no stay: access links that have carrier, but no address that we could use, or no router."""
        if self.current is not None:
            return ()
        return tuple(sorted(link.name for link in self._links.values() if link.access and link.carrier))

    @property
    def waiting(self) -> Link | None:
        """While there is no stay: the access link that has carrier and may get an address soon."""
        if self.current is not None:
            return None
        awake = [link for link in self._links.values() if link.access and link.carrier]
        return min(awake, key=_preference, default=None)

    @property
    def carrier_changes(self) -> int | None:
        """How often the carrier of the link in use has come and gone; with the link it names one stay of the cable."""
        return None if self.current is None else self._links[self.current.link_index].carrier_changes

    def observe(self, links: tuple[Link, ...]) -> bool:
        """Take in the links as they are; whether the stay that carries the home address has changed.

        The link in use is left only when it stops being usable: nothing is gained by dropping a working path.
        """
        before = self._links
        self._links = {link.index: link for link in links}
        current = self.current
        if current is not None:
            old, new = before.get(current.link_index), self._links.get(current.link_index)
            if old is not None and new is not None and self._is_same_stay(old, new, current):
                return False
        usable = [link for link in self._links.values() if self._care_of_address(link) is not None]
        if not usable:
            self.current = None
            return current is not None
        keep = [link for link in usable if current is not None and link.index == current.link_index]
        self._stay(keep[0] if keep else min(usable, key=_preference))
        return True

    @property
    def others(self) -> tuple[Attachment, ...]:
        """Stays on usable links that do not carry the home address. Their serial is the carrier's count of changes."""
        current = self.current
        if current is None:
            return ()
        found = []
        for link in self._links.values():
            address = self._care_of_address(link)
            if address is not None and link.index != current.link_index:
                found.append(
                    Attachment(
                        link.carrier_changes,
                        link.index,
                        link.name,
                        address,
                        gateway=link.gateway,
                        mtu=link.mtu,
                    )
                )
        return tuple(found)

    def renew(self) -> bool:
        """Begin a new stay on the same link, as after sleep; whether there is a link at all."""
        if self.current is None:
            return False
        self._stay(self._links[self.current.link_index])
        return True

    def _stay(self, link: Link) -> None:
        care_of_address = self._care_of_address(link)
        assert care_of_address is not None
        self._serial += 1
        self.current = Attachment(
            self._serial, link.index, link.name, care_of_address, gateway=link.gateway, mtu=link.mtu
        )

    def _is_same_stay(self, old: Link, new: Link, current: Attachment) -> bool:
        if not new.access or not new.carrier or old.carrier_changes != new.carrier_changes:
            return False
        if new.name != current.link_name:  # The fence knows links by name.
            return False
        if all(interface.ip != current.care_of_address for interface in new.addresses):
            return False
        if new.gateway != current.gateway:
            return False
        # A station seen for the first time is only the neighbour cache filling up; another one is another network.
        return not (old.station and new.station and old.station != new.station)

    def _care_of_address(self, link: Link) -> IPv4Address | None:
        """The address that this link lends us; None while it is not usable. Without a router nothing is reached."""
        if not link.access or not link.carrier or link.gateway is None:
            return None
        for interface in link.addresses:
            ip = interface.ip
            if not (ip.is_link_local or ip.is_loopback or ip.is_unspecified or ip == self.home_address):
                return ip
        return None


def _preference(link: Link) -> tuple[int, int]:
    return (link.metric if link.metric is not None else 1 << 32, link.index)
