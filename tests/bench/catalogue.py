# SPDX-License-Identifier: GPL-2.0-or-later
"""The benches that there are. Standard library only: `./dev bench` lists them before anything is set up."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bench:
    """One bench. `module` has `measure(folder, say) -> Figures`; `prose` is its part of docs/performance.md."""

    name: str
    about: str
    takes: str
    """What it will take of time and machine, for the person who starts it."""
    module: str
    prose: str
    kernel: bool = False
    """Whether it needs the kernel of tests/kernel."""


_HANDOVER: Final = """\
The laptop of the lab moves from one office network to another (trust1, trust2; mode c both times), and the move is
a hard one: the carrier goes and its address with it, then there is the other network with another address. The home
agent is 20 ms away, there and back (netem on the way between each office and the core). A datagram a millisecond
goes each way between home address and correspondent; an outage is the longest silence at the receiver, so it is one
sampling step longer than what really was lost. Each figure is the worst of the moves.

**Which wait is counted.** How long DHCP takes is up to the network and its server, and no part of our hand-over. In
the moves that the goal is about, the new address and its default route are therefore set in the instant in which
the cable is plugged in, and the whole silence is counted, from the last datagram over the old network to the first
over the new one. One move more is made with a real DHCP client: there the time until the address was there is a row
of its own, and what of the silence is left without it has the same goal.

**The virtual clock** (User-Mode Linux) lets computing take no time: these rows are what is *waited* for, by the
protocol and by the programs, and are the same on any machine. **The real clock** has the other half, on the machine
named above: what homewardd *works*, both user and system time, read from the kernel's own account of the process;
from the moment in which the new address is set until the first datagram that waited leaves in the tunnel; the best
of five moves, since a machine can be late at any time. Dumps and forks are counted by strace over moves of their
own. Dumps are requests by netlink for whole tables, of routes, links or addresses as well as of the firewall.

Peers, in the same run, on the same kernel, over the same cable: **strongSwan** alone with MOBIKE, the VPN of the
lab, as its packages bring it; and **WireGuard** from the laptop to the home agent's host, which asks nobody whether
the network is trusted, holds nothing back and has nothing to register: the floor.
"""

_THROUGHPUT: Final = """\
A laptop, the home agent's host and a correspondent, a cable between each two. homewardd and homeward-agent run as they
are installed, with a registration between them, and each is told to use one engine alone (`HOMEWARD_ENGINES`). The
peer has the same three hosts and cables to itself: **raw veth** without a tunnel, **plain ipip** with two `ipip`
devices of the kernel's, made by hand. All are measured in turn, after a first round that is not counted five rounds of
1.5 s of TCP and 0.6 s of datagrams each way, so each has the other's minute. Throughput is the middle one of the five:
one TCP connection between two processors that share caches is faster by half, or slower, from one second to the next,
and the best of five would be luck. *Up* is from the laptop to the correspondent. TCP is the machine's own, with the
congestion control that it has by default. That packets took the engine is checked by what passed the TUN devices.

On this machine's own kernel there is BPF but no `ipip`; the rows of `ipip` are of a kernel in a process (User-Mode
Linux, one processor, real clock, BPF interpreted), so they are about the ratio and not the gigabits.

**What it costs** is the processors' time, user's and system's, by gigabyte of all five rounds: the *whole machine's*
(/proc/stat: sender, receiver and all kernels' work among it), and what *our two programs* have had of it. TCP sends
pieces of a mebibyte; segments stay together as long as the path allows (GSO), as they do on every link that can do
so. **Small packets** are datagrams with 64 octets of data, as many as one process sends; those that arrived count.
"""

_ADAPTERS: Final = """\
Parts of the hand-over by themselves, on the real clock and without a daemon: how long after a change the kernel's
news is a new picture of the links (the best of twenty), and how soon octets of a TCP connection arrive after its
path became narrower, and wider again (the best of three each). Were the segments that no longer fit repeated by
TCP's own timer, it would be about 100 ms.
"""

_AGENT: Final = """\
A home agent on one core, and `homeward-lab load` on another, in network namespaces with cables between them. Each
registration is authentic, comes from the care-of address that it names, and names another one than the node's last;
each reply is verified. The agent has 100,000 nodes, all bound, and keeps each time stamp and binding in its store
before it answers: nothing is switched off for the bench. The peer gets the same requests on the same core, and does
nothing but check their HMAC, sign a reply and send it. Both are loaded in turn, five times for four seconds with 128
requests under way; the best of each counts. Latency is from sending a request until the kernel of whoever asked has
the reply, at a steady rate of half of that best; again the best of five times four seconds.

Memory is the process's proportional share (PSS) after all of that, with what its BPF maps take in the kernel and by
what the kernel's unreclaimable slabs have grown. **Restart** is SIGUSR2 to one life, and the next one from its first
instruction until it is ready with all bindings; meanwhile a datagram a millisecond goes to one of the home addresses,
whose tunnel is in UDP, so that the kernel carries it also where there is no `ipip`.
"""

BENCHES: Final = {
    bench.name: bench
    for bench in (
        Bench(
            "handover",
            "outage and work of a hard move between two trusted networks",
            "3 to 5 minutes, root; a lab in a kernel of its own on the virtual clock, then one on this machine",
            "tests.bench.handover.bench",
            _HANDOVER,
            kernel=True,
        ),
        Bench(
            "throughput",
            "what the tunnel carries by each engine, and what that costs",
            "3 to 5 minutes, root; network namespaces on this machine, then some in a kernel of its own",
            "tests.bench.throughput.bench",
            _THROUGHPUT,
            kernel=True,
        ),
        Bench(
            "agent",
            "registrations a second at a home agent, 100,000 bindings, and a restart with all of them",
            "1 to 2 minutes, root; network namespaces, two processors and 200 MB",
            "tests.bench.agent.bench",
            _AGENT,
        ),
        Bench(
            "adapters",
            "how soon a change of the links is noticed, and how soon TCP goes on when its path changes",
            "half a minute, root; a few network namespaces",
            "tests.bench.adapters",
            _ADAPTERS,
        ),
    )
}
