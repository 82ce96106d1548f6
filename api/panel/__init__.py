"""The panel: server-rendered pages for staff and customers, on the same data as the API."""
