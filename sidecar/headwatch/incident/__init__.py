"""From a page to a person and back: triage, incidents, their routes and their reports."""
