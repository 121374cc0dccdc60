"""Emergency calls: numbers that nothing which stops usage may stop.

Those that every handset knows without a SIM (3GPP TS 22.101), and those of the country in which
the line is at home. A call counts as one when it goes out to exactly such a
number; two digits only by its country's plan.
"""

import re
from functools import cache

from .usage import UsageRecord

EVERYWHERE = frozenset({"000", "110", "112", "113", "115", "117", "118", "119", "911", "999"})
"""As dialled, somewhere in the world."""
_SOS = re.compile(rf"(?:\+[0-9]{{1,3}})?(?:{'|'.join(sorted(EVERYWHERE))})|urn:service:sos(?:\..*)?")
"""Also behind its country's code, or as a SIP network has it."""
CALLS = frozenset({"voice", "video", "messaging"})
"""An emergency may be told by text as well."""
CODE_DIGITS_MAX = 3


def is_emergency(record: UsageRecord) -> bool:
    """Whether the other party of an outgoing call or text is an emergency service."""
    called = record.counterpart
    if not called or record.usage_type not in CALLS or record.direction != "outbound":
        return False
    return _SOS.fullmatch(called) is not None or called in _of_country(record.line[: CODE_DIGITS_MAX + 1])


@cache
def _of_country(beginning: str) -> frozenset[str]:
    """By the first digits of a line; a line that is no public number has no country."""
    if not beginning.startswith("+"):
        return frozenset()
    codes = (beginning[1:end] for end in range(2, CODE_DIGITS_MAX + 2))
    return next((_BY_CODE[code] for code in codes if code in _BY_CODE), frozenset())


_TABLE = """
7 01 02 03 101 102 103; 20 122 123 180; 30 100 166 199; 32 100 101; 33 15 17 18; 34 085 088; 36 104
105 107; 39 113 115; 41 117 144; 43 122 133 144; 45 114; 47 113; 48 997 998; 51 105 116 117; 52 060
065 066 068 080; 53 104 105 106; 54 100 101 107; 55 128 190 192 193; 56 131 132 133; 57 123 132 156;
58 171; 61 106; 62 113; 63 117; 64 111; 65 993 995; 66 1669 191 199; 84 113 114 115; 86 120; 90 155;
91 100 101 102 108 1298 2611; 92 1122 115 15 16; 93 100 102; 94 116; 95 199; 98 115 125; 212 15 177
19; 213 14 17; 216 190 197 198; 218 190 191 193; 220 116 117 16 17 18; 221 17 18; 222 17 18; 223 15
17 18; 225 111 170 180; 226 17 18; 227 15 17 18; 228 117 171 172 177; 229 114 116 117; 230 114 115
995; 231 355; 232 019; 233 191 192 193; 234 199; 235 17 18; 236 117 1220; 237 113 117 13 17; 238 130
131 132; 241 18; 242 117; 243 113 114 177 188; 244 113 115; 245 113 117; 250 111; 251 91 92 93 939
991 997; 252 555 888; 253 17 18; 254 114; 255 111 114 115; 257 113 117; 258 117 197 198; 260 991
993; 261 117 17 18; 262 15 17 18; 263 993 994 995; 265 199 997 998; 266 115 117; 267 111 997 998;
269 17 18; 291 113 114 116; 297 100; 298 114; 350 190 199; 351 115; 352 113; 355 127 128 129; 357
199; 359 150 160 166; 370 01 011 02 022 03 033 101 102 103; 371 01 02 03 113; 373 901 902 903; 374
101 102 103; 375 101 102 103; 376 116; 377 15 17 18; 378 113 115; 380 101 102 103; 381 92 93 94; 382
122 123 124; 383 192 193 194; 385 192 193 194 93 94; 386 113; 387 122 123 124; 389 192 193 194; 420
150 151 152 153 154 155 156 157 158 159; 421 150 155 158; 423 117 144; 501 90 990; 502 120 123; 503
913; 504 199; 505 115 120 128; 508 15 17 18; 509 114; 590 15 17 18; 592 912 913; 593 101 102; 594 15
17 18; 595 128; 596 15 17 18; 597 115; 598 128; 670 115; 672 955 977; 673 991 993 995; 674 111; 675
111; 676 922 933; 679 917; 681 15 17 18; 682 996 998; 685 994 995 996; 686 192 193 194 195 992 993
994; 687 15 16 17 18; 689 15 17 18; 850 819; 852 992; 855 117 666; 856 190 191 195; 880 100 101 102
199; 960 102; 961 140 175; 962 191 192 197; 963 113; 964 100 104 115 122; 966 997; 967 191 194 195
199; 968 1444 9999; 970 100 101 102; 971 997 998; 972 100 101 102; 973 199; 975 113; 976 100 101 102
103 105; 977 100 101 102 103; 992 101 102 103; 993 01 02 03; 994 101 102 103; 995 011 022 033 111
113 122; 996 101 102 103; 998 001 002 003 01 02 03 050
"""
"""By calling code, beyond those that hold everywhere; from the numbering plans that libphonenumber keeps."""
_BY_CODE = {
    code: frozenset(numbers)
    for code, *numbers in (row.split() for row in _TABLE.replace(chr(10), " ").split(";"))
}
