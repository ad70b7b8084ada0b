"""Numbers that others published about alarms before an event: other tasks and other protocols, to stand beside and not to rank."""

PUBLISHED: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "GMB v0.4 (github.com/qienhuang/F-I-T)",
        "grokking of modular addition, 39 events",
        ".01 of windows",
        "0 %",
        "–",
    ),
    ("GMB v0.4", "the same", ".05 of windows", "41 %", "12,800 steps"),
    ("GMB v0.4", "the same", ".10 of windows", "56 %", "11,300 steps"),
    (
        "Trait-space monitor (arXiv 2606.07631)",
        "fine-tuning of 7–9B models, traits named beforehand",
        ".029 of checkpoints",
        "97.8 % of checkpoints",
        "–",
    ),
)
"""(who, setting, rate of false alarms and of what, coverage, lead)."""
