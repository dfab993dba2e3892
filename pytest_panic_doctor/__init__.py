"""A pytest plugin that examines, and on request repairs, a PANIC-TDA trajectory database."""

from pytest_panic_doctor.rules.model import Finding, NothingToLookAt, RepairKind, Rule, Scope, View, rule
from pytest_panic_doctor.store.subject import Rows, Subject

__all__ = ["Finding", "NothingToLookAt", "RepairKind", "Rows", "Rule", "Scope", "Subject", "View", "rule"]
