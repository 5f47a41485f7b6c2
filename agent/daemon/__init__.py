"""The daemon: one loop that connects etcd, Docker and the kernel.

Its packages depend on each other in one direction only: app and wiring > api > core >
membership | reconcile > store > telemetry > state.
"""
