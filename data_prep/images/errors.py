"""What a person who makes image pairs should see: what is wrong, where, and how to mend it."""

from __future__ import annotations

from contextrl_verl.errors import UserError


class ImagePairError(UserError, ValueError):
    """A source, option or store that the user can mend; one paragraph that names the place, the value and the fix."""
