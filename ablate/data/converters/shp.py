"""stanfordnlp/SHP and SHP-2: a post and two comments of which readers' votes preferred one."""

from __future__ import annotations

from ablate.catalogs.converters import SHPOptions
from ablate.data.converters.columns import columns, number
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message


def convert(row: Row, options: SHPOptions) -> Converted:
    """``labels`` 1 prefers comment A, 0 comment B; the score of a comment is its votes (net up-votes)."""
    history, text_a, text_b, label = columns(row, "shp", "history", "human_ref_A", "human_ref_B", "labels")
    if not all(isinstance(text, str) for text in (history, text_a, text_b)):
        return Dropped("not-text")
    if not all(text.strip() for text in (history, text_a, text_b)):
        return Dropped("empty-message")
    preferred = number(label)
    if preferred not in (0.0, 1.0):
        return Dropped("label-not-0-or-1")
    if options.minimum_score_ratio > 1.0:
        ratio = number(columns(row, "shp", "score_ratio")[0])
        if ratio is None or ratio < options.minimum_score_ratio:
            return Dropped("score-ratio-below-minimum")
    votes = [number(row.get(name)) for name in ("score_A", "score_B")]
    ranks = (1, 2) if preferred == 1.0 else (2, 1)
    responses = tuple(
        Response((message("assistant", text),), score=score if None not in votes else None, rank=rank)
        for text, score, rank in zip((text_a, text_b), votes, ranks, strict=True)
    )
    return PreferenceRecord((message("user", history),), responses, source="shp", row_id=_identity(row))


def _identity(row: Row) -> str:
    """Name a row by its post and its two comments, where it has their ids."""
    ids = [row.get(name) for name in ("post_id", "c_root_id_A", "c_root_id_B")]
    return "/".join(map(str, ids)) if None not in ids else digest(row)
