"""A pytest plugin that examines, and on request repairs, a PANIC-TDA trajectory database."""

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.rules.base import Check, Finding, NotApplicable, RepairKind, Rule, RuleContext, Scope, rule

__all__ = ["Check", "Finding", "NotApplicable", "RepairKind", "Rows", "Rule", "RuleContext", "Scope", "Subject", "rule"]
