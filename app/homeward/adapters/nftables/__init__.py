# SPDX-License-Identifier: GPL-2.0-or-later
"""What is put into the kernel's firewall: the fence, the gate for visitors, and a rule about tunnel errors."""
