"""Shortcut audit of contrastive pairs: can the label be told without the evidence?"""

from data_prep.audit.registry import FeatureGroup, known_groups, register
from data_prep.audit.result import AuditResult, GroupRow
from data_prep.audit.run import audit
from data_prep.audit.view import AuditError, PairView

__all__ = ["AuditError", "AuditResult", "FeatureGroup", "GroupRow", "PairView", "audit", "known_groups", "register"]
