"""Imports a package that its author forgot to declare as a dependency."""

import acme_solver_that_nobody_installed  # noqa: F401
