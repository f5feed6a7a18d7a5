"""Having the lock: it is renewed by the way, however long a step takes, and looked at before each act. I/O."""

from __future__ import annotations

import contextlib
import threading

from .. import kube
from ..objects import Object
from . import act, lock

PAUSE = 60.0  # s between two renewals
LEAST_SECONDS = 240  # that a lock has to last, so that it bears some renewals that the API did not take


class Holding:
    """The lock of one holder. As a context it is renewed until the body ends; without a holder nothing is done."""

    def __init__(self, site: act.Site, holder: str, pause: float = PAUSE) -> None:
        self._site, self._holder, self._pause = site, holder, pause
        self._ended = threading.Event()
        self._one = threading.Lock()
        self._thread = threading.Thread(target=self._renew_on, daemon=True)

    def renew(self) -> None:
        """Renew the lock. Raises act.NotDone where it is not this holder's any more."""
        if not self._holder:
            return
        with self._one:
            for attempt in range(3):
                lease = lease_of(self._site)
                renewed = lock.renew(lease, self._holder, self._site.api.server_time())
                if renewed is None:
                    raise act.NotDone(
                        f"The lock {self._site.namespace}/{lock.name_of(self._site.name)} is held by "
                        f"{lock.holder_of(lease or {}) or 'nobody'}, not by {self._holder}: nothing more was done."
                    )
                try:
                    return self._site.put_lease(renewed)
                except kube.KubeError as exc:
                    if exc.status != 409 or attempt == 2:
                        raise

    def __enter__(self) -> Holding:
        if self._holder:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()

    def _renew_on(self) -> None:
        while not self._ended.wait(self._pause):
            with contextlib.suppress(kube.KubeError):  # the API may be away for a moment
                try:
                    self.renew()
                except act.NotDone:
                    return  # said before the next act


def lease_of(site: act.Site) -> Object | None:
    """The lock as it is."""
    found: Object | None = site.api.get("coordination.k8s.io/v1", "Lease", lock.name_of(site.name), site.namespace)
    return found
