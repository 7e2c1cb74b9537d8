# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole enterprise network in namespaces on one machine, and the stories that are played in it."""
