"""The one exception a user should see: what is wrong, where, and how to mend it."""


class ConfigError(ValueError):
    """A configuration or data problem that the user can mend.

    The message is one paragraph that names the key or row, the value found there, and the fix.
    """
