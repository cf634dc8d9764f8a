"""Chat templates of the tokenizers made here, with the marks that tell which tokens are the assistant's.

Both start every turn with a mark of its role and end an assistant turn with the end-of-sequence token; neither emits
a beginning-of-sequence token. The generation prompt is a prefix, token by token, of what an assistant turn renders to.
"""

from __future__ import annotations

from ablate.errors import UnknownNameError

PAD = "<|pad|>"
END = "<|end|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
UNKNOWN = "<|unk|>"

ROLE_MARKS = (USER, ASSISTANT, SYSTEM)

_UNKNOWN_ROLE = "{{- raise_exception('unknown role ' + message['role'] + '; allowed: system, user, assistant') -}}"

# Tülu's format: the mark of the role on a line of its own. Contents are trimmed because a line break at the start of
# an answer would merge with the one after the mark, and the generation prompt would no longer be a prefix.
TULU = f"""\
{{%- for message in messages -%}}
{{%- if message['role'] == 'assistant' -%}}
{{{{- '{ASSISTANT}\\n' -}}}}
{{%- generation -%}}{{{{- message['content'] | trim + eos_token -}}}}{{%- endgeneration -%}}
{{{{- '\\n' -}}}}
{{%- elif message['role'] in ('user', 'system') -%}}
{{{{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '\\n' -}}}}
{{%- else -%}}
{_UNKNOWN_ROLE}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}\\n' -}}}}{{%- endif -%}}"""

# The same turns for a closed vocabulary of space-separated words, where a line break would be a word of its own.
POCKET = f"""\
{{%- for message in messages -%}}
{{%- set content = message['content'] | trim -%}}
{{%- if message['role'] == 'assistant' -%}}
{{{{- '{ASSISTANT} ' -}}}}
{{%- generation -%}}{{{{- content + ' ' + eos_token if content else eos_token -}}}}{{%- endgeneration -%}}
{{{{- '' if loop.last else ' ' -}}}}
{{%- elif message['role'] in ('user', 'system') -%}}
{{{{- '<|' + message['role'] + '|> ' + content + ' ' -}}}}
{{%- else -%}}
{_UNKNOWN_ROLE}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT} ' -}}}}{{%- endif -%}}"""

TEMPLATES = {"tulu": TULU, "pocket": POCKET}


def find_template(name: str) -> str:
    """Return the Jinja source of the template called ``name``; raises UnknownNameError."""
    if name not in TEMPLATES:
        raise UnknownNameError("chat template", name, TEMPLATES)
    return TEMPLATES[name]
