"""What is to be removed: every form in which an identifier may be stored, and the requests that belong to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from headwatch.errors import CommandError
from headwatch.identifiers import TENANT_LABEL, salt_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.identifiers import Identifier, Keyring


@dataclass(frozen=True, slots=True)
class Wanted:
    """One purge."""

    kind: Identifier | None
    """None: everything before a moment."""
    forms: frozenset[str] = frozenset()
    """Of the identifier: as it is, and hashed with each salt that is kept."""
    before_ns: int = 0
    engine_ids: frozenset[str] = frozenset()
    """Of the requests that go with a user or a tenant; a document's requests stay, without it."""

    @classmethod
    def of(cls, kind: Identifier, value: str, keyring: Keyring | None) -> Self:
        """Return the purge of the identifier *value*, as the client named it.

        Raises:
            CommandError: It is empty.
        """
        if not value:
            raise CommandError(f"--{kind}: name the {kind} as the client does; an empty name would be everybody's")
        return cls(kind, frozenset(keyring.stored(kind, value) if keyring is not None else [value]))

    def with_requests(self, engine_ids: Iterable[str]) -> Self:
        """Return the purge with more requests that belong to it."""
        return replace(self, engine_ids=self.engine_ids.union(engine_ids))

    def named_in(self, text: bytes) -> bool:
        """Return whether *text*, of which nothing else is known, holds any of the names or requests."""
        return any(word.encode() in text for word in (*self.forms, *self.engine_ids))

    def takes_document(self, identity: str, labels: Mapping[str, str]) -> bool:
        """Return whether the document *identity* is to go."""
        if self.kind == "document":
            return identity in self.forms
        return self.kind == "tenant" and labels.get(TENANT_LABEL, "") in self.forms

    def takes_request(self, engine_id: str, time_ns: int, user: str, tenant: str) -> bool:
        """Return whether a request that ended at *time_ns* is to go; empty: not known whose it was."""
        theirs = (self.kind == "user" and user in self.forms) or (self.kind == "tenant" and tenant in self.forms)
        return theirs or engine_id in self.engine_ids or time_ns < self.before_ns

    def takes_remembered(self, identity: str) -> bool:
        """Return whether what is remembered of the document *identity*, and would be learned anew, is to go.

        Nobody can tell whose a name is that was hashed with a salt that is gone, and no request has it any more.
        """
        salt = salt_of(identity)
        return identity in self.forms or (salt is not None and salt not in map(salt_of, self.forms))
