"""The mechanisms that come with the package: each module defines MECHANISM, or MECHANISMS by name."""
