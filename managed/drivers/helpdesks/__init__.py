"""Drivers for helpdesks: implement `managed.ports.Helpdesk`."""
