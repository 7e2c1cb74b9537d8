# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward-agent` is told: one TOML file, read strictly. An unknown key is an error, not a wish ignored.

    version = 1
    address = "10.0.0.2"                        # the home agent's own address: UDP 434, and its end of every tunnel
    inside_interfaces = ["inside"]              # only what comes in here is answered (RFC 5265 section 4.3)
    trusted_prefixes = ["10.1.0.0/16", "10.9.0.0/24"]   # care-of addresses that are inside; empty answers nobody

    # All of the following may be left out; these are the values that hold then.
    inside_nats = []                            # addresses of NATs inside; each must lie in a trusted prefix
    lifetime_max = 1800                         # seconds; longer ones are cut, 65535 allows "for ever"
    timestamp_tolerance = 7                     # seconds between the two clocks (RFC 5944 section 5.7.1); above 3
    answer_failed_authentication = false        # true: code 131 instead of silence (RFC 5944 section 3.8.2.1)
    # home_network = "10.77.0.0/24"             # a home network without a link of its own: packets for those of its
                                                # addresses that have no binding end here, instead of circling

    [[node]]                                    # one for each mobile node, and for each further SPI of a node
    name = "laptop"                             # for people and for the log
    home_address = "10.77.0.10"
    spi = 0x100                                 # 256 to 4294967295
    algorithm = "hmac-sha256"                   # or "hmac-md5"
    key_file = "laptop.key"                     # relative to this file's own directory

A key file holds one line: the key in hexadecimal digits, or else in base64; 16 octets or more. It must be a regular
file that belongs to root and that nobody else may read (mode 0600 or stricter).
"""
