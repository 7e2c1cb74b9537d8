# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the lab's hosts: configuration files, and the programs in the order in which they need each other."""

import pwd
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files as resource_files
from typing import Final

from homeward.bus.fingerprint import SALT_OCTETS, fingerprint
from homeward.lab import gateway, keys
from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.state import LabState, invoking_user
from homeward.lab.story import Setting
from homeward.lab.topology import (
    ACCESS_NETWORKS,
    AGENT,
    AGENT_ADDRESS,
    GATEWAY,
    GATEWAY_ADDRESS,
    GATEWAY_NAME,
    HOME,
    HOME_ADDRESS,
    HOSTS,
    INSIDE,
    INSIDE_NATS,
    INSIDE_PREFIXES,
    LAPTOP,
    SPI,
    AccessNetwork,
    foreign_agent,
)
from homeward.model.names import BUS_NAME
from homeward.model.registration import AuthenticationAlgorithm

File = tuple[str, int, str]
"""Path in the host, permissions, text."""

PROFILE: Final = "lab"
SYSTEM_BUS: Final = "dbus/system_bus_socket"
"""The laptop's bus, below its /run."""
BUS_INSIDE: Final = f"unix:path=/run/{SYSTEM_BUS}"
"""The same bus as the laptop's own programs find it."""
CHARON: Final = "/usr/lib/ipsec/charon"
"""The one path that AppArmor's profile for charon is for."""
ENGINE: Final = ("/bin/sh", str(resource_files("homeward.data") / "charon" / "homeward-ike"))
"""The laptop's charon: it becomes the same program, after a look at what the kernel can."""
_USER_SPACE_ESP: Final = "kernel-libipsec"

AGENT_SERVICE: Final = "agent"
AGENTS: Final = (
    AGENT,
    *(each.foreign_agent for each in ACCESS_NETWORKS.values() if each.foreign_agent is not None),
)
"""The hosts of mobility agents."""
AGENT_CONFIGURATION: Final = "/etc/homeward/agent.toml"
_BUS_CONFIGURATION: Final = "/etc/dbus-1/private-bus.conf"
KEEPALIVE: Final = 10
"""Seconds between the keepalives of a tunnel in UDP; less than this nobody may ask for (RFC 3519 section 4.10)."""
_LEASE_TIME: Final = "1h"
_SECONDS_TO_START: Final = 20.0
_ALGORITHM: Final = AuthenticationAlgorithm.HMAC_SHA256


# --- configuration ---------------------------------------------------------------------------------------------------


def files(state: LabState, host: str) -> list[File]:
    """The configuration of one host beyond what every host has."""
    match host:
        case _ if host == LAPTOP:
            return [
                ("/etc/strongswan.d/homeward/strongswan.conf", 0o644, _resource("charon", "strongswan.conf")),
                ("/etc/strongswan.d/homeward/kernel-esp.conf", 0o644, _resource("charon", "kernel-esp.conf")),
                (_BUS_CONFIGURATION, 0o644, _resource("dbus", "private-bus.conf")),
                (f"/etc/dbus-1/{BUS_NAME}.conf", 0o644, _resource("dbus", f"{BUS_NAME}.conf")),
                (profile_path(PROFILE), 0o644, profile(state, PROFILE, Setting())),
            ]
        case _ if host == GATEWAY:
            return [("/etc/strongswan.conf", 0o644, _gateway_configuration())]
        case _ if host == AGENT:
            key = keys.read(state).mobility.reveal().hex()
            return [
                (AGENT_CONFIGURATION, 0o644, _agent_configuration()),
                ("/etc/homeward/laptop.key", 0o600, key + "\n"),
            ]
        case _ if host in AGENTS:
            return [(AGENT_CONFIGURATION, 0o644, _foreign_agent_configuration(host))]
        case _:
            return []


def _resource(*parts: str) -> str:
    place = resource_files("homeward.data")
    for part in parts:
        place = place / part
    return place.read_text(encoding="utf-8")


def _gateway_configuration() -> str:
    text = _resource("lab", "gateway-strongswan.conf")
    return text.replace(f"{_USER_SPACE_ESP} ", "") if kernel_does_esp() else text


@cache
def kernel_does_esp() -> bool:
    """Whether this kernel has what the laptop's engine and the gateway need to leave ESP to it."""
    # In a network namespace of its own: it tries things out.
    question = ["unshare", "--net", *ENGINE, "--kernel-esp"]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0


def _agent_configuration() -> str:
    prefixes = ", ".join(f'"{prefix}"' for prefix in INSIDE_PREFIXES)
    nats = ", ".join(f'"{nat}"' for nat in INSIDE_NATS)
    return f"""\
version = 1
address = "{AGENT_ADDRESS}"
inside_interfaces = ["inside", "{HOME}"]
trusted_prefixes = [{prefixes}]
inside_nats = [{nats}]
nat_keepalive = {KEEPALIVE}
home_link = "{HOME}"

[[node]]
name = "laptop"
home_address = "{HOME_ADDRESS}"
spi = {SPI}
algorithm = "{_ALGORITHM.value}"
key_file = "laptop.key"
"""


def _foreign_agent_configuration(host: str) -> str:
    (network,) = [each for each in ACCESS_NETWORKS.values() if each.foreign_agent == host]
    agent, uplink = foreign_agent(network.name), HOSTS[host].leg("uplink")
    assert uplink.address is not None
    # The address that tunnels end at is the inside's own where there is one, else that of the way out.
    care_of = agent.address if network.nat is None else uplink.address.ip
    return f"""\
version = 1
role = "foreign"
care_of_addresses = ["{care_of}"]
uplink_interfaces = ["{uplink.name}"]
advertisement_interval = 1
behind_nat = {"false" if network.nat is None else "true"}
keepalive = {KEEPALIVE}
home_agent_networks = ["{AGENT_ADDRESS}/32"]

[[access]]
interface = "{agent.leg}"
address = "{agent.address}/{network.prefix.prefixlen}"
"""


def user_name() -> str:
    """Who runs the lab, by name: the owner of the laptop's profile and of its one session."""
    uid, _ = invoking_user()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise LabError(f"user id {uid} has no name, and a profile's owner needs one") from None


def profile_path(name: str) -> str:
    """Where the laptop keeps the profile of that name."""
    return f"/etc/homeward/profiles.d/{name}.toml"


def profile(state: LabState, name: str, setting: Setting) -> str:
    """A profile of the laptop's under that name, with what a story adds to it."""
    drawn = keys.read(state)
    mobility = fingerprint(drawn.mobility, secrets.token_bytes(SALT_OCTETS))
    pre_shared = fingerprint(drawn.pre_shared, secrets.token_bytes(SALT_OCTETS))
    agent, policy = ("\n".join(lines) for lines in (setting.home_agent, setting.policy))
    lines = [f"{name} = {seconds}" for name, seconds in setting.timers.items()]
    timers = "\n".join(["\n[timers]", *lines]) if lines else ""
    return f"""\
version = 1
name = "{name}"
owner = "{user_name()}"

[home_agent]
address = "{AGENT_ADDRESS}"
home_address = "{HOME_ADDRESS}"
spi = {SPI}
algorithm = "{_ALGORITHM.value}"
key = {{ secret = "{keys.MOBILITY_KEY}", fingerprint = "{mobility}" }}
{agent}

[vpn]
gateway = "{GATEWAY_NAME}"
local_identity = "{gateway.LAPTOP_IDENTITY}"
remote_identity = "{GATEWAY_NAME}"
pre_shared_key = {{ secret = "{keys.PRE_SHARED_KEY}", fingerprint = "{pre_shared}" }}
remote_networks = ["{INSIDE}"]

[policy]
destinations = ["{INSIDE}"]
{policy}
{timers}"""


# --- programs --------------------------------------------------------------------------------------------------------


def start_all(state: LabState) -> Iterator[str]:
    """Start every service and yield a line when a group of them runs."""
    for network in ACCESS_NETWORKS.values():
        Host(state, network.host).start("dnsmasq", *_dnsmasq(network))
    laptop = Host(state, LAPTOP)
    Host(state, GATEWAY).start("charon", CHARON)
    start_engine(state)
    start_agent(state, AGENT)
    (state.run(LAPTOP) / "dbus").mkdir()
    laptop.start("dbus", *_dbus())
    _wait_for(laptop, "dbus", SYSTEM_BUS)
    yield "DHCP, DNS, the laptop's bus"
    uid, _ = invoking_user()
    start_module(laptop, "login1", "homeward.lab.login1", str(uid), user_name())
    start_daemon(state)
    gateway.configure(state)
    yield "VPN gateway"
    _wait_for(laptop, "charon", "charon.vici")
    wait_for_name(laptop, "login1", "org.freedesktop.login1")
    wait_for_name(laptop, "homewardd", BUS_NAME)
    # Nobody waits for these: they are heard when they advertise.
    for host in AGENTS:
        if host != AGENT:
            start_agent(state, host)
    yield "homewardd and its charon, home agent, foreign agents"


def start_agent(state: LabState, host: str) -> None:
    """Start the mobility agent of a host, home agent or foreign agent as its configuration says."""
    start_module(Host(state, host), AGENT_SERVICE, "homeward.agentd.main", "--config", AGENT_CONFIGURATION)


def wait_for_agent(state: LabState, host: str, lives: int = 1) -> None:
    """Wait until a host's mobility agent, which may have lived before, is ready for so many times."""
    log = state.log(host, AGENT_SERVICE)
    _wait(
        Host(state, host), AGENT_SERVICE, lambda: log.exists() and log.read_text().count(" ready ") >= lives
    )


def start_engine(state: LabState) -> None:
    """Start the laptop's IKE engine as the field's unit does."""
    Host(state, LAPTOP).start("charon", *ENGINE)


def start_daemon(state: LabState) -> None:
    """Start homewardd on the laptop's system bus."""
    start_module(Host(state, LAPTOP), "homewardd", "homeward.daemon.main", "--bus", "system")


def start_module(host: Host, service: str, module: str, *arguments: str) -> None:
    """Start one of our own programs, in the Python that runs the lab."""
    host.start(service, sys.executable, "-m", module, *arguments)


def _wait_for(host: Host, service: str, path: str) -> None:
    """Wait until a service has made its socket below /run; LabError with its log's place if it does not."""
    _wait(host, service, lambda: (host.state.run(host.name) / path).exists())


def wait_for_name(host: Host, service: str, name: str) -> None:
    """Wait until a service has its name on the laptop's bus; LabError with its log's place if it does not get it."""
    question = (
        "dbus-send", "--system", "--print-reply=literal", "--dest=org.freedesktop.DBus",
        "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", f"string:{name}",
    )  # fmt: skip
    _wait(host, service, lambda: "true" in host.run(*question, check=False).stdout)


def _wait(host: Host, service: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not done():
        if host.services().get(service) is not None or time.monotonic() > deadline:
            log = host.state.log(host.name, service)
            said = log.read_text(errors="replace")[-600:].strip() if log.exists() else "nothing"
            raise LabError(f"{service} on {host.name} does not start. It says:\n{said}")
        time.sleep(0.02)


def _dbus() -> tuple[str, ...]:
    address = f"--address={BUS_INSIDE}"
    return ("dbus-daemon", f"--config-file={_BUS_CONFIGURATION}", address, "--nofork", "--nopidfile")


def _dnsmasq(network: AccessNetwork) -> tuple[str, ...]:
    first, last = network.pool
    return (
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--log-facility=-",
        "--log-dhcp",
        "--log-queries",
        f"--interface={network.interface}",
        "--except-interface=lo",
        "--bind-interfaces",
        "--no-ping",
        "--dhcp-authoritative",
        "--dhcp-leasefile=/run/dnsmasq.leases",
        f"--dhcp-range={first},{last},{network.prefix.netmask},{_LEASE_TIME}",
        f"--address=/{GATEWAY_NAME}/{GATEWAY_ADDRESS}",
    )
