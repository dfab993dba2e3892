"""A pytest plugin that examines, and on request repairs, a PANIC-TDA trajectory database."""

from pytest_panic_doctor.database.subject import Rows, Subject
from pytest_panic_doctor.rules.base import Finding, NothingToLookAt, RepairKind, Rule, Scope, View, rule

__all__ = ["Finding", "NothingToLookAt", "RepairKind", "Rows", "Rule", "Scope", "Subject", "View", "rule"]
