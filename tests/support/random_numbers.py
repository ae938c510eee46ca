"""Seeds, and what is known of counted random numbers."""

SEED, OFFSET = 0x9D2C5680_12345678, 2**40 + 3  # all words differ, and the highest bit is set
SEED -= 2**64
#: Counter, key and words of philox4x32-10 in ``kat_vectors`` of the authors' Random123.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
