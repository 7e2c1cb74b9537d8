# SPDX-License-Identifier: GPL-2.0-or-later
"""Octets to model values and back: Mobile IPv4 messages (RFC 5944) and their extensions, decoded strictly."""
