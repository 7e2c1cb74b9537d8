# SPDX-License-Identifier: GPL-2.0-or-later
"""The D-Bus interface between daemon, command line and tray: names, messages, service and client."""
