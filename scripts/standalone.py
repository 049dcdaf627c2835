"""Panels of a report as pictures of their own, for the scripts beside this one."""

from sparsetrain.report.standalone import standalone as standalone
