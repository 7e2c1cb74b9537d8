# SPDX-License-Identifier: GPL-2.0-or-later
"""homewardd: the root process that feeds facts to the core and carries its effects out."""
