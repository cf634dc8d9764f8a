"""Another label in place of the source's own: one of the aspects that responses were rated in, or their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablate.data.records import Dropped, PreferenceRecord, Response
from ablate.errors import DataError, suggestion

OWN_SCORE = "score"
"""The aspect that is the source's own score, for sets that give ranks as well."""
MISSING = "label-missing"


class AspectLabel:
    """Scores responses by the mean of named aspects; those that lack one are left out.

    ``seen`` collects the aspects of the rows, for the error when a name never occurs.
    """

    def __init__(self, aspects: Sequence[str]) -> None:
        self.aspects = tuple(aspects)
        self.seen: set[str] = set()
        self.found: set[str] = set()

    def __call__(self, record: PreferenceRecord) -> PreferenceRecord | Dropped:
        """Return the record with its new scores, ranks taken away."""
        labelled = [self._labelled(response) for response in record.responses]
        responses = tuple(response for response in labelled if response is not None)
        if len(responses) < 2:
            return Dropped(MISSING)
        missing = len(labelled) - len(responses)
        return replace(record, responses=responses, left_out=(*record.left_out, *[MISSING] * missing))

    def require_found(self) -> None:
        """Raise DataError for an aspect that no response had; to be called where no record is left."""
        for name in self.aspects:
            if name not in self.found:
                known = self.seen | ({OWN_SCORE} if OWN_SCORE in self.found else set())
                raise DataError(
                    f"no response of this set has the aspect {name!r}",
                    hint=suggestion(name, known) if known else "its responses have neither aspects nor scores",
                )

    def _labelled(self, response: Response) -> Response | None:
        values = dict(response.aspects or {})
        self.seen |= values.keys()
        if response.score is not None:
            values.setdefault(OWN_SCORE, response.score)
        self.found |= values.keys()
        if any(name not in values for name in self.aspects):
            return None
        return replace(response, score=sum(values[name] for name in self.aspects) / len(self.aspects), rank=None)
