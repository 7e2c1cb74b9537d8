# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tray and the window show, worked out from the last snapshot and the time: pure, no Qt, no clock."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from textwrap import wrap
from typing import Final

from homeward.gui import phrases
from homeward.gui.phrases import one_line
from homeward.model.access import AccessMode
from homeward.model.health import HealthItem, Severity
from homeward.model.status import ClientState, Roam, StatusSnapshot
from homeward.model.vpn import VpnState

_TRUST: Final = "Trust"
_WORDS: Final = "Home agent says"
_MENU_WIDTH: Final = 64
"""Characters in one entry of the menu."""
_INDENT: Final = "        "


class Icon(Enum):
    """One picture per state; the value is the file's stem in homeward.data/icons."""

    NOT_SET_UP = "not-set-up"
    DISCONNECTED = "disconnected"
    NO_SERVICE = "no-service"
    NO_NETWORK = "no-network"
    DECIDING = "deciding"
    WAITING = "waiting"
    TRUSTED_C = "trusted-c"
    TRUSTED_F = "trusted-f"
    HOME = "home"
    OUTSIDE_MC = "outside-mc"
    BLOCKED = "blocked"
    ATTENTION = "attention"


class Service(Enum):
    """How the tray stands to the daemon."""

    LOOKING = "looking"
    """Just started; nothing is known yet."""
    ABSENT = "absent"
    """Nobody owns the daemon's name on the bus, or there is no bus."""
    REFUSED = "refused"
    """The daemon runs and does not talk to this user or this session."""
    RUNNING = "running"


class Action(Enum):
    """What the user can ask for."""

    CONNECT = "connect"
    RECONNECT = "reconnect"
    DISCONNECT = "disconnect"
    GIVE_SECRET = "give-secret"  # noqa: S105 - an action, not a secret
    DETAILS = "details"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the tray knows: the daemon's last snapshot, how the tray stands to it, and what it noticed itself."""

    service: Service = Service.LOOKING
    snapshot: StatusSnapshot | None = None
    service_version: str = ""
    own_version: str = ""
    profiles: tuple[str, ...] | None = None
    """Names of the profiles this user may connect; None while unknown."""
    notes: tuple[HealthItem, ...] = ()
    """The tray's own findings, mostly about the keyring."""


@dataclass(frozen=True, slots=True)
class StatusLine:
    """One line of the status: a short label and a value, both plain text without line breaks."""

    label: str
    value: str

    @property
    def text(self) -> str:
        """Label and value as one line; a verdict speaks for itself."""
        return self.value if self.label == _TRUST else f"{self.label}: {self.value}"

    @property
    def menu_texts(self) -> tuple[str, ...]:
        """The line in pieces that a menu can show without growing across the screen."""
        return tuple(wrap(self.text, _MENU_WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False)) or (
            self.text,
        )


@dataclass(frozen=True, slots=True)
class ActionView:
    """One entry of the menu, or a button of the window; `profile` says which one a Connect means."""

    action: Action
    label: str
    enabled: bool
    tip: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class RoamRow:
    """One roam in words; `total` from the change of attachment until packets flowed again."""

    title: str
    steps: str
    total: str


@dataclass(frozen=True, slots=True)
class HealthRow:
    """One health item in words."""

    severity: Severity
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class TrayView:
    """Everything on the screen. `counts` says whether a line changes with time alone."""

    icon: Icon
    badge: bool
    title: str
    tooltip: str
    lines: tuple[StatusLine, ...]
    actions: tuple[ActionView, ...]
    roams: tuple[RoamRow, ...]
    health: tuple[HealthRow, ...]
    counts: bool


_STATE_ICONS = {
    ClientState.DISCONNECTED: Icon.DISCONNECTED,
    ClientState.WAITING_FOR_SECRET: Icon.WAITING,
    ClientState.NO_NETWORK: Icon.NO_NETWORK,
    ClientState.DETECTING: Icon.DECIDING,
    ClientState.REGISTERING: Icon.DECIDING,
    ClientState.TRUSTED_C: Icon.TRUSTED_C,
    ClientState.TRUSTED_F: Icon.TRUSTED_F,
    ClientState.HOME: Icon.HOME,
    ClientState.OUTSIDE_MC: Icon.OUTSIDE_MC,
    ClientState.BLOCKED: Icon.BLOCKED,
}

_CALLING = frozenset({Icon.ATTENTION, Icon.NO_SERVICE, Icon.BLOCKED, Icon.WAITING})
"""Icons that ask for attention by themselves."""

_HOLDING = frozenset({ClientState.DETECTING, ClientState.REGISTERING, ClientState.BLOCKED})


def tray_view(seen: Seen, now: float, *, user: str = "") -> TrayView:
    """What to show `user` at `now` (CLOCK_BOOTTIME, seconds). Any input is shown somehow; nothing raises."""
    snapshot = seen.snapshot if seen.service is Service.RUNNING else None
    version = _version_note(seen, now)
    items = [*seen.notes, *([version] if version is not None else []), *(snapshot.health if snapshot else ())]
    health = tuple(_health_row(item) for item in items)
    troubled = any(row.severity is not Severity.INFO for row in health)
    icon = _icon(seen, snapshot, troubled)
    title = _title(seen, snapshot)
    if version is not None and version.severity is not Severity.INFO:
        icon, title = Icon.ATTENTION, "Tray and service do not match"
    lines = _lines(seen, snapshot, now)
    return TrayView(
        icon=icon,
        badge=troubled and icon not in _CALLING,
        title=title,
        tooltip=_tooltip(title, snapshot, health),
        lines=lines,
        actions=_actions(seen, snapshot, user),
        roams=tuple(_roam_row(roam) for roam in reversed(snapshot.roams)) if snapshot else (),
        health=health,
        counts=snapshot is not None
        and snapshot.binding_expires is not None
        and snapshot.mode is not AccessMode.HOME,
    )


def _icon(seen: Seen, snapshot: StatusSnapshot | None, troubled: bool) -> Icon:
    if seen.service is Service.ABSENT:
        return Icon.NO_SERVICE
    if seen.service is Service.REFUSED:
        return Icon.ATTENTION
    if snapshot is None:
        return Icon.DISCONNECTED
    if snapshot.state is ClientState.DISCONNECTED:
        if troubled:
            return Icon.ATTENTION
        return Icon.NOT_SET_UP if _not_set_up(seen) else Icon.DISCONNECTED
    return _STATE_ICONS[snapshot.state]


def _not_set_up(seen: Seen) -> bool:
    """No profile, so there is nothing that Connect could mean."""
    return seen.profiles == () and seen.snapshot is not None and not seen.snapshot.profile


def _title(seen: Seen, snapshot: StatusSnapshot | None) -> str:
    if seen.service is Service.ABSENT:
        return "The Homeward service is not running"
    if seen.service is Service.REFUSED:
        return "This session may not control Homeward"
    if snapshot is None:
        return "Asking the Homeward service"
    if snapshot.state is ClientState.DISCONNECTED and _not_set_up(seen):
        return "Not set up"
    return phrases.STATES[snapshot.state]


def _tooltip(title: str, snapshot: StatusSnapshot | None, health: Iterable[HealthRow]) -> str:
    words = [f"Homeward: {title}"]
    if snapshot is not None:
        if snapshot.blocked is not None:
            words.append(snapshot.blocked.cause)
        if snapshot.access_link:
            words.append(f"on {snapshot.access_link}")
    worst = [row.text for row in health if row.severity is not Severity.INFO]
    return one_line("; ".join([*words, *worst[:1]]), limit=160)


def _lines(seen: Seen, snapshot: StatusSnapshot | None, now: float) -> tuple[StatusLine, ...]:
    if snapshot is None:
        return (_line("Service", phrases.SERVICES[seen.service.value]),)
    active = snapshot.state is not ClientState.DISCONNECTED
    pairs: list[tuple[str, str]] = [("Mode", _mode(seen, snapshot))]
    if snapshot.profile:
        pairs.append(("Profile", snapshot.profile))
    if snapshot.blocked is not None:
        pairs.append(("Held", phrases.blocked(snapshot.blocked)))
    pairs += [("Needed", phrases.secret_needed(secret)) for secret in snapshot.secrets_needed]
    if active:
        pairs.append((_TRUST, phrases.trust(snapshot)))
    if active or snapshot.home_address is not None:
        pairs.append(("Home address", phrases.home_address(snapshot)))
    if active:
        pairs.append(("Care-of address", phrases.care_of_address(snapshot)))
        pairs.append(("Binding", phrases.binding(snapshot, now)))
        special = (
            ("Tunnel", phrases.tunnel(snapshot)),
            ("Carried by", phrases.engine(snapshot)),
            (_WORDS, phrases.said_by_home_agent(snapshot)),
        )
        pairs += [(label, value) for label, value in special if value]
    if active or snapshot.vpn is not VpnState.DOWN:
        pairs.append(("VPN", phrases.vpn(snapshot)))
    pairs += [("Other link", phrases.other_link(other)) for other in snapshot.other_links]
    if snapshot.state in _HOLDING or snapshot.held_packets:
        pairs.append(("Waiting packets", phrases.held(snapshot)))
    return tuple(_line(label, value) for label, value in pairs)


def _mode(seen: Seen, snapshot: StatusSnapshot) -> str:
    if snapshot.state is ClientState.DISCONNECTED and _not_set_up(seen):
        return "Not set up: put a profile into /etc/homeward/profiles.d"
    return phrases.mode(snapshot)


def _line(label: str, value: str) -> StatusLine:
    return StatusLine(label, one_line(value, limit=300) or "unknown")


def _actions(seen: Seen, snapshot: StatusSnapshot | None, user: str) -> tuple[ActionView, ...]:
    running = snapshot is not None
    active = snapshot is not None and snapshot.state is not ClientState.DISCONNECTED
    entries = list(_connect_actions(seen, enabled=running and not active))
    entries.append(
        ActionView(
            Action.RECONNECT, "Reconnect", active, "Leave out everything known and find the way home anew"
        )
    )
    entries.append(
        ActionView(
            Action.DISCONNECT,
            "Disconnect",
            active,
            "End the binding and the VPN; leave the network as it was found",
        )
    )
    if snapshot is not None and any(secret.owner == user for secret in snapshot.secrets_needed):
        entries.append(
            ActionView(Action.GIVE_SECRET, "Give the secret…", True, "Look into the keyring again, or ask")
        )
    entries.append(ActionView(Action.DETAILS, "Details…", True))
    if active:
        entries.append(
            ActionView(
                Action.QUIT, "Quit (the connection stays)", True, "Close this tray; the service goes on"
            )
        )
    else:
        entries.append(ActionView(Action.QUIT, "Quit", True, "Close this tray"))
    return tuple(entries)


def _connect_actions(seen: Seen, *, enabled: bool) -> Iterable[ActionView]:
    tip = "Find out where this machine is and keep its home address there"
    profiles = seen.profiles or ()
    if len(profiles) <= 1:
        yield ActionView(
            Action.CONNECT, "Connect", enabled and seen.profiles != (), tip, next(iter(profiles), "")
        )
        return
    for name in profiles:
        yield ActionView(Action.CONNECT, f"Connect {one_line(name, limit=40)}", enabled, tip, name)


def _roam_row(roam: Roam) -> RoamRow:
    begin = roam.phases[0].at if roam.phases else 0.0
    last = roam.phases[-1].at if roam.phases else 0.0
    over = roam.finished and bool(roam.phases)
    steps = roam.phases[1:-1] if over else roam.phases[1:]
    words = [
        f"{phrases.PHASES.get(step.name, step.name)} {phrases.milliseconds(step.at - begin)}"
        for step in steps
    ]
    where = f" on {roam.link}" if roam.link else ""
    return RoamRow(
        title=one_line(f"Roam {roam.serial}{where}", limit=60),
        steps=one_line(", ".join(words), limit=300) or ("at once" if over else "just begun"),
        total=phrases.milliseconds(last - begin) if over else "not over",
    )


def _health_row(item: HealthItem) -> HealthRow:
    text = one_line(item.text, limit=300) or one_line(item.code, limit=60) or "Something is wrong"
    return HealthRow(item.severity, text, one_line(item.advice, limit=400))


def _version_note(seen: Seen, now: float) -> HealthItem | None:
    """Tray and daemon are updated together but not restarted together, so say it when they differ."""
    if seen.service is not Service.RUNNING or not seen.service_version or not seen.own_version:
        return None
    if seen.service_version == seen.own_version:
        return None
    incompatible = _generation(seen.service_version) != _generation(seen.own_version)
    return HealthItem(
        code="version-mismatch",
        severity=Severity.WARNING if incompatible else Severity.INFO,
        text=f"The service is version {seen.service_version} and this tray is version {seen.own_version}",
        advice="Quit this tray and start it again; if that does not help: systemctl restart homewardd."
        " The connection itself is not affected.",
        since=now,
    )


def _generation(version: str) -> str:
    """What must be equal for two versions to understand each other: the first number, or the first two before 1.0."""
    numbers = version.split(".")
    return ".".join(numbers[:2]) if numbers[0] == "0" else numbers[0]
