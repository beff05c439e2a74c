"""The marks that stand in a context where something was taken out."""

PATCH_MASKED = "<PATCH_MASKED>"
