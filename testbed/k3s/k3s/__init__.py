"""A stand-in for the packaging of k3s: its command line, files and behaviour around the upstream components.

Everything that runs in the cluster is the upstream program (Kubernetes, kine, containerd, runc, CNI plugins, CoreDNS,
Traefik, ...); what is written here is what k3s itself adds. ../README.md lists each behaviour, where it is documented,
which test holds it, and what is missing. Missing things are refused by name.
"""
