# SPDX-License-Identifier: GPL-2.0-or-later
"""What `./dev` does: set-up, checks, tests and the demo. Not part of the product, and it imports none of it."""
