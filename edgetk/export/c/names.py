"""Names of tensors as C identifiers, each used once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RESERVED = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|restrict|"
    "return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while|in|out|state|room|pack|i"
)


def identifier(name: str) -> str:
    """`name` with everything that C does not allow replaced by an underscore."""
    plain = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower() or "x"
    return f"x_{plain}" if plain[0].isdigit() or _RESERVED.fullmatch(plain) else plain


@dataclass
class Names:
    """The identifiers given out so far."""

    taken: set[str] = field(default_factory=set)

    def free(self, name: str) -> str:
        """An identifier like `name` that nobody has yet."""
        base = identifier(name)
        made, count = base, 1
        while made in self.taken:
            count += 1
            made = f"{base}_{count}"
        self.taken.add(made)
        return made
