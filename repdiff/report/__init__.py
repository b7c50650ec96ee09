"""Tables, figures and the self-contained page, made from a workdir's files alone."""

from repdiff.report.page import write

__all__ = ['write']
