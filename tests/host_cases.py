"""What is trained on several hosts, and must end with the bits of one rank.

All ranks are on this machine, and take themselves to be on hosts of their own.
"""

from collections.abc import Collection, Sequence

from end_to_end import TINY, Start, staleness

RULES = {"constant": staleness(8, 8, 4), "refreshed": staleness(16, 4, 4, 1)}
CASES = {
    f"{rule}-{wire}": (*words, f"training.wire_dtype={wire}")
    for rule, words in RULES.items()
    for wire in ("float32", "float16", "bfloat16")
}
FEW_CASES = ("constant-float32", "refreshed-bfloat16")

LAYOUTS = ("001", "00123", "00001111", "01230123")
"""The host of each rank, a character each."""
FEW_LAYOUTS = ("00011", "00112233")
ALONE = "0"
EACH_BY_ITSELF = "01234567"


def folder_of(case: str, hosts: str, *, shares_memory: bool = True) -> str:
    return f"{case}-on-{hosts}{'' if shares_memory else '-unshared'}"


def starts_on(
    layouts: Sequence[str], cases: Collection[str] = FEW_CASES, *, shares_memory: bool = True
) -> list[Start]:
    return [
        Start(
            folder=folder_of(case, hosts, shares_memory=shares_memory),
            ranks=len(hosts),
            argv=(*TINY, *CASES[case]),
            hosts=hosts,
            shares_memory=shares_memory,
        )
        for case in cases
        for hosts in layouts
    ]
