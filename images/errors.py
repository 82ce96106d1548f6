"""What can go wrong while an image is built; each message is one clear sentence."""

from __future__ import annotations

from managed.domain.errors import ManagedError, Unavailable


class ImageError(ManagedError):
    """An image can't be built here as things stand; `hint` says how to mend it."""

    code = "image-build-failed"
    title = "An image could not be built"


class MirrorUnreachable(Unavailable):
    """The Debian mirror (or the proxy before it) did not deliver; later it may."""

    code = "mirror-unreachable"
    title = "The Debian mirror does not answer"
