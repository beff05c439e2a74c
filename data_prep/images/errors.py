"""The name that image pairs have for a mistake of the user's."""

from contextrl_verl.errors import ConfigError as ImagePairError

__all__ = ["ImagePairError"]
