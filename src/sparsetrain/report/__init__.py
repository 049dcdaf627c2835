"""Reports of finished runs: one page with tables and pictures, or a table as text."""
