"""The warning that announces the end of a hook, or of an argument of one."""

from __future__ import annotations


class HookDeprecationWarning(DeprecationWarning):
    """A plugin implements a hook, or takes an argument of one, that will disappear.

    Give it to `hookspec` as `warn_on_impl`, or as a value of `warn_on_impl_args`. `what` is deprecated since the
    version `since` and no longer there in `gone`; `instead` says what to do: "implement codellm_other".
    """

    def __init__(self, what: str, *, since: str, gone: str, instead: str) -> None:
        self.what, self.since, self.gone, self.instead = what, since, gone, instead
        super().__init__(f"{what}, deprecated since {since} and gone in {gone}: {instead}")
