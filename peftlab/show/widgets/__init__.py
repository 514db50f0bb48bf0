"""Widgets that live twice: in JupyterLab with a kernel, and on a page without one. One ES module each."""
