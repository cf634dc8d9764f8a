"""The responses of a preference set as conversations, for SFT and for pretraining."""

from __future__ import annotations

from ablate.catalogs.converters import CONVERTER_OPTIONS, ChosenAsInstructionOptions
from ablate.data.converters.preference import PREFERENCE
from ablate.data.pairing import ranked
from ablate.data.records import Conversation, Converted, PreferenceRecord, Row, canonical


def convert(row: Row, options: ChosenAsInstructionOptions) -> Converted:
    """Prompt and best response make one conversation; with ``responses: all`` every response makes one.

    Of several best ones the one drawn by content is taken; equal texts make one conversation.
    """
    inner = CONVERTER_OPTIONS[options.of].model_validate(dict(options.options))
    record = PREFERENCE[options.of](row, inner)
    if not isinstance(record, PreferenceRecord):
        return record
    responses = ranked(record, seed=0)
    if options.responses == "best":
        responses = responses[:1]
    different = {canonical(response.messages): response for response in reversed(responses)}
    return tuple(
        Conversation((*record.prompt, *response.messages), record.source, record.row_id)
        for response in reversed(different.values())
    )
