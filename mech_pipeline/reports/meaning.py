"""The report's section that says what each number may and may not be used for. The same in every report."""

from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study


def meaning(_study: Study) -> Section:
    """A sentence or two for each kind of number."""
    return Section("meaning", "What each number may and may not be used for", "meaning.html")
