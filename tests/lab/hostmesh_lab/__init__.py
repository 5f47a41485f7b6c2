"""Several Docker hosts on one machine, in namespaces: for the demo, the tests and play.

Never installed on a production host. Nothing outside the lab's own namespaces, its
folders under /run, /var/lib and /var/cache, and one cgroup is ever touched.
"""
