"""The signals that come with the package: each module defines SIGNAL."""
