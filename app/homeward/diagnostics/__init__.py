# SPDX-License-Identifier: GPL-2.0-only
"""The scapy room: capture and explain a roam, in a process of its own."""
